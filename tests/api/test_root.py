"""`/`: JSON for programs, the way to the page for browsers."""

from __future__ import annotations

import json

import pytest
from starlette.requests import Request
from starlette.responses import Response

from lpw_sdxl.api.endpoints import Call
from lpw_sdxl.api.root import root_endpoint, wants_html

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"


async def ask(
    accept: str, *, method: str = "GET", has_page: bool = True, is_authorized: bool = True
) -> Response:
    row = root_endpoint("sdxl:0", has_page=has_page)
    headers = [(b"accept", accept.encode())] if accept else []
    request = Request({"type": "http", "method": method, "path": "/", "headers": headers})
    assert row.handler is not None
    return await row.handler(Call(row, {}, is_authorized=is_authorized), request, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("accept", "is_html"),
    [
        (BROWSER, True),
        ("text/html", True),
        ("application/json, TEXT/HTML;q=0.1", True),
        ("*/*", False),
        ("", False),
        ("application/json", False),
        ("text/*", False),
        ("text/html;q=0", False),
        ("text/html; q=0.00, */*", False),
        ("text/htmlx", False),
    ],
)
async def test_only_a_browser_is_led_to_the_page(accept: str, is_html: bool) -> None:
    assert wants_html(accept) is is_html
    response = await ask(accept)
    assert response.headers["vary"] == "accept"
    if is_html:
        assert (response.status_code, response.headers["location"]) == (302, "ui")
    else:
        assert response.status_code == 200
        assert json.loads(bytes(response.body))["model"] == "sdxl:0"


async def test_without_a_page_all_get_json() -> None:
    assert (await ask(BROWSER, has_page=False)).status_code == 200


async def test_a_head_is_200_for_all() -> None:
    for accept in (BROWSER, ""):
        assert (await ask(accept, method="HEAD", is_authorized=False)).status_code == 200


async def test_without_a_token_only_the_way_to_the_page_is_open() -> None:
    response = await ask("", is_authorized=False)
    assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")
    assert "sdxl" not in bytes(response.body).decode()
    assert (await ask(BROWSER, is_authorized=False)).status_code == 302

"""Which pages and clients may use the door: Origin, Sec-Fetch-Site, Host, token, method."""

from __future__ import annotations

import base64
import itertools
from typing import Any

import httpx
import pytest

from lpw_sdxl.api.access_tokens import AccessTokens
from lpw_sdxl.api.endpoints import EndpointTable
from lpw_sdxl.api.guard import Admission, RequestGuard
from lpw_sdxl.api.native_schemas import ServedLimits
from lpw_sdxl.api.origins import Origins
from lpw_sdxl.doors.door import ServedDoor
from lpw_sdxl.doors.openai.endpoints import openai_endpoints
from lpw_sdxl.schema import ImageSize
from lpw_sdxl.settings import Settings

TOKEN = "a-token-of-some-length"
FOREIGN = "https://other.example.org"
HOSTS = ("localhost:3000", "192.0.2.7", "lpw:3000", "gpu.lan", "evil.example.org")
ORIGINS = (None, "same", FOREIGN, "null")
SITES = (None, "cross-site")


async def drawn(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"{}"})


def guard(*, has_token: bool = False, opened: tuple[str, ...] = ()) -> RequestGuard:
    limits = ServedLimits.from_settings(Settings(), ImageSize(1024, 1024))
    rows = openai_endpoints(ServedDoor(limits, "sdxl:0123456789ab", "2026-11-30T00:00:00+00:00"))
    tokens = AccessTokens.from_settings(Settings(tokens=TOKEN)) if has_token else None  # type: ignore[arg-type]
    admission = Admission(tokens, Origins(opened, is_name_trusted=has_token))
    return RequestGuard(drawn, EndpointTable(rows), admission)


async def ask(guard: RequestGuard, method: str, path: str, headers: dict[str, str]) -> int:
    transport = httpx.ASGITransport(app=guard)
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        content = b'{"prompt": "a"}' if method == "POST" else None
        return (await client.request(method, path, content=content, headers=headers)).status_code


def expected(method: str, host: str, origin: str | None, site: str | None, token: bool) -> int:
    """What is right, from the rules in words and not from the code.

    A page of ours is one by an address or a name that no stranger can own, and where a token is
    needed by any name.
    Another page is refused, as is a body from another site that names no page.
    """
    if origin in (FOREIGN, "null"):
        return 403
    if origin == "same":
        return 200 if token or host != "evil.example.org" else 403
    return 403 if site == "cross-site" and method == "POST" else 200


CASES = [
    *itertools.product(("POST", "GET"), HOSTS, ORIGINS, SITES, (False, True)),
]


@pytest.mark.parametrize(("method", "host", "origin", "site", "token"), CASES)
async def test_pages_of_others_draw_nothing(
    method: str, host: str, origin: str | None, site: str | None, token: bool
) -> None:
    headers = {"host": host}
    if origin is not None:
        headers["origin"] = f"http://{host}" if origin == "same" else origin
    if site is not None:
        headers["sec-fetch-site"] = site
    path = "/v1/images/generations" if method == "POST" else "/v1/models"
    if token:
        assert await ask(guard(has_token=True), method, path, headers) == 401
        headers["authorization"] = f"Bearer {TOKEN}"
    status = await ask(guard(has_token=token), method, path, headers)
    assert status == expected(method, host, origin, site, token)


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (None, 401),
        ("Bearer another", 401),
        (f"Bearer {TOKEN}", 200),
        ("Basic " + base64.b64encode(f"user:{TOKEN}".encode()).decode(), 200),
        ("Basic " + base64.b64encode(f"{TOKEN}:".encode()).decode(), 200),
        ("Basic " + base64.b64encode(b"user:password").decode(), 401),
    ],
)
async def test_a_token_comes_by_bearer_or_basic(authorization: str | None, status: int) -> None:
    headers = {} if authorization is None else {"authorization": authorization}
    for method, path in (("POST", "/images/generations"), ("GET", "/v1/models")):
        assert await ask(guard(has_token=True), method, path, headers) == status


async def test_any_authorization_will_do_without_tokens() -> None:
    for value in ("Bearer any", "Basic Og==", "Basic ", "nonsense"):
        assert await ask(guard(), "POST", "/v1/images/generations", {"authorization": value}) == 200


async def test_opened_pages_and_applications_draw() -> None:
    for origin in (FOREIGN, "null", "capacitor://localhost"):
        headers = {"origin": origin, "sec-fetch-site": "cross-site"}
        opened = guard(opened=(origin,))
        assert await ask(opened, "POST", "/v1/images/generations", headers) == 200
        assert await ask(guard(), "POST", "/v1/images/generations", headers) == 403


async def test_the_door_takes_any_type_and_query() -> None:
    for content_type in ("application/json", "text/plain", "application/x-www-form-urlencoded"):
        path = "/v1/images/generations?api-version=2025-04-01-preview"
        assert await ask(guard(), "POST", path, {"content-type": content_type}) == 200
    assert await ask(guard(), "OPTIONS", "/v1/images/generations", {}) == 200
    assert await ask(guard(has_token=True), "OPTIONS", "/v1/images/edits", {}) == 200

from __future__ import annotations

from typing import Any

import httpx
import pytest

from lpw_sdxl.api.origins import OriginMiddleware, Origins, read_origins
from lpw_sdxl.errors import SettingsError

PAGE = "https://app.example.org"


def scope(host: str | None, *origins: str) -> dict[str, Any]:
    headers = [(b"origin", origin.encode()) for origin in origins]
    if host is not None:
        headers.append((b"host", host.encode()))
    return {"headers": headers}


OWN = {
    "no page": ("any.example.org", ()),
    "localhost": ("localhost:3000", ("http://localhost:3000",)),
    "capitals": ("LocalHost:3000", ("http://localhost:3000",)),
    "loopback": ("127.0.0.1:3000", ("http://127.0.0.1:3000",)),
    "loopback of IPv6": ("[::1]:3000", ("http://[::1]:3000",)),
    "a name of a network at home": ("gpu.lan:3000", ("http://gpu.lan:3000",)),
    "a service of compose": ("lpw:3000", ("http://lpw:3000",)),
    "behind a proxy with TLS": ("192.0.2.1", ("https://192.0.2.1",)),
}
STRANGE = {
    "another page": ("localhost:3000", ("https://evil.example.org",)),
    "another port": ("localhost:3000", ("http://localhost:8080",)),
    "another name of loopback": ("127.0.0.1:3000", ("http://localhost:3000",)),
    "a rebound name": ("evil.example.org:3000", ("http://evil.example.org:3000",)),
    "a name that begins like localhost": ("localhost.evil.org", ("http://localhost.evil.org",)),
    "a file or a sandbox": ("localhost:3000", ("null",)),
    "nothing": ("localhost:3000", ("",)),
    "two origins": ("localhost:3000", ("http://localhost:3000", "http://localhost:3000")),
    "no host": (None, ("http://localhost:3000",)),
    "an extension": ("localhost:3000", ("chrome-extension://localhost:3000",)),
    "a user": ("a@localhost", ("http://a@localhost",)),
    "brackets around no address": ("[:]", ("http://[:]",)),
    "an address of IPv4 in brackets": ("[127.0.0.1]:3000", ("http://[127.0.0.1]:3000",)),
}


@pytest.mark.parametrize(("host", "origins"), OWN.values(), ids=OWN.keys())
def test_a_page_of_our_own_may_ask(host: str, origins: tuple[str, ...]) -> None:
    assert Origins().refuse(scope(host, *origins)) is None


@pytest.mark.parametrize(("host", "origins"), STRANGE.values(), ids=STRANGE.keys())
def test_a_page_of_a_stranger_is_refused(host: str | None, origins: tuple[str, ...]) -> None:
    refusal = Origins((PAGE,)).refuse(scope(host, *origins))
    assert refusal is not None
    assert (refusal.status, refusal.code) == (403, "origin_not_allowed")


def test_a_name_is_trusted_where_a_token_is_asked_for() -> None:
    rebound = scope("gpu.example.org:3000", "http://gpu.example.org:3000")
    assert Origins().refuse(rebound) is not None
    assert Origins(is_name_trusted=True).refuse(rebound) is None
    assert Origins(is_name_trusted=True).refuse(scope("gpu.example.org:3000", PAGE)) is not None


def test_an_opened_origin_may_ask_and_its_neighbours_not() -> None:
    opened = Origins((PAGE,))
    assert opened.refuse(scope("localhost:3000", PAGE)) is None
    for neighbour in (f"{PAGE}:444", f"{PAGE}.evil.org", PAGE.replace("https", "http"), "null"):
        assert opened.refuse(scope("localhost:3000", neighbour)) is not None
    assert Origins(("*",)).refuse(scope("localhost:3000", "null")) is None


def test_origins_are_read_from_a_list() -> None:
    text = f"{PAGE}, http://localhost:8080\nhttp://[::1]:80"
    assert read_origins(text) == (PAGE, "http://localhost:8080", "http://[::1]:80")
    assert read_origins("") == ()
    assert read_origins(" * ") == ("*",)
    assert read_origins("null capacitor://localhost") == ("null", "capacitor://localhost")


def test_an_application_may_ask_where_it_is_opened() -> None:
    opened = Origins(("null", "capacitor://localhost"))
    for origin in opened.opened:
        assert opened.refuse(scope("localhost:3000", origin)) is None
        assert Origins().refuse(scope("localhost:3000", origin)) is not None


def test_a_request_from_another_site_is_refused_without_an_origin_too() -> None:
    fetched = scope("localhost:3000")
    fetched["headers"].append((b"sec-fetch-site", b"cross-site"))
    assert Origins().refuse(fetched) is not None
    assert Origins().refuse(fetched, takes_links=True) is None
    assert Origins(("*",)).refuse(fetched) is None


@pytest.mark.parametrize(
    "text",
    [
        *("app.example.org", "https://app.example.org/", "https://App.example.org", "file://"),
        *("https://*.example.org", "ftp://a", "https://a:port", f"* {PAGE}", "http://me:canary@a"),
    ],
)
def test_what_is_no_origin_is_refused_by_name(text: str) -> None:
    with pytest.raises(SettingsError, match=r"LPW_SDXL_CORS_ORIGINS: ") as refusal:
        read_origins(text)
    assert "canary" not in str(refusal.value)


async def answered(scope: Any, receive: Any, send: Any) -> None:
    """Answer any request."""
    headers = [(b"x-seed", b"7")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"{}"})


def ask(opened: tuple[str, ...], method: str, **headers: str) -> httpx.Request:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Request(method, "http://localhost:3000/generate", headers=names)


async def sent(opened: tuple[str, ...], method: str, **headers: str) -> httpx.Response:
    transport = httpx.ASGITransport(app=OriginMiddleware(answered, opened, ("GET", "POST")))
    async with httpx.AsyncClient(transport=transport) as client:
        return await client.send(ask(opened, method, **headers))


async def test_an_opened_origin_may_read_answers() -> None:
    response = await sent((PAGE,), "POST", origin=PAGE)
    assert response.headers["access-control-allow-origin"] == PAGE
    assert response.headers["vary"] == "Origin"
    assert "x-seed" in response.headers["access-control-expose-headers"]
    stranger = await sent((PAGE,), "POST", origin="https://evil.example.org")
    assert "access-control-allow-origin" not in stranger.headers


async def test_a_preflight_of_an_opened_origin_is_answered() -> None:
    response = await sent(
        (PAGE,),
        "OPTIONS",
        origin=PAGE,
        access_control_request_method="POST",
        access_control_request_headers="authorization,content-type",
        access_control_request_private_network="true",
    )
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == PAGE
    assert response.headers["access-control-allow-private-network"] == "true"
    assert "access-control-allow-credentials" not in response.headers


@pytest.mark.parametrize(
    ("opened", "asked", "words"),
    [
        ((PAGE,), {"origin": "https://evil.example.org"}, "LPW_SDXL_CORS_ORIGINS"),
        ((PAGE,), {"origin": PAGE, "access_control_request_method": "DELETE"}, "GET and POST"),
        (("*",), {"origin": PAGE, "access_control_request_private_network": "true"}, "GET and"),
    ],
    ids=["origin", "method", "private network"],
)
async def test_a_preflight_that_asks_for_too_much_is_refused_in_our_shape(
    opened: tuple[str, ...], asked: dict[str, str], words: str
) -> None:
    headers = {"access_control_request_method": "POST"} | asked
    response = await sent(opened, "OPTIONS", **headers)
    assert response.status_code == 403
    assert response.json()["error"]["code"] == "origin_not_allowed"
    assert words in response.json()["error"]["message"]

"""Which pages and clients may use a server: method, Host, Origin, Sec-Fetch-Site, token.

The border is put together as the service does it; what stands behind it answers everything, and
whether it would show jobs.
"""

from __future__ import annotations

import base64
import json
from typing import Any, NamedTuple

import httpx
import pytest
from starlette.requests import Request

from lpw_sdxl.api.asgi import Application
from lpw_sdxl.api.border import guard_application, warn_if_unprotected
from lpw_sdxl.api.endpoints import find_call
from lpw_sdxl.api.jobs import job_endpoints
from lpw_sdxl.api.native import native_endpoints
from lpw_sdxl.api.native_schemas import ServedLimits
from lpw_sdxl.api.root import root_endpoint
from lpw_sdxl.doors.door import ServedDoor
from lpw_sdxl.doors.names import DoorName
from lpw_sdxl.doors.open_doors import door_dialects, door_endpoints
from lpw_sdxl.schema import ImageSize
from lpw_sdxl.settings import Settings

TOKEN = "a-token-of-some-length"
PAGE = "https://app.example.org"
DRAW, EDIT = "/v1/images/generations", "/v1/images/edits"
PATHS = {
    "draw": DRAW,
    "edit": EDIT,
    "native": "/generate",
    "models": "/v1/models",
    "file": "/v1/images/files/a-secret-name.png",
    "jobs": "/jobs",
    "job": "/jobs/one",
    "page": "/ui",
    "root": "/",
    "document": "/docs.json",
    "probe": "/livez",
}
# `listed.example.org` is listed in LPW_SDXL_HOSTS, `evil.example.org` is a stranger's name that
# leads here (rebinding), `own` is the origin of a page under the Host itself. The answer is a
# status; `shown` and `hidden` are 200, with jobs and as if there were none.
TABLE = """
method  path      host                   origin                    site         token  answer
# Programs send neither an origin nor a site, and draw under any name.
POST    draw      localhost:3000         -                         -            -      200
POST    draw      192.0.2.7:3000         -                         -            -      200
POST    draw      lpw:3000               -                         -            -      200
POST    draw      listed.example.org     -                         -            -      200
POST    draw      evil.example.org       -                         -            -      200
POST    edit      evil.example.org       -                         -            -      200
POST    native    evil.example.org       -                         -            -      200
OPTIONS draw      evil.example.org       -                         -            -      200
HEAD    models    evil.example.org       -                         -            -      200
GET     models    evil.example.org       -                         -            -      200
GET     probe     evil.example.org       -                         -            -      200
GET     page      evil.example.org       -                         none         -      200
GET     root      evil.example.org       -                         none         -      200
GET     file      evil.example.org       -                         same-origin  -      200
# Jobs are shown under names that no stranger can own, and under listed ones.
GET     jobs      127.0.0.1:3000         -                         -            -      shown
GET     jobs      [::1]:3000             -                         -            -      shown
GET     jobs      192.0.2.7              -                         -            -      shown
GET     jobs      localhost:3000         -                         same-origin  -      shown
GET     jobs      lpw:3000               -                         -            -      shown
GET     jobs      gpu.lan:3000           -                         -            -      shown
GET     jobs      box.home.arpa          -                         -            -      shown
GET     jobs      lpw.images.svc         -                         -            -      shown
GET     jobs      lpw.svc.cluster.local  -                         -            -      shown
GET     jobs      listed.example.org     -                         same-origin  -      shown
GET     jobs      LISTED.example.org.    -                         -            -      shown
GET     jobs      other.example.org      -                         -            -      hidden
GET     jobs      x.listed.example.org   -                         -            -      hidden
GET     jobs      evil.example.org:3000  -                         same-origin  -      hidden
GET     job       evil.example.org:3000  -                         same-origin  -      hidden
HEAD    job       evil.example.org:3000  -                         same-origin  -      hidden
GET     jobs      127.0.0.1.evil.org     -                         -            -      hidden
# A page of our own is one by an address, a name that no stranger can own, or a listed one.
POST    draw      localhost:3000         own                       same-origin  -      200
POST    draw      192.0.2.7:3000         own                       same-origin  -      200
POST    draw      [::1]:3000             own                       same-origin  -      200
POST    draw      lpw:3000               own                       same-origin  -      200
POST    edit      gpu.lan                own                       same-origin  -      200
POST    native    listed.example.org     own                       same-origin  -      200
POST    draw      listed.example.org     https://listed.example.org same-origin -      200
GET     jobs      listed.example.org     own                       same-origin  -      shown
POST    draw      evil.example.org:3000  own                       same-origin  -      403
POST    native    evil.example.org:3000  own                       same-origin  -      403
DELETE  job       evil.example.org:3000  own                       same-origin  -      403
# Pages of others do nothing, whatever they are.
POST    draw      localhost:3000         https://other.example.org cross-site   -      403
POST    draw      localhost:3000         http://localhost:8080     same-site    -      403
POST    draw      127.0.0.1:3000         http://localhost:3000     cross-site   -      403
POST    draw      lpw:3000               http://webui:8080         cross-site   -      403
POST    draw      localhost:3000         null                      cross-site   -      403
POST    draw      localhost:3000         null                      -            -      403
POST    draw      localhost:3000         capacitor://localhost     -            -      403
POST    edit      lpw:3000               https://other.example.org cross-site   -      403
POST    edit      listed.example.org     https://app.example.org   cross-site   -      403
POST    draw      localhost:3000         -                         cross-site   -      403
DELETE  job       localhost:3000         -                         cross-site   -      403
OPTIONS draw      localhost:3000         https://other.example.org cross-site   -      403
GET     models    localhost:3000         https://other.example.org cross-site   -      403
GET     models    localhost:3000         -                         cross-site   -      403
GET     jobs      localhost:3000         -                         cross-site   -      403
GET     job       localhost:3000         -                         cross-site   -      403
# But links lead here from anywhere, and pages of others show a picture whose name they know.
GET     page      localhost:3000         -                         cross-site   -      200
GET     root      localhost:3000         -                         cross-site   -      200
GET     document  localhost:3000         -                         cross-site   -      200
GET     file      localhost:3000         -                         cross-site   -      200
GET     probe     localhost:3000         https://other.example.org cross-site   -      200
# With tokens every name is trusted: a stranger's page has none. Its origin still counts.
POST    draw      localhost:3000         -                         -            none   401
POST    draw      localhost:3000         -                         -            wrong  401
POST    draw      evil.example.org:3000  own                       same-origin  none   401
GET     jobs      localhost:3000         -                         -            none   401
GET     models    localhost:3000         -                         -            none   401
OPTIONS draw      localhost:3000         -                         -            none   200
GET     file      localhost:3000         -                         -            none   200
GET     probe     localhost:3000         -                         -            none   200
POST    draw      evil.example.org:3000  -                         -            right  200
POST    draw      gpu.example.org        own                       same-origin  right  200
GET     jobs      gpu.example.org        -                         same-origin  right  shown
POST    draw      gpu.example.org        https://other.example.org cross-site   right  403
POST    draw      gpu.example.org        null                      cross-site   right  403
POST    draw      gpu.example.org        -                         cross-site   right  403
GET     jobs      gpu.example.org        -                         cross-site   right  403
"""


class Case(NamedTuple):
    """One request, and its answer."""

    method: str
    path: str
    host: str
    origin: str
    site: str
    token: str
    answer: str

    @property
    def headers(self) -> dict[str, str]:
        """The headers that stand in the table."""
        origin = f"http://{self.host}" if self.origin == "own" else self.origin
        token = {"right": f"Bearer {TOKEN}", "wrong": "Bearer another"}.get(self.token, "-")
        named = {"origin": origin, "sec-fetch-site": self.site, "authorization": token}
        return {"host": self.host} | {name: one for name, one in named.items() if one != "-"}


LINES = [line for line in TABLE.splitlines() if line and not line.startswith("#")]
CASES = [Case(*line.split()) for line in LINES[1:]]


async def answering(scope: Any, receive: Any, send: Any) -> None:
    """Answer anything, and whether jobs would be shown; OPTIONS by its row."""
    call = find_call(scope)
    assert call is not None
    if scope["method"] == "OPTIONS":
        response = await call.endpoint.handler(call, Request(scope), Living())  # type: ignore
        await response(scope, receive, send)
        return
    shown = b"1" if call.sees_jobs else b"0"
    headers = [(b"x-shown", shown)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"{}"})


class Living:
    """The part of a running service that a probe reads."""

    is_alive = True


def border(**settings: Any) -> Application:
    chosen = Settings(hosts="listed.example.org", **settings)
    limits = ServedLimits.from_settings(chosen, ImageSize(1024, 1024))
    served = ServedDoor(limits, "sdxl:0123456789ab", "2026-11-30T00:00:00+00:00")
    names = tuple(DoorName)
    root = root_endpoint(served.model_tag, has_page=True)
    rows = (*native_endpoints(limits), *job_endpoints(1), root, *door_endpoints(names, served))
    return guard_application(
        answering,
        rows,
        chosen,
        str,
        Living,
        obstacle=lambda: None,
        dialects=door_dialects(names),  # type: ignore[arg-type]
    )


OPEN, GUARDED = border(), border(tokens=TOKEN)
OPENED = (PAGE, "null", "capacitor://localhost")
WITH_PAGES = border(cors_origins=" ".join(OPENED))


async def ask(app: Application, method: str, path: str, headers: dict[str, str]) -> httpx.Response:
    transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport) as client:
        fields = {"prompt": "a"} | ({"image": "aaaa"} if path.endswith("/edits") else {})
        content = json.dumps(fields).encode() if method == "POST" else None
        if path == PATHS["native"]:
            headers = headers | {"content-type": "application/json"}
        address = f"http://localhost:3000{path}"
        return await client.request(method, address, content=content, headers=headers)


def test_the_table_is_large_enough() -> None:
    assert len(CASES) == len(set(CASES)) >= 60


@pytest.mark.parametrize("case", CASES, ids=lambda case: " ".join(case[:6]))
async def test_a_request_gets_the_answer_of_the_table(case: Case) -> None:
    app = OPEN if case.token == "-" else GUARDED
    response = await ask(app, case.method, PATHS[case.path], case.headers)
    if case.answer in ("shown", "hidden"):
        assert response.status_code == 200
        assert response.headers["x-shown"] == ("1" if case.answer == "shown" else "0")
    else:
        assert response.status_code == int(case.answer), response.text
    if response.status_code == 403:
        assert "LPW_SDXL_HOSTS" in response.text or case.method == "HEAD"


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
        assert (await ask(GUARDED, method, path, headers)).status_code == status


async def test_where_a_proxy_is_trusted_a_name_is_not() -> None:
    """A page under a rebound name could send any bearer token."""
    app = border(tokens=TOKEN, trust_proxy_auth=True)
    foreign = {"authorization": "Bearer rpa_of-the-proxy"}
    assert (await ask(app, "POST", DRAW, foreign)).status_code == 200
    assert (await ask(app, "POST", DRAW, {})).status_code == 401
    rebound = {"host": "evil.example.org", "origin": "http://evil.example.org"}
    own = {"authorization": f"Bearer {TOKEN}"}
    assert (await ask(GUARDED, "POST", DRAW, own | rebound)).status_code == 200
    assert (await ask(app, "POST", DRAW, foreign | rebound)).status_code == 403


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"tokens": TOKEN, "trust_proxy_auth": True}, "nothing but that proxy may reach this port"),
        ({"trust_proxy_auth": True}, "it has no effect"),
        ({"tokens": TOKEN}, ""),
    ],
)
def test_trust_in_a_proxy_is_logged(
    caplog: pytest.LogCaptureFixture, settings: dict[str, Any], words: str
) -> None:
    warn_if_unprotected(Settings(**settings))
    assert [words in one for one in caplog.messages] == ([True] if words else [])


async def test_any_authorization_will_do_without_tokens() -> None:
    for value in ("Bearer any", "Basic Og==", "Basic ", "nonsense", ""):
        assert (await ask(OPEN, "POST", DRAW, {"authorization": value})).status_code == 200


@pytest.mark.parametrize("origin", OPENED)
async def test_opened_pages_and_applications_draw(origin: str) -> None:
    headers = {"origin": origin, "sec-fetch-site": "cross-site"}
    response = await ask(WITH_PAGES, "POST", DRAW, headers)
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == origin
    assert "x-should-retry" in response.headers["access-control-expose-headers"]


@pytest.mark.parametrize("origin", OPENED)
async def test_clients_in_opened_pages_may_send_headers_of_their_own(origin: str) -> None:
    asked = "authorization,content-type,x-stainless-arch,x-stainless-retry-count,x-title"
    preflight = {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": asked,
    }
    response = await ask(WITH_PAGES, "OPTIONS", DRAW, preflight)
    assert response.status_code == 200
    assert response.headers["access-control-allow-headers"] == asked
    strange = await ask(WITH_PAGES, "OPTIONS", DRAW, preflight | {"origin": f"{PAGE}.evil.org"})
    assert strange.status_code == 403


@pytest.mark.parametrize(
    "path", ["//v1/images/generations", "/v1//images/generations", "/v1/images/generations/",
             "//images/generations?api-version=2025-04-01-preview"]
)  # fmt: skip
async def test_a_base_url_may_end_with_a_slash(path: str) -> None:
    assert (await ask(OPEN, "POST", path, {})).status_code == 200
    assert (await ask(GUARDED, "POST", path, {})).status_code == 401
    missing = await ask(OPEN, "POST", path.replace("generations", "variations"), {})
    assert (missing.status_code, missing.json()["error"]["type"]) == (404, "not_found")


async def test_slashes_too_many_lead_to_no_native_endpoint() -> None:
    for path in ("//generate", "/generate/", "//jobs", "/jobs/"):
        assert (await ask(OPEN, "GET", path, {})).status_code == 404


@pytest.mark.parametrize("path", [DRAW, EDIT, "/images/edits", "/models", "/v1/models/sdxl"])
async def test_a_path_of_a_door_answers_options(path: str) -> None:
    for app in (OPEN, GUARDED):
        response = await ask(app, "OPTIONS", path, {})
        assert response.status_code == 200
        assert response.headers["allow"] in ("POST, OPTIONS", "GET, HEAD, OPTIONS")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded"])
async def test_the_door_takes_any_type_and_query(kind: str) -> None:
    path = f"{DRAW}?api-version=2025-04-01-preview"
    assert (await ask(OPEN, "POST", path, {"content-type": kind})).status_code == 200

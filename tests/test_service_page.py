"""The page over real HTTP: addresses, caching, tokens, and the switch."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from conftest import ROOT, Store
from lpw_sdxl import __version__
from lpw_sdxl.doors.page.files import read_files
from serving import Server, serving

pytestmark = pytest.mark.processes

BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
TOKEN = "a-token-that-the-page-has-not"


@pytest.fixture
def client(plain_server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=plain_server.url, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def closed(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a token and without the page."""
    environment = store.environment | {"LPW_SDXL_TOKENS": TOKEN, "LPW_SDXL_DOORS": "openai"}
    log_file = tmp_path_factory.mktemp("closed") / "log"
    with serving("service:LpwSdxl", folder=ROOT, environment=environment, log_file=log_file) as one:
        yield one


def test_the_root_leads_a_browser_to_the_page(client: httpx.Client, store: Store) -> None:
    response = client.get("/", headers=BROWSER)
    assert (response.status_code, response.headers["location"]) == (302, "ui")
    page = client.get("/", headers=BROWSER, follow_redirects=True)
    assert page.url.path == "/ui"
    assert page.text.startswith("<!doctype html>")
    assert client.get("/").json() == {"model": store.tag, "version": __version__}
    assert client.head("/").status_code == client.head("/ui").status_code == 200
    assert client.get("/ui/").headers["location"] == "../ui"


def test_every_file_is_served_as_it_is_and_with_the_policy(client: httpx.Client) -> None:
    for file in read_files():
        path = "/ui" if file.name == "index.html" else f"/ui/{file.name}"
        response = client.get(path)
        assert response.content == file.content  # httpx unpacks it
        assert response.headers["content-encoding"] == "gzip"
        assert response.headers["content-type"] == file.media_type
        assert "script-src 'self';" in response.headers["content-security-policy"]
        again = client.get(path, headers={"if-none-match": response.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    for path in ("/ui/absent.js", "/ui/../service.py", "/ui/%2e%2e/service.py", "/ui/index.html"):
        assert client.get(path).status_code == 404


def test_no_page_of_bentoml_is_left(client: httpx.Client) -> None:
    assert client.get("/static_content/swagger-initializer.js").status_code == 404


def test_without_its_door_there_is_json_only(closed: Server) -> None:
    bearer = {"authorization": f"Bearer {TOKEN}"}
    assert httpx.get(f"{closed.url}/ui", headers=bearer).status_code == 404
    assert set(httpx.get(f"{closed.url}/", headers=BROWSER | bearer).json()) == {"model", "version"}


def test_with_tokens_a_stranger_learns_that_there_is_a_server(closed: Server) -> None:
    assert httpx.head(f"{closed.url}/").status_code == 200
    response = httpx.get(f"{closed.url}/")
    assert (response.status_code, response.json()["error"]["code"]) == (401, "unauthorized")


def test_the_page_names_no_foreign_host() -> None:
    foreign = re.compile(rb"https?://(?!www\.w3\.org/2000/svg)|[\"'(]//")
    folder = Path(read_files.__code__.co_filename).parent / "static"
    assert [one.name for one in folder.iterdir() if foreign.search(one.read_bytes())] == []

"""A1111's door on a server with a token and little room: what is drawn, and what waits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from conftest import ROOT, Store
from serving import Server, serving

pytestmark = pytest.mark.processes

TXT2IMG = "/sdapi/v1/txt2img"
TOKEN = "a-token-of-a-client-of-a1111"
SMALL = {"prompt": "a cat", "width": 64, "height": 64, "steps": 4, "seed": 7}


@pytest.fixture(scope="module")
def server(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    environment = store.environment | {"LPW_SDXL_TOKENS": TOKEN, "LPW_SDXL_MAX_QUEUED_JOBS": "2"}
    log_file = tmp_path_factory.mktemp("few") / "log"
    with serving("service:LpwSdxl", folder=ROOT, environment=environment, log_file=log_file) as one:
        yield one


def test_a_token_comes_as_password_as_user_or_as_bearer(server: Server) -> None:
    with httpx.Client(base_url=server.url, timeout=60) as client:
        for path in (TXT2IMG, "/sdapi/v1/interrogate"):
            refused = client.post(path, json=SMALL)
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"].startswith("Basic")
            assert refused.json().keys() == {"error", "detail", "message", "field"}
        for auth in (("anyone", TOKEN), (TOKEN, "")):
            assert client.post(TXT2IMG, json=SMALL, auth=auth).status_code == 200
        wrong = client.post(TXT2IMG, json=SMALL, auth=("anyone", "wrong"))
        assert wrong.status_code == 401
        bearer = {"authorization": f"Bearer {TOKEN}"}
        missing = client.post("/sdapi/v1/interrogate", json=SMALL, headers=bearer)
        assert missing.status_code == 404
        assert missing.json()["error"] == "not_found"


def test_requests_wait_for_room_and_are_not_refused(server: Server) -> None:
    def draw(seed: int) -> list[int]:
        body = SMALL | {"batch_size": 3, "seed": seed}
        response = httpx.post(
            f"{server.url}{TXT2IMG}", json=body, auth=("anyone", TOKEN), timeout=120
        )
        assert response.status_code == 200, response.text
        assert len(response.json()["images"]) == 3
        seeds: list[int] = json.loads(response.json()["info"])["all_seeds"]
        return seeds

    with ThreadPoolExecutor(4) as threads:
        drawn = [*threads.map(draw, (10, 20, 30, 40))]
    assert drawn == [[seed, seed + 1, seed + 2] for seed in (10, 20, 30, 40)]
    assert "Traceback" not in server.log

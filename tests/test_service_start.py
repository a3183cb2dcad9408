"""The start of the real service, over HTTP: an open port, 503 until it is ready, one clear end."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from conftest import ROOT, Store, store_environment
from pinging import Pinging
from serving import Server, assert_an_end, free_port, serve_command, serve_to_its_end, started

GO_ON = "SLOW_SERVICE_FILE"  # to slow_service.py
DEADLY = "the thread ends here"  # to breakable_service.py
CONTAINER = {"BENTOML_CONTAINERIZED": "true"}
pytestmark = pytest.mark.processes

REQUEST = {"prompt": "a fox", "num_inference_steps": 2, "width": 64, "height": 64}
# Until the worker answers: the imports of BentoML and of the border, without torch. Many tests may
# run beside this one.
OPEN_S = 8.0
# Of a ping; while a worker ends, a SYN may be ignored, and the client's system repeats it after a
# second.
QUICK_S = 1.5
SLOW_SHARE = 0.05


@pytest.fixture
def environment(store: Store, tmp_path: Path) -> dict[str, str]:
    path = os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    return store.environment | {"PYTHONPATH": path, GO_ON: str(tmp_path / "go on")}


@contextmanager
def pinged(
    target: str, environment: Mapping[str, str], folder: Path
) -> Iterator[tuple[Server, Pinging]]:
    """Start a service that is pinged from before its start."""
    port = free_port()
    with Pinging(f"http://127.0.0.1:{port}") as pinging:
        command = serve_command(target, port)
        with started(command, port, ROOT, environment, folder / "log") as server:
            yield server, pinging


def test_pings_are_answered_from_the_imports_to_the_end(
    environment: dict[str, str], tmp_path: Path
) -> None:
    settings = {"LPW_SDXL_DRAIN_S": "1", "LPW_SDXL_TOKENS": "a-token-of-some-length"}
    with pinged("service:LpwSdxl", environment | settings, tmp_path) as (server, pinging):
        pinging.wait_for(200)
        server.process.send_signal(signal.SIGTERM)
        pinging.wait_for("ConnectionRefusedError")
        assert server.process.wait(30) == 0
    assert pinging.phases[0] == pinging.phases[-1] == "ConnectionRefusedError"
    answered = [ping for ping in pinging.pings if isinstance(ping.outcome, int)]
    assert [one for one in pinging.phases[1:-1] if isinstance(one, int)] == [204, 200, 503]
    opened_s = answered[0].at_s + answered[0].took_s
    # The last ones may be reset, which is told from a hanging one at once.
    others = {ping.outcome for ping in pinging.pings} - {204, 200, 503}
    assert others <= {"ConnectionRefusedError", "ConnectionResetError"}
    assert_never_hanging(pinging, opened_s)


def assert_never_hanging(pinging: Pinging, opened_s: float) -> None:
    """Check that once the port was open every ping had its outcome quickly."""
    later = [ping.took_s for ping in pinging.pings if ping.at_s >= opened_s]
    slow = [took_s for took_s in later if took_s > QUICK_S]
    assert len(slow) <= SLOW_SHARE * len(later), sorted(later)[-10:]
    assert max(later) < OPEN_S


@pytest.mark.thorough
def test_pings_are_answered_through_the_death_of_an_engine(
    environment: dict[str, str], tmp_path: Path
) -> None:
    with pinged("breakable_service:LpwSdxl", environment, tmp_path) as (server, pinging):
        pinging.wait_for(200)
        broken = httpx.post(f"{server.url}/generate", json=REQUEST | {"prompt": DEADLY}, timeout=30)
        assert broken.status_code == 503
        for outcome in (503, 204, 200):
            pinging.wait_for(outcome)
        assert httpx.post(f"{server.url}/generate", json=REQUEST, timeout=30).status_code == 200
        gauges = httpx.get(f"{server.url}/metrics").text
    assert pinging.phases[1:6] == [204, 200, 503, 204, 200]
    died_s = next(ping.at_s for ping in pinging.pings if ping.outcome == 503)
    again = [ping for ping in pinging.pings if ping.outcome == 204 and ping.at_s > died_s]
    assert max(ping.took_s for ping in again) < OPEN_S  # those that came during the imports
    assert_never_hanging(pinging, again[-1].at_s)
    jobs = re.findall(r"^lpw_sdxl_(?:active|queue)_jobs (\S+)$", gauges, re.MULTILINE)
    assert jobs == ["0.0", "0.0"]  # the dead one's are forgotten


@pytest.mark.thorough
def test_in_a_container_a_dead_engine_closes_the_port(
    environment: dict[str, str], tmp_path: Path
) -> None:
    target = "breakable_service:LpwSdxl"
    with pinged(target, environment | CONTAINER, tmp_path) as (server, pinging):
        pinging.wait_for(200)
        httpx.post(f"{server.url}/generate", json=REQUEST | {"prompt": DEADLY}, timeout=30)
        pinging.wait_for("ConnectionRefusedError")
        assert server.process.wait(30) == 1
    assert [one for one in pinging.phases if isinstance(one, int)] == [204, 200, 503]
    died_s = next(ping.at_s for ping in pinging.pings if ping.outcome == 503)
    assert_never_hanging(pinging, died_s)
    assert "lpw-sdxl: the engine's thread has ended" in server.log


def test_while_it_starts_all_is_answered_and_nothing_is_made(
    environment: dict[str, str], tmp_path: Path
) -> None:
    with pinged("slow_service:LpwSdxl", environment, tmp_path) as (server, pinging):
        pinging.wait_for(204)
        with httpx.Client(base_url=server.url, timeout=10) as client:
            for path in (
                "/livez",
                "/healthz",
                "/ui",
                "/",
                "/docs.json",
                "/schema.json",
                "/metrics",
            ):
                assert client.get(path).status_code == 200, path
            assert client.get("/readyz").status_code == 503
            refused = client.post("/generate", json=REQUEST)
            assert refused.status_code == 503
            assert refused.json()["error"] == {
                "code": "starting",
                "message": "the model is still being loaded; try again in a few seconds",
                "field": None,
            }
            assert refused.headers["retry-after"] == "3"
            for path in ("/generate_batch", "/generate_stream", "/inspect_prompt", "/info"):
                assert client.post(path, json={}).status_code == 503, path
            assert client.get("/jobs").json()["error"]["code"] == "starting"
            openai = client.post("/v1/images/generations", json={"prompt": "a fox"})
            assert openai.status_code == 503
            assert openai.json()["error"]["code"] == "starting"
            a1111 = client.post("/sdapi/v1/txt2img", json={"prompt": "a fox"})
            assert a1111.status_code == 503
            assert "still being loaded" in a1111.text
            counted = re.search(
                r'lpw_sdxl_errors_total\{code="starting"\} (\d+)', client.get("/metrics").text
            )
            assert counted is not None
            assert int(counted[1]) >= 6
            assert client.post("/nowhere", json={}).status_code == 404
            Path(environment[GO_ON]).touch()
            pinging.wait_for(200)
            assert client.get("/readyz").status_code == 200
            assert client.post("/generate", json=REQUEST).status_code == 200
    assert "Traceback" not in server.log


def test_sigterm_ends_a_start_at_once(environment: dict[str, str], tmp_path: Path) -> None:
    settings = {"LPW_SDXL_DRAIN_S": "60"}
    with pinged("slow_service:LpwSdxl", environment | settings, tmp_path) as (server, pinging):
        pinging.wait_for(204)
        begun = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 0
        assert time.monotonic() - begun < 10  # no balancer ever took it for ready
    assert "this process ends without an engine" in server.log
    assert "Traceback" not in server.log


@pytest.mark.parametrize(
    "workers",
    ["1", *(pytest.param(one, marks=pytest.mark.thorough) for one in ("2", "a container's"))],
)
def test_a_model_that_can_not_be_loaded_ends_all_with_one_sentence(
    store: Store, tmp_path: Path, workers: str
) -> None:
    shutil.copytree(store.home / "models", tmp_path / "models")
    weights = tmp_path / "models" / Path(*store.tag.split(":")) / "unet"
    file = weights / "diffusion_pytorch_model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    settings = {"LPW_SDXL_WORKERS": workers} if workers.isdigit() else CONTAINER
    ended = serve_to_its_end(store_environment(tmp_path) | settings)
    assert ended.returncode == 1
    assert_an_end(ended, store.tag, "other bytes in unet/diffusion_pytorch", "model_import.py")


def test_a_start_that_fails_by_a_defect_ends_all_and_shows_it(
    environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "defective.py").write_text(
        "from service import LpwSdxl\n"
        "def fail(self):\n"
        "    raise ZeroDivisionError('a defect')\n"
        "LpwSdxl.inner.load_engine = fail\n"
    )
    path = os.pathsep.join([str(tmp_path), environment["PYTHONPATH"]])
    ended = serve_to_its_end(environment | {"PYTHONPATH": path}, "defective:LpwSdxl")
    output = ended.stdout + ended.stderr
    assert ended.returncode == 1
    assert "the engine can't be loaded" in output
    assert output.count("Traceback") == 1
    assert "lpw-sdxl: a defect" in output

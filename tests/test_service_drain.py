"""SIGTERM to the real service under load, and its log as lines of JSON."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

import httpx
import pytest

from conftest import ROOT, Store
from serving import Server, serving

pytestmark = [pytest.mark.processes, pytest.mark.thorough]

CLIENTS = 16
REQUEST = {"prompt": "a fox", "num_inference_steps": 20, "width": 64, "height": 64}


class Load:
    """Clients that send requests again and again, each on a new connection, until it is refused."""

    def __init__(self, url: str) -> None:
        self.outcomes: list[str] = []
        self._url = url
        self._threads = [threading.Thread(target=self._ask_on) for _ in range(CLIENTS)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads:
            thread.join()

    def _ask_on(self) -> None:
        outcome = ""
        while outcome != "ConnectError":
            try:
                answer = httpx.post(f"{self._url}/generate", json=REQUEST, timeout=60)
                outcome = str(answer.status_code)
            except httpx.HTTPError as error:
                outcome = type(error).__name__
            self.outcomes.append(outcome)


def test_sigterm_under_load_answers_every_client_that_was_not_refused(
    store: Store, tmp_path: Path
) -> None:
    with serving(
        "service:LpwSdxl", folder=ROOT, environment=store.environment, log_file=tmp_path / "log"
    ) as server:
        with Load(server.url) as load:
            while len(load.outcomes) < CLIENTS:
                time.sleep(0.05)
            server.process.send_signal(signal.SIGTERM)
        assert set(load.outcomes) == {"200", "ConnectError"}, server.log
        assert load.outcomes.count("ConnectError") == CLIENTS
        server.process.wait(30)
        assert server.process.returncode == 0
        assert "Traceback" not in server.log


def test_a_balancer_is_given_time_to_notice(store: Store, tmp_path: Path) -> None:
    with serving(
        "service:LpwSdxl",
        folder=ROOT,
        environment=store.environment | {"LPW_SDXL_DRAIN_S": "3"},
        log_file=tmp_path / "log",
    ) as server:
        server.process.send_signal(signal.SIGTERM)
        started = time.monotonic()
        while httpx.get(f"{server.url}/readyz").status_code == 200:
            assert time.monotonic() - started < 2
        assert httpx.get(f"{server.url}/livez").status_code == 200
        assert httpx.post(f"{server.url}/generate", json=REQUEST).status_code == 200
        server.process.wait(30)
        assert 3 <= time.monotonic() - started < 15


def log_lines(server: Server) -> list[dict[str, object]]:
    return [json.loads(line) for line in server.log.splitlines()]


def test_every_line_of_the_log_is_an_object_if_asked(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "more"
    folder.mkdir()
    # As a library may: print, warn, and fail in a thread, in supervisor and worker alike.
    (folder / "sitecustomize.py").write_text(
        "import sys, threading, time, warnings\n"
        "def noise():\n"
        "    while 'service' not in sys.modules: time.sleep(0.01)\n"
        "    time.sleep(2)\n"
        "    print('two\\nlines')\n"
        "    print('half a line', end='', file=sys.stderr)\n"
        "    warnings.warn('be warned')\n"
        "    raise ValueError('in a thread')\n"
        "threading.Thread(target=noise, daemon=True).start()\n"
    )
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    with serving(
        "service:LpwSdxl",
        folder=ROOT,
        environment=store.environment | {"LPW_SDXL_LOG_FORMAT": "json", "PYTHONPATH": path},
        log_file=tmp_path / "log",
    ) as server:
        assert httpx.post(f"{server.url}/generate", json=REQUEST, timeout=60).status_code == 200
        assert httpx.post(f"{server.url}/generate", json={}, timeout=60).status_code == 400
        time.sleep(3)
    lines = log_lines(server)
    messages = {line["message"]: line for line in lines}
    assert {"two", "lines", "half a line"} <= set(messages)
    assert any("be warned" in str(message) for message in messages)
    (error, *_) = [line for line in lines if "exception" in line]
    assert "ValueError: in a thread" in str(error["exception"])
    assert {"lpw_sdxl.api.guard", "bentoml.serve", "stdout", "stderr", "py.warnings"} <= {
        line["logger"] for line in lines
    }


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"LPW_SDXL_MAX_ROWS": "1"}, "LPW_SDXL_MAX_ROWS: "),
        ({"LPW_SDXL_MODEL": "sdxl:missing"}, "sdxl:missing"),
    ],
    ids=["setting", "model"],
)
def test_a_service_that_can_not_start_says_so_in_json_too(
    store: Store, tmp_path: Path, settings: dict[str, str], expected: str
) -> None:
    environment = store.environment | {"LPW_SDXL_LOG_FORMAT": "json"} | settings
    with (
        pytest.raises(AssertionError, match="the service ended"),
        serving("service:LpwSdxl", folder=ROOT, environment=environment, log_file=tmp_path / "log"),
    ):
        pass
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert expected in str(lines[-1]["message"])

"""Two workers of the real service: both work, are counted together, are replaced, and drain."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest

from conftest import ROOT, Store
from serving import Server, free_port, serving

pytestmark = [pytest.mark.processes, pytest.mark.thorough]

REQUEST = {"prompt": "a fox", "num_inference_steps": 10, "width": 64, "height": 64}


@pytest.fixture(scope="module")
def server(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    environment = store.environment | {"LPW_SDXL_WORKERS": "2", "LPW_SDXL_OPEN_METRICS": "true"}
    folder = tmp_path_factory.mktemp("workers")
    with serving(
        "service:LpwSdxl", folder=ROOT, environment=environment, log_file=folder / "log"
    ) as server:
        wait_until(lambda: server.log.count("model loaded in") == 2)
        yield server


def wait_until(happened: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def workers_of(server: Server) -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process(server.process.pid).children(recursive=True)
        if "_bentoml_impl.worker.service" in child.cmdline()
    ]


def ask(server: Server, seed: int = 0) -> int:
    return httpx.post(
        f"{server.url}/generate", json=REQUEST | {"seed": seed}, timeout=60
    ).status_code


def images_counted(server: Server) -> int:
    text = httpx.get(f"{server.url}/metrics").text
    (total,) = re.findall(r"^lpw_sdxl_images_total ([\d.]+)$", text, re.MULTILINE)
    return int(float(total))


def images_of_each(server: Server) -> set[int]:
    def ask_once(_: int) -> int:
        answer = httpx.post(f"{server.url}/info", json={}).json()
        return int(answer["engine"]["images"])

    with ThreadPoolExecutor(12) as pool:  # the kernel gives one that asks alone to the same again
        return {*pool.map(ask_once, range(60))}


def test_both_work_and_their_metrics_add_up(server: Server) -> None:
    assert len(workers_of(server)) == 2
    with ThreadPoolExecutor(12) as pool:
        assert {*pool.map(lambda seed: ask(server, seed), range(36))} == {200}
    assert images_counted(server) == 36
    devices = re.findall(
        r'^lpw_sdxl_device_info\{.*kind="(?:cpu|cuda)".*\} ([\d.]+)$',
        httpx.get(f"{server.url}/metrics").text,
        re.MULTILINE,
    )
    assert [*map(float, devices)] == [1]  # equal ones are one series
    each = images_of_each(server)
    assert 36 not in each  # no worker made them all
    assert sum(each) == 36 or each == {18}


def test_who_is_killed_is_replaced_while_the_other_goes_on(server: Server) -> None:
    first, second = workers_of(server)
    first.send_signal(signal.SIGKILL)
    first.wait(10)
    statuses = []
    deadline = time.monotonic() + 60
    while server.log.count("model loaded in") < 3:
        assert time.monotonic() < deadline
        with contextlib.suppress(httpx.TransportError):  # a connection that the dead one had taken
            statuses.append(ask(server))
    assert {*statuses} == {200}
    assert second.is_running()
    assert len(workers_of(server)) == 2


def test_both_finish_what_they_accepted(server: Server) -> None:
    outcomes: list[int] = []
    request = REQUEST | {"num_inference_steps": 100}

    def send() -> None:
        answer = httpx.post(f"{server.url}/generate", json=request, timeout=60)
        outcomes.append(answer.status_code)

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    active = re.compile(r"^lpw_sdxl_(?:active|queue)_jobs ([\d.]+)$", re.MULTILINE)
    wait_until(
        lambda: sum(map(float, active.findall(httpx.get(f"{server.url}/metrics").text))) == 8
    )
    server.process.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.join()
    assert outcomes == [200] * 8
    server.process.wait(30)


def test_several_are_refused_in_a_container(store: Store) -> None:
    environment = store.environment | {"LPW_SDXL_WORKERS": "2", "BENTOML_CONTAINERIZED": "true"}
    done = subprocess.run(
        [
            *(sys.executable, "-m", "bentoml", "serve", "service:LpwSdxl"),
            *("--host", "127.0.0.1", "--port", str(free_port())),
        ],
        cwd=ROOT,
        env=os.environ | dict(environment),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode != 0
    assert "a container for each GPU would be right" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr

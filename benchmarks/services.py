"""Real `bentoml serve` processes to put under load: ours, and any other; started and stopped.

Each has a BentoML home of its own, for two servers that share one damage each other.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
from common import ROOT, demo_model

READY_S = 300
STOP_S = 60


@dataclass(frozen=True)
class Service:
    """The arguments of `bentoml serve`.

    Attributes:
        target: `module:Class`.
        folder: where the module is.
        environment: variables beside those of the benchmark's own process.
        descriptors: its limit of file descriptors (`ulimit -n`); None for the benchmark's own.
    """

    target: str
    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    descriptors: int | None = None


@dataclass(frozen=True)
class Running:
    """A running service.

    Attributes:
        url: where it listens.
        supervisor: process id of `bentoml serve`.
        log_file: its log.
    """

    url: str
    supervisor: int
    log_file: Path

    @property
    def worker(self) -> int:
        """Find the worker process: the largest of the supervisor's descendants."""
        supervisor = psutil.Process(self.supervisor)
        family = [supervisor, *supervisor.children(recursive=True)]
        return max(family, key=lambda member: member.memory_info().rss).pid

    def ask(self, path: str) -> dict[str, object]:
        """POST an empty object and read the JSON that comes back."""
        answer = httpx.post(f"{self.url}{path}", json={}, timeout=60)
        answer.raise_for_status()
        content: dict[str, object] = answer.json()
        return content


@contextlib.contextmanager
def model_to_serve(directory: Path | None) -> Iterator[Path]:
    """Yield a model directory of a BentoML store: this one, or the demo model for a while."""
    if directory is not None:
        yield directory.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="lpw-sdxl-demo-") as home:
        yield demo_model(Path(home))


def our_service(model: Path, **settings: object) -> Service:
    """Describe LPW-SDXL's service of a model.

    Args:
        model: its directory in a BentoML store, `…/models/NAME/VERSION`.
        settings: of `lpw_sdxl.settings.Settings`, by their names there.
    """
    named = {f"LPW_SDXL_{name.upper()}": str(value) for name, value in settings.items()}
    tag = f"{model.parent.name}:{model.name}"
    return Service("service:LpwSdxl", ROOT, named | {"LPW_SDXL_MODEL": tag})


@contextlib.contextmanager
def running(service: Service, model: Path, threads: int) -> Iterator[Running]:
    """Serve until the block ends.

    Args:
        service: what to serve.
        model: a model directory of a BentoML store; the service finds its store in its home.
        threads: OpenMP threads of its processes.
    """
    with tempfile.TemporaryDirectory(prefix="lpw-sdxl-bench-") as home:
        (Path(home) / "models").symlink_to(model.parents[1])
        environment = _clean_environment() | {
            "BENTOML_HOME": home,
            "OMP_NUM_THREADS": str(threads),
            **service.environment,
        }
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        log_file = Path(home) / "log"
        # On SIGTERM, which `timeout` sends, Python would end without stopping the service.
        before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        with log_file.open("w") as log:
            process = subprocess.Popen(
                [
                    *_with_descriptors(service.descriptors),
                    *(sys.executable, "-m", "bentoml", "serve", service.target),
                    *("--host", "127.0.0.1", "--port", str(port)),
                ],
                cwd=service.folder,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            started = Running(f"http://127.0.0.1:{port}", process.pid, log_file)
            _wait_until_ready(process, started, log_file)
            yield started
        finally:
            _stop(process)
            signal.signal(signal.SIGTERM, before)


def _with_descriptors(limit: int | None) -> list[str]:
    """Return the words before a command that give it another limit of file descriptors."""
    return [] if limit is None else ["sh", "-c", f'ulimit -n {limit} && exec "$0" "$@"']


class OtherWork:
    """A measurement of the machine's load beside this benchmark and its processes.

    Two OpenMP threads wait for each other by spinning: with one core of two taken by
    another program, a model was ten times slower; so a result records the load beside it.
    """

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._before = _busy_s() - _own_s()

    def share(self) -> float:
        """Compute the share of all cores that others had since this was made, 0 to 1."""
        others_s = _busy_s() - _own_s() - self._before
        cores = psutil.cpu_count() or 1
        return float(max(0.0, round(others_s / (time.monotonic() - self._started) / cores, 3)))


def _busy_s() -> float:
    """Add up the CPU seconds of the whole machine, including those that a hypervisor took."""
    times = psutil.cpu_times()
    return float(times.user + times.system + getattr(times, "steal", 0.0))


def _own_s() -> float:
    return cpu_seconds(psutil.Process())


def cpu_seconds(root: psutil.Process) -> float:
    """Add up the CPU seconds of a process and its descendants, ended ones included."""
    total = 0.0
    for process in (root, *root.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def _clean_environment() -> dict[str, str]:
    """Return the environment without the user's own settings, which would be measured.

    The device stays: a large model is measured on a CPU only if LPW_SDXL_DEVICE asks for it.
    """
    ours = ("LPW_SDXL_", "BENTOML_", "OMP_", "PYTHONUNBUFFERED")
    kept = {
        key: value
        for key, value in os.environ.items()
        if key == "LPW_SDXL_DEVICE" or not key.startswith(ours)
    }
    return kept | {"BENTOML_DO_NOT_TRACK": "True", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}


def _wait_until_ready(process: subprocess.Popen[bytes], started: Running, log_file: Path) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{started.url}/readyz", timeout=5).status_code == 200:
                return
        time.sleep(0.1)
    sys.exit(f"the service was not ready in {READY_S} s:\n{log_file.read_text(encoding='utf-8')}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

"""Starts the real service as users do, for the tests that talk to it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

READY_SECONDS = 120
ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Server:
    """A running `bentoml serve`.

    Attributes:
        url: where it listens.
        log_file: all that it wrote, both streams.
        process: the command itself, which starts and watches the workers.
    """

    url: str
    log_file: Path
    process: subprocess.Popen[bytes]

    @property
    def log(self) -> str:
        return self.log_file.read_text(encoding="utf-8")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def serving(
    target: str,
    *,
    folder: Path,
    environment: Mapping[str, str],
    log_file: Path,
    python: Path | None = None,
) -> Iterator[Server]:
    """Run `bentoml serve TARGET` until the block ends; SIGTERM stops it."""
    port = free_port()
    command = serve_command(target, port, python)
    with running(command, port, folder, environment, log_file) as server:
        yield server


def serve_command(target: str, port: int, python: Path | None = None) -> list[str]:
    command = [str(python or sys.executable), "-m", "bentoml", "serve", target]
    return [*command, "--host", "127.0.0.1", "--port", str(port)]


def serve_to_its_end(
    environment: Mapping[str, str], target: str = "service:LpwSdxl"
) -> subprocess.CompletedProcess[str]:
    """Run a `bentoml serve` that does not come to serve."""
    command = serve_command(target, 0)
    return subprocess.run(
        command,
        cwd=ROOT,
        env=dict(environment),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def assert_one_sentence(ended: subprocess.CompletedProcess[str], *parts: str) -> None:
    """Check that a start failed with one sentence, which has these parts."""
    assert ended.returncode != 0
    output = ended.stdout + ended.stderr
    assert "Traceback" not in output
    lines = [line for line in output.splitlines() if line.strip()]
    assert len(lines) == 1, output
    for part in parts:
        assert part in lines[0]


def assert_an_end(ended: subprocess.CompletedProcess[str], *parts: str) -> None:
    """Check that a worker ended the service with one sentence, which has these parts."""
    output = ended.stdout + ended.stderr
    assert "Traceback" not in output
    sentences = {line for line in output.splitlines() if line.startswith("lpw-sdxl: ")}
    assert len(sentences) == 1, output
    for part in parts:
        assert part in next(iter(sentences))


@contextlib.contextmanager
def running(
    command: list[str], port: int, folder: Path, environment: Mapping[str, str], log_file: Path
) -> Iterator[Server]:
    """Run a command that serves; wait until it is ready, and stop all of it at the end."""
    with started(command, port, folder, environment, log_file) as server:
        _wait_until_ready(server)
        yield server


@contextlib.contextmanager
def started(
    command: list[str], port: int, folder: Path, environment: Mapping[str, str], log_file: Path
) -> Iterator[Server]:
    """Run a command that serves; stop all of it at the end."""
    with log_file.open("w") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=dict(environment),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = Server(f"http://127.0.0.1:{port}", log_file, process)
    try:
        yield server
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise AssertionError(f"the service did not stop:\n{server.log}") from None


def _wait_until_ready(server: Server) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        assert server.process.poll() is None, f"the service ended:\n{server.log}"
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{server.url}/readyz", timeout=5).status_code == 200:
                return
        time.sleep(0.2)
    raise AssertionError(f"the service was not ready in {READY_SECONDS} s:\n{server.log}")

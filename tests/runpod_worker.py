"""Workers of RunPod's queue, as processes of their own with RunPod's own package."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from conftest import ROOT

PYTHON = ROOT / ".venv-runpod" / "bin" / "python"
READY_SECONDS = 90


@dataclass(frozen=True)
class Worker:
    """A worker that was started; it may have ended.

    Attributes:
        log_file: all that it wrote, both streams.
        process: the worker's.
    """

    log_file: Path
    process: subprocess.Popen[bytes]

    @property
    def log(self) -> str:
        return self.log_file.read_text(encoding="utf-8")

    def wait_for(self, words: str) -> None:
        """Wait until it has written something."""
        deadline = time.monotonic() + READY_SECONDS
        while words not in self.log:
            assert self.process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.05)


@contextlib.contextmanager
def working(
    environment: Mapping[str, str], folder: Path, options: Sequence[str] = ()
) -> Iterator[Worker]:
    """Run a worker until the block ends; SIGTERM stops it."""
    log_file = folder / "worker.log"
    with log_file.open("w") as log:
        process = subprocess.Popen(
            [str(PYTHON), "-m", "lpw_sdxl.doors.runpod", *options],
            cwd=folder,
            env=dict(environment),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    worker = Worker(log_file, process)
    try:
        yield worker
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"the worker did not stop:\n{worker.log}") from None

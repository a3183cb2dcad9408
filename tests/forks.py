"""model_import.py in processes that begin with all modules loaded: an import's start is most of it.

Tests of how a process starts and ends run the command plainly; those of what it does, here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_SERVER = Path(__file__).with_name("fork_server.py")


@dataclass(frozen=True)
class Finished:
    """What a command left: its exit status and what it printed."""

    status: int
    output: str
    sentence: str

    @property
    def tag(self) -> str:
        return self.output.splitlines()[-1]


class Forks:
    """Runs one command at a time.

    Args:
        folder: for what the commands print.
        script: the server, whose command takes the words.
        within: a command that runs it in surroundings of its own.
    """

    def __init__(self, folder: Path, script: Path = _SERVER, within: Sequence[str] = ()) -> None:
        self._output, self._errors = folder / "output", folder / "errors"
        self._server = subprocess.Popen(
            [*within, sys.executable, str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        )

    def start(self, words: tuple[str, ...], environment: Mapping[str, str]) -> int:
        """Start a command and give its process."""
        for path in (self._output, self._errors):
            path.write_bytes(b"")
        order = {
            "words": words,
            "environment": dict(environment),
            "output": str(self._output),
            "errors": str(self._errors),
        }
        self._server.stdin.write(json.dumps(order) + "\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline().split()[1])

    def wait(self) -> Finished:
        """Wait for the end of what was started."""
        status = int(self._server.stdout.readline().split()[1])
        return Finished(status, self._output.read_text(), self._errors.read_text())

    def run(self, words: tuple[str, ...], environment: Mapping[str, str]) -> Finished:
        """Run a command to its end."""
        self.start(words, environment)
        finished = self.wait()
        assert "Traceback" not in finished.sentence, finished.sentence
        return finished

    def do(self, words: tuple[str, ...], environment: Mapping[str, str]) -> str:
        """Run a command that succeeds, and give the tag that it ends with."""
        finished = self.run(words, environment)
        assert finished.status == 0, finished.sentence
        return finished.tag

    def close(self) -> None:
        """End the server."""
        self._server.stdin.close()
        self._server.wait(timeout=30)
        self._server.stdout.close()

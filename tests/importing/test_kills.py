"""kill -9 at random moments of download, conversion and publication: never half an entry.

Each round starts a real import in a process of its own, kills it at a random moment of its usual
time, looks at the store, and runs the same import plainly, in this process. Three kills of each
kind in `make test-thorough`, sixty in `make test-long`. LPW_TEST_SEED repeats a run.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from conftest import store_environment
from forks import Forks
from lpw_sdxl.lora.targets import read_targets
from stores import run_here
from tests.forge.checkpoint import SyntheticSize, write_checkpoint
from tests.forge.lora import LoraOptions, write_lora
from web import File, WebServer


class Imports:
    """Imports in processes of their own, on one store."""

    def __init__(self, forks: Forks, folder: Path) -> None:
        self.home = folder / "home"
        self.downloads = folder / "downloads"
        self._forks = forks
        self._environment = store_environment(self.home) | {
            "LPW_SDXL_DOWNLOADS": str(self.downloads)
        }

    def start(self, *words: str) -> int:
        """Start one in a process of its own, to be killed."""
        return self._forks.start(words, self._environment)

    def wait(self) -> int:
        return self._forks.wait().status

    def timed(self, *words: str) -> tuple[float, str]:
        """Run one in a process of its own, and give its seconds and its tag."""
        started = time.perf_counter()
        tag = self._forks.do(words, self._environment)
        return time.perf_counter() - started, tag

    def run(self, *words: str) -> str:
        """Run one plainly, and give what it printed."""
        done = run_here(self.home, *words)
        assert done.status == 0, done.sentence
        return done.output

    def entries(self) -> dict[str, str]:
        """What `list` says of each entry, by tag."""
        lines = self.run("list").splitlines()
        return {line.split("  ", 1)[0]: line.split("  ", 1)[1] for line in lines}


@pytest.fixture
def imports(forks: Forks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Imports:
    made = Imports(forks, tmp_path)
    monkeypatch.setenv("LPW_SDXL_DOWNLOADS", str(made.downloads))
    return made


@dataclass(frozen=True)
class Subject:
    """A kind of file that is imported: two different ones under one name.

    Attributes:
        words: the command and its options, without the source; of a pair with its other file.
        name: in the store.
        file: the one that is killed.
        other: the one that is there before.
        wait_s: between the pieces of its download, so that some kills hit that.
    """

    words: tuple[str, ...]
    name: str
    file: Path
    other: Path
    wait_s: float


@pytest.fixture(params=["checkpoint", "lora", "embedding", "pair"])
def subject(request: pytest.FixtureRequest, tiny_checkpoint: Path, tmp_path: Path) -> Subject:
    files = tmp_path / "file.safetensors", tmp_path / "other.safetensors"
    kind = request.param
    if kind == "checkpoint":
        write_checkpoint(files[1], SyntheticSize.TINY, seed=99)
        return Subject((kind,), "sdxl", tiny_checkpoint, files[1], 0.0004)
    if kind == "pair":
        for seed, path in enumerate(files):
            save_file({"<token>": torch.full((8, 32), float(seed))}, path)
        second = tmp_path / "second.safetensors"
        save_file({"<token>": torch.ones(8, 64)}, second)
        words = ("embedding", "--name", "mine", str(second))
        return Subject(words, "embedding-mine", *files, 0.02)
    for seed, path in enumerate(files):
        if kind == "lora":
            targets = read_targets(request.getfixturevalue("store").model_directory)
            write_lora(path, targets, LoraOptions(seed=seed))
        else:
            vectors = {"clip_l": torch.full((8, 32), seed), "clip_g": torch.ones(8, 64)}
            save_file({name: vector.float() for name, vector in vectors.items()}, path)
    return Subject((kind, "--name", "mine"), f"{kind}-mine", *files, 0.02)


@pytest.mark.parametrize(
    "kills",
    [
        pytest.param(3, marks=pytest.mark.thorough),
        pytest.param(60, marks=[pytest.mark.slow, pytest.mark.timeout(1800)]),
    ],
)
def test_a_kill_at_any_moment_leaves_no_half_of_an_entry(
    imports: Imports, subject: Subject, tiny_checkpoint: Path, kills: int
):
    seed = int(os.environ.get("LPW_TEST_SEED", time.time_ns() % 10**6))
    chance = random.Random(seed)
    if subject.name != "sdxl":
        imports.run("checkpoint", str(tiny_checkpoint), "--name", "model")
    before = imports.run(*subject.words, str(subject.other)).splitlines()[-1]
    with WebServer() as server:
        server.on("/m.safetensors", File(subject.file.read_bytes(), wait_s=subject.wait_s))
        url = server.url("/m.safetensors")
        ways = {
            "file": (*subject.words, str(subject.file)),
            "download": (*subject.words, url),
            "replacement": (*subject.words, str(subject.file), "--force"),
        }
        usual, tag = _usual_seconds(imports, ways)
        killed = 0
        while killed < kills:
            way = [*ways][killed % len(ways)]
            _prepare(imports, tag, way)
            moment = chance.uniform(0, 1.05 * usual[way])
            where = f"seed {seed}, kill {killed}: {way} killed after {moment:.2f} s"
            if _kill(imports, ways[way], moment):
                killed += 1
            else:  # it had ended; what was timed at first took longer, on a busy machine
                usual[way] = moment
            _check_store(imports, before, tag, must_have=way == "replacement", where=where)
            assert imports.run(*ways[way]).splitlines()[-1] == tag, where
            latest = imports.run("verify", f"{subject.name}:latest").splitlines()[-1]
            assert latest == tag, where
            _check_leftovers(imports, where)


def _usual_seconds(imports: Imports, ways: dict[str, tuple[str, ...]]) -> tuple[dict, str]:
    """Time each way once, unkilled; the last one leaves the entry there."""
    usual = {}
    for way, words in ways.items():
        _prepare(imports, "", way)
        usual[way], tag = imports.timed(*words)
        if way != "replacement":
            imports.run("remove", tag)
    return usual, tag


def _prepare(imports: Imports, tag: str, way: str) -> None:
    """Take the entry away unless it is to be replaced, and the download with it."""
    if way != "replacement" and tag:
        imports.run("remove", tag)
    shutil.rmtree(imports.downloads, ignore_errors=True)


def _kill(imports: Imports, words: tuple[str, ...], moment: float) -> bool:
    process = imports.start(*words)
    time.sleep(moment)
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)
    return imports.wait() == -signal.SIGKILL


def _check_store(imports: Imports, before: str, tag: str, *, must_have: bool, where: str) -> None:
    """Everything that is listed is whole, and what is served as latest passes verification."""
    name = before.partition(":")[0]
    lines = imports.entries()
    assert not [line for line in lines.values() if line.startswith("damaged")], where
    entries = {entry for entry in lines if entry.startswith(f"{name}:")}
    assert before in entries, where
    assert entries <= {before, tag}, where
    assert tag in entries or not must_have, where
    for entry in entries:
        imports.run("verify", entry)
    latest = imports.run("verify", f"{name}:latest").splitlines()[-1]
    assert latest == (tag if tag in entries else before), where


def _check_leftovers(imports: Imports, where: str) -> None:
    left = [path.name for path in (imports.home / "tmp").iterdir() if path.suffix != ".lock"]
    assert left == [], where
    parts = [path.name for path in imports.downloads.rglob("*.part")]
    assert parts == [], where

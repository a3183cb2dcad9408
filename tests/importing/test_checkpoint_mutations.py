"""Damaged, truncated and forged files: every one refused in one sentence, before the store changes.

The files are made from a whole tiny checkpoint's header; its weights are zeros, in a hole of the
file. Some in `make test`, 1,500 in `make test-long`. LPW_TEST_SEED repeats a run.
"""

from __future__ import annotations

import importlib.util
import os
import random
import time
from pathlib import Path

import pytest

from lpw_sdxl.checkpoint.kinds import POSITION_IDS
from mutations import MUTATIONS, Entries, Forgery, entries_of

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def entries(tiny_checkpoint: Path) -> Entries:
    """The tiny checkpoint's header without what may change without harm."""
    entries = entries_of(tiny_checkpoint.read_bytes())
    del entries[POSITION_IDS]
    position = 0
    for entry in entries.values():
        size = entry["data_offsets"][1] - entry["data_offsets"][0]
        entry["data_offsets"] = [position, position + size]
        position += size
    return entries


@pytest.mark.thorough
@pytest.mark.parametrize(
    "count", [90, pytest.param(1500, marks=[pytest.mark.slow, pytest.mark.timeout(3000)])]
)
def test_a_spoilt_file_is_refused_and_the_store_stays(
    entries: Entries, store_home: Path, tmp_path: Path, capsys, count: int
):
    spec = importlib.util.spec_from_file_location("model_import", ROOT / "model_import.py")
    command_line = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(command_line)
    whole = tmp_path / "whole.safetensors"
    Forgery(entries, random.Random(0)).write(whole)
    assert command_line.main(["checkpoint", str(whole)]) == 0, "unspoilt, it is imported"
    before = _snapshot(store_home)

    seed = int(os.environ.get("LPW_TEST_SEED", time.time_ns() % 10**6))
    path = tmp_path / "spoilt.safetensors"
    for number in range(count):
        mutate = MUTATIONS[number % len(MUTATIONS)]
        mutate(Forgery(entries, random.Random(seed + number)), path)
        where = f"LPW_TEST_SEED={seed + number} {mutate.__name__}"
        capsys.readouterr()
        status = command_line.main(["checkpoint", str(path)])
        sentence = capsys.readouterr().err
        assert status == 1, where
        assert sentence.startswith("model_import: "), where
        assert sentence.count("\n") == 1, (where, sentence)
        assert len(sentence) < 1000, (where, sentence)
        assert _snapshot(store_home) == before, where


def _snapshot(home: Path) -> dict[str, int]:
    return {
        str(path.relative_to(home)): path.stat().st_mtime_ns
        for path in home.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }

"""Every benchmark starts: its help needs all that it imports, so a name that is gone fails here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from conftest import ROOT

pytestmark = [pytest.mark.processes, pytest.mark.thorough]

BENCHMARKS = {
    path.stem: path
    for path in sorted((ROOT / "benchmarks").glob("*.py"))
    if 'if __name__ == "__main__":' in path.read_text(encoding="utf-8")
}


@pytest.fixture(scope="module")
def helped() -> dict[str, tuple[int, str]]:
    """Exit status and output of each one's `--help`, by its file."""
    files = list(map(str, BENCHMARKS.values()))
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("starter.py"), *files],
        capture_output=True,
        text=True,
        check=True,
        timeout=240,
    )
    lines = map(json.loads, done.stdout.splitlines())
    return {file: (status, output) for file, status, output in lines}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_it_tells_how_it_is_used(name: str, helped: dict[str, tuple[int, str]]) -> None:
    status, output = helped[str(BENCHMARKS[name])]
    assert status == 0, output
    assert f"usage: {name}.py" in output


def test_make_lists_them_with_their_questions() -> None:
    done = subprocess.run(
        ["make", "--no-print-directory", "bench"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert [line.split()[0] for line in done.stdout.splitlines()] == [*BENCHMARKS]
    assert all(line.endswith("?") for line in done.stdout.splitlines())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_full_size_model_is_not_written_where_nothing_fast_would_run_it() -> None:
    environment = {key: one for key, one in os.environ.items() if key != "LPW_SDXL_DEVICE"}
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "gpu.py")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    *_, sentence = done.stderr.splitlines()  # after the notes of libraries
    assert sentence.startswith("the model has 6.9 GB, and CUDA can't be used: ")

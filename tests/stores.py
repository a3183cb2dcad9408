"""A BentoML store of a test's own, in the test's process."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from forks import Finished


@contextmanager
def store_at(home: Path) -> Iterator[Path]:
    """Make this process use the BentoML store of another home."""
    os.environ["BENTOML_DO_NOT_TRACK"] = "True"
    from bentoml._internal.configuration.containers import BentoMLContainer
    from bentoml._internal.models import ModelStore

    for folder in ("models", "tmp"):
        (home / folder).mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        for provider, value in (
            (BentoMLContainer.bentoml_home, str(home)),
            (BentoMLContainer.tmp_bento_store_dir, str(home / "tmp")),
            (BentoMLContainer.model_store_dir, str(home / "models")),
            (BentoMLContainer.model_store, ModelStore(home / "models")),
        ):
            stack.enter_context(provider.patch(value))
        yield home


def run_here(home: Path, *words: str) -> Finished:
    """Run model_import.py's command in this process, on the store of a home.

    A process of its own takes seconds to load what this one has loaded already.
    """
    from model_import import main

    printed, sentence = io.StringIO(), io.StringIO()
    with store_at(home), redirect_stdout(printed), redirect_stderr(sentence):
        status = main([*words])
    return Finished(status, printed.getvalue(), sentence.getvalue())


def import_here(home: Path, *words: str) -> str:
    """Run a command that succeeds in this process, and give the tag that it ends with."""
    finished = run_here(home, *words)
    assert finished.status == 0, finished.sentence
    return finished.tag


@pytest.fixture
def store_home(tmp_path: Path) -> Iterator[Path]:
    """A BentoML store of this test's own, in this process."""
    with store_at(tmp_path / "bentoml") as home:
        yield home


def snapshot(home: Path) -> dict[str, int]:
    """Every file of the store and of its staging area, with the time of its last change."""
    return {
        str(path.relative_to(home)): path.stat().st_mtime_ns
        for path in sorted(home.rglob("*"))
        if path.is_file() and path.suffix != ".lock"
    }

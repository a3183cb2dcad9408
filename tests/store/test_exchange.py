"""Two directories change places: at once where the system can, by renames elsewhere."""

from __future__ import annotations

import ctypes
import errno
import threading
from pathlib import Path

import pytest

from lpw_sdxl.store.exchange import exchange


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A new directory and the one whose place it takes, in different folders as in the store."""
    new, old = tmp_path / "staging" / "v1", tmp_path / "store" / "v1"
    for path, content in ((new, "new"), (old, "old")):
        path.mkdir(parents=True)
        (path / "content").write_text(content)
    return new, old


def _contents(pair: tuple[Path, Path]) -> list[str]:
    return [(path / "content").read_text() for path in pair]


class _Library:
    """A C library without renameat2, or with one that fails."""

    def __init__(self, code: int | None) -> None:
        if code is not None:

            def fail(*_: object) -> int:
                ctypes.set_errno(code)
                return -1

            self.renameat2 = fail


@pytest.fixture
def no_system_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: _Library(None))


def _fail_at(monkeypatch: pytest.MonkeyPatch, count: int, failure: BaseException) -> None:
    """Let the rename of this number fail, and it alone."""
    rename, calls = Path.rename, []

    def failing(path: Path, target: Path) -> Path:
        calls.append(path)
        if len(calls) == count:
            raise failure
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", failing)


def test_they_change_places(pair: tuple[Path, Path]):
    exchange(*pair)
    assert _contents(pair) == ["old", "new"]
    exchange(*pair)
    assert _contents(pair) == ["new", "old"]


def test_neither_name_is_ever_missing(pair: tuple[Path, Path]):
    missing, is_over = [], threading.Event()

    def watch() -> None:
        while not is_over.is_set():
            missing.extend(path for path in pair if not path.exists())

    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in range(3000):
        exchange(*pair)
    is_over.set()
    watcher.join()
    assert missing == []


@pytest.mark.parametrize("code", [None, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP], ids=str)
def test_without_the_system_call_renames_do_it(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, code: int | None
):
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: _Library(code))
    exchange(*pair)
    assert _contents(pair) == ["old", "new"]
    assert [len(list(path.parent.iterdir())) for path in pair] == [1, 1]


@pytest.mark.parametrize("code", [errno.EACCES, errno.ENOSPC, errno.EXDEV, errno.EIO], ids=str)
def test_a_refusal_of_the_system_is_passed_on(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, code: int
):
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: _Library(code))
    with pytest.raises(OSError) as refused:  # noqa: PT011 - the number is checked
        exchange(*pair)
    assert refused.value.errno == code
    assert _contents(pair) == ["new", "old"]


@pytest.mark.parametrize("missing", [0, 1], ids=["new", "old"])
def test_a_missing_directory_is_an_error(pair: tuple[Path, Path], missing: int):
    (pair[missing] / "content").unlink()
    pair[missing].rmdir()
    with pytest.raises(FileNotFoundError):
        exchange(*pair)
    assert (pair[1 - missing] / "content").exists()


@pytest.mark.parametrize("failure", [OSError(errno.EIO, "I/O"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize(
    "count",
    [1, 2, 3],
)
def test_renames_that_fail_are_undone(
    pair: tuple[Path, Path],
    no_system_call: None,
    monkeypatch: pytest.MonkeyPatch,
    count: int,
    failure: BaseException,
):
    _fail_at(monkeypatch, count, failure)
    with pytest.raises(type(failure)):
        exchange(*pair)
    assert _contents(pair) == ["new", "old"]

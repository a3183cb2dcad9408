from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lpw_sdxl.api.watched_file import MAX_FILE_BYTES, WatchedFile, read_small_file
from lpw_sdxl.errors import SettingsError
from mounts import Mount


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "file"
    file.write_bytes(b"first")
    return file


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


IRREGULAR: dict[str, tuple[Callable[[Path], object], str]] = {
    "pipe": (os.mkfifo, "is a pipe"),
    "link to a pipe": (
        lambda path: (os.mkfifo(path.with_name("pipe")), path.symlink_to("pipe")),
        "is a pipe",
    ),
    "device": (lambda path: path.symlink_to("/dev/zero"), "is a device"),
    "terminal": (lambda path: path.symlink_to("/dev/tty"), "is a device"),
    "folder": (Path.mkdir, "is a folder"),
    "socket": (make_socket, "is a socket"),
}


@pytest.mark.parametrize(("make", "words"), IRREGULAR.values(), ids=IRREGULAR.keys())
def test_only_a_regular_file_is_read(
    tmp_path: Path, make: Callable[[Path], object], words: str
) -> None:
    path = tmp_path / "x"
    make(path)
    started = time.monotonic()
    with pytest.raises(SettingsError, match=f"NAME: {path} {words}; a regular file is needed"):
        WatchedFile("NAME", path)
    assert time.monotonic() - started < 1


def test_a_pipe_that_takes_the_place_of_a_file_is_not_waited_for(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at a file and its opening."""
    regular = os.stat(file)
    file.unlink()
    os.mkfifo(file)
    monkeypatch.setattr(os, "stat", lambda _path: regular)
    with pytest.raises(SettingsError, match="is a pipe"):
        read_small_file(file)


@pytest.mark.parametrize("size", [0, MAX_FILE_BYTES, MAX_FILE_BYTES + 1])
def test_a_file_is_read_up_to_its_limit(file: Path, size: int) -> None:
    file.write_bytes(b"x" * size)
    if size <= MAX_FILE_BYTES:
        assert len(read_small_file(file)) == size
    else:
        with pytest.raises(SettingsError, match="is larger than"):
            read_small_file(file)


def test_a_file_is_read_again_only_if_it_changed(file: Path) -> None:
    watched = WatchedFile("NAME", file)
    assert watched.content == b"first"
    assert watched.read_changed() is None
    os.replace(_written(file.with_name("new"), b"second"), file)
    assert watched.read_changed() == b"second"
    assert watched.read_changed() is None


def test_a_file_that_does_not_answer_ends_a_start(file: Path) -> None:
    mount = Mount()
    mount.hang()
    with pytest.raises(SettingsError, match=f"NAME: {file} .* did not answer in 0.05 s"):
        WatchedFile("NAME", file, mount.read, patience_s=0.05)
    mount.answer()


def test_a_file_that_stops_to_answer_is_told_once_and_so_is_its_return(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    mount = Mount()
    watched = WatchedFile("NAME", file, mount.read, patience_s=0.05)
    mount.hang()
    os.replace(_written(file.with_name("new"), b"second"), file)
    contents: list[bytes | None] = []
    thread = threading.Thread(target=lambda: contents.append(watched.read_changed()))
    thread.start()
    time.sleep(0.3)
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "NAME" in record.getMessage()
    assert "has not answered for 0.05 s; what was read before stays valid" in record.getMessage()
    mount.answer()
    thread.join()
    assert contents == [b"second"]
    assert "answers again" in caplog.records[1].getMessage()
    assert len(caplog.records) == 2


def _written(file: Path, content: bytes) -> Path:
    file.write_bytes(content)
    return file

"""A small file that threads read, again whenever it changes: it may lie on a mount that hangs.

It knows nothing of what is in the file.
"""

from __future__ import annotations

import logging
import os
import stat
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

from lpw_sdxl.errors import SettingsError
from lpw_sdxl.weights.files import file_stamp

T = TypeVar("T")
logger = logging.getLogger(__name__)

MAX_FILE_BYTES = 1024 * 1024
CHECK_INTERVAL_S = 0.5
PATIENCE_S = 10.0  # until a file counts as one that does not answer
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def read_small_file(path: Path) -> bytes:
    """Read a regular file of at most `MAX_FILE_BYTES`.

    Raises:
        SettingsError: it can't be read, is larger, or is a folder, a pipe, a socket or a device.
    """
    try:
        _refuse_irregular(path, os.stat(path))  # first: opening a device can have effects
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        with os.fdopen(descriptor, "rb") as stream:
            _refuse_irregular(path, os.fstat(descriptor))  # it may have been replaced since
            content = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise SettingsError(f"{path} can't be read ({error.strerror})") from None
    if len(content) > MAX_FILE_BYTES:
        raise SettingsError(f"{path} is larger than {MAX_FILE_BYTES} bytes")
    return content


class WatchedFile:
    """A file whose content is read at once, and again whenever its stamp changes.

    Every access to it happens in a thread of its own, because it may never return.

    Args:
        name: what errors and the log call it, such as a setting.
        path: the file.
        read: reads it, or raises a SettingsError.
        patience_s: the time after which it counts as not answering, seconds.

    Attributes:
        content: the content that was read first.

    Raises:
        SettingsError: of `read`, or because the file does not answer.
    """

    def __init__(
        self,
        name: str,
        path: Path,
        read: Callable[[Path], bytes] = read_small_file,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._name = name
        self._path = path
        self._read = read
        self._patience_s = patience_s
        self._stamp: str | None = None
        try:
            content = _in_a_thread(self._read_if_changed).result(patience_s)
        except TimeoutError:
            raise SettingsError(
                f"{name}: {path} can't be read: its file system did not answer in {patience_s:g} s"
            ) from None
        assert content is not None
        self.content = content

    def read_changed(self) -> bytes | None:
        """Read the file if its stamp has changed, and return its content; block until it answers.

        Raises:
            SettingsError: of `read`; once for each change.
        """
        reading = _in_a_thread(self._read_if_changed)
        try:
            return reading.result(self._patience_s)
        except TimeoutError:
            logger.error(
                "%s: the file system of %s has not answered for %g s; what was read before stays"
                " valid",
                self._name,
                self._path,
                self._patience_s,
            )
        try:
            return reading.result()
        finally:
            logger.info("%s: the file system of %s answers again", self._name, self._path)

    def _read_if_changed(self) -> bytes | None:
        stamp = file_stamp(self._path)  # taken before reading, so that no change is missed
        if stamp == self._stamp:
            return None
        self._stamp = stamp  # also of a file that can't be used, so that it is logged once
        try:
            return self._read(self._path)
        except SettingsError as error:
            raise SettingsError(f"{self._name}: {error}") from None


def _refuse_irregular(path: Path, status: os.stat_result) -> None:
    if stat.S_ISREG(status.st_mode):
        return
    kind = next((name for is_kind, name in _KINDS if is_kind(status.st_mode)), "no regular file")
    raise SettingsError(f"{path} is {kind}; a regular file is needed")


def _in_a_thread(work: Callable[[], T]) -> Future[T]:
    """Start work in a thread that does not keep the process from ending."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 (raised to the caller)
            future.set_exception(error)

    threading.Thread(target=run, name="lpw-sdxl-file", daemon=True).start()
    return future

"""Two directories change places in one step, so that neither name is ever without one.

POSIX has no such call and Python offers none. Linux has `renameat2` with RENAME_EXCHANGE (Linux
3.15; glibc 2.28); elsewhere three renames do it, with a moment between them.
"""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

ASIDE_SUFFIX = ".aside"
"""Ends the name, beside the first directory, that the second has for that moment."""

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_NOT_OFFERED = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)


def exchange(one: Path, other: Path) -> None:
    """Exchange the names of two directories on one file system.

    Raises:
        OSError: they are as they were.
    """
    try:
        _exchange_at_once(one, other)
    except OSError as error:
        if error.errno not in _NOT_OFFERED:
            raise
        _exchange_by_renames(one, other)


def _exchange_at_once(one: Path, other: Path) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "renameat2"):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    paths = (_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other))
    if library.renameat2(*paths, ctypes.c_uint(_RENAME_EXCHANGE)):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(other))


def _exchange_by_renames(one: Path, other: Path) -> None:
    aside = one.with_name(f"{one.name}{ASIDE_SUFFIX}")
    other.rename(aside)
    try:
        one.rename(other)
        try:
            aside.rename(one)
        except BaseException:
            other.rename(one)
            raise
    except BaseException:
        aside.rename(other)
        raise

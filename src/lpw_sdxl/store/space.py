"""Room on the disks, asked before the first byte is written."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lpw_sdxl.errors import CheckpointError

SPARE_BYTES = 64 * 1024 * 1024
"""What an entry takes beside its tensors: configuration, tokenizers, the file system's own."""


@dataclass(frozen=True)
class Need:
    """Room that a step will take.

    Attributes:
        purpose: what for, such as "the entry".
        folder: where; it exists.
        size: bytes.
        setting: the environment variable that moves it elsewhere.
        is_estimate: whether the size is not known exactly yet.
    """

    purpose: str
    folder: Path
    size: int
    setting: str
    is_estimate: bool = False


def describe_needs(needs: Sequence[Need]) -> str:
    """Describe how much goes where, as a part of a sentence."""
    return " and ".join(
        f"{'about ' * need.is_estimate}{gigabytes(need.size)} for {need.purpose} in {need.folder}"
        for need in needs
    )


def check_space(needs: Sequence[Need]) -> None:
    """Check that every disk has room for all that goes there.

    Raises:
        CheckpointError: one has not; what is needed, where, and what is free is stated.
    """
    for device in {need.folder.stat().st_dev for need in needs}:
        here = [need for need in needs if need.folder.stat().st_dev == device]
        needed = sum(need.size for need in here)
        free = shutil.disk_usage(here[0].folder).free
        if needed > free:
            settings = " or ".join(need.setting for need in here)
            raise CheckpointError(
                f"This import needs {describe_needs(here)}, and {gigabytes(free)} are free there; "
                f"make room, or set {settings} to a folder on a larger disk."
            )


@contextmanager
def full_disk_named(folder: Path, setting: str = "BENTOML_HOME") -> Iterator[None]:
    """Name the full disk where a write finds no room, in spite of `check_space`.

    Raises:
        CheckpointError: a write within the block found no room.
    """
    try:
        yield
    except OSError as error:
        if not is_full(error):
            raise
        raise CheckpointError(
            f"The disk of {folder} is full; what was written is removed and the model store is as "
            f"it was: make room, or set {setting} to a folder on a larger disk."
        ) from error


def is_full(error: OSError) -> bool:
    """Return whether a write failed because its disk, or its user's part of it, is full."""
    if isinstance(error, shutil.Error):  # of a folder's copy: a list of texts, without a number
        return os.strerror(errno.ENOSPC) in str(error)
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def gigabytes(size: int) -> str:
    """Return a number of bytes in gigabytes or megabytes, for a reader."""
    return f"{size / 1e9:.2f} GB" if size >= 10_000_000 else f"{size / 1e6:.2f} MB"

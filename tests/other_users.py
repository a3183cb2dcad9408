"""Another user of this machine, and a folder whose way is open to him."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lpw_sdxl.errors import LpwSdxlError

OTHER_UID = 1034
"""The images' user."""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder whose way is open to every user, as pytest's own folders are not."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def as_another_user(work: Callable[[], object]) -> str:
    """Do some work as a user who owns nothing; return the error's text, or what was returned."""
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        text = "it was killed"
        try:
            if os.geteuid() == 0:
                os.setresgid(OTHER_UID, OTHER_UID, OTHER_UID)
                os.setresuid(OTHER_UID, OTHER_UID, OTHER_UID)
            text = str(work())
        except LpwSdxlError as error:
            text = f"{type(error).__name__}: {error}"
        except Exception as error:  # noqa: BLE001 - a traceback for a user
            text = f"traceback of {error!r}"
        finally:
            os.write(writing, text.encode())
            os._exit(0)
    os.close(writing)
    with open(reading, encoding="utf-8") as file:
        text = file.read()
    os.waitpid(process, 0)
    return text

"""The worker's process, tuned to answer beside the engine's thread."""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

logger = logging.getLogger(__name__)

SWITCH_SECONDS = 0.001  # Python's 0.005 adds up: an answer waits for its turn several times


def tune_interpreter() -> None:
    """Shorten the time that requests wait for the engine's thread in the shared interpreter."""
    sys.setswitchinterval(SWITCH_SECONDS)
    # All that is loaded by now stays: to search it for garbage would stop all threads for 0.3 s.
    gc.collect()
    gc.freeze()


def return_free_memory() -> None:
    """Return to the system what the process has freed; milliseconds, with the interpreter free.

    glibc keeps freed blocks of up to 32 MB once it has seen such ones: after a flood of large
    bodies the process would stay as large as it was. Elsewhere nothing happens.
    """
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


@contextmanager
def without_collection() -> Iterator[None]:
    """Suspend garbage collection, and exempt every object that exists at the end from it for good.

    For a worker's imports: torch, Diffusers and Transformers make half a million objects that stay,
    and the collector would walk through them again and again, in all for a fifth of a start's CPU
    time. The price is 8 MB of garbage that stays too.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def leave_unfinished() -> NoReturn:
    """End a process that has no engine.

    An ordinary exit would wait for the thread that loads it, and could end inside of a library.
    """
    logger.info("this process ends without an engine")
    logging.shutdown()
    os._exit(os.EX_OK)

"""The worker's process: tuned to answer beside the engine's thread; ended when a device fails."""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

logger = logging.getLogger(__name__)

SWITCH_SECONDS = 0.001  # Python's 0.005 adds up: an answer waits for its turn several times
ANSWER_SECONDS = 5  # for the last answers to reach their clients


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


def end_process(reason: str) -> None:
    """End this process for its supervisor to start a new one: nothing else revives a device.

    To be called when every caller has its error, in a thread that no other thread waits for.
    """
    logger.critical("%s; this process ends, for a new one to start", reason)
    time.sleep(ANSWER_SECONDS)  # the answers go out
    os._exit(os.EX_SOFTWARE)  # an ordinary exit would wait for a thread that may never return

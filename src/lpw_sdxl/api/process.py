"""The worker's process: made to answer beside the engine's thread; ended when a device dies."""

from __future__ import annotations

import gc
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)

SWITCH_SECONDS = 0.001  # Python's own 0.005 add up: an answer takes its turn several times
ANSWER_SECONDS = 5  # for answers that are decided to reach their clients


def tune_interpreter() -> None:
    """Keep requests from waiting for the engine's thread, with which they share an interpreter."""
    sys.setswitchinterval(SWITCH_SECONDS)
    # What is loaded by now stays: to look through it all for garbage would stop everyone for 0.3 s.
    gc.collect()
    gc.freeze()


@contextmanager
def without_collection() -> Iterator[None]:
    """Look for no garbage in the meantime, nor ever again in what is there at the end.

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
    """End this process, so that its supervisor starts a new one: nothing else brings a device back.

    Called when every caller has its error, in a thread that nobody waits for.
    """
    logger.critical("%s; this process ends, for a new one to start", reason)
    time.sleep(ANSWER_SECONDS)  # the answers go out
    os._exit(os.EX_SOFTWARE)  # an ordinary exit would wait for a thread that may never return

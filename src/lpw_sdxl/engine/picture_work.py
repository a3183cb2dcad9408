"""Work of the CPU on one job's pictures, in threads; an error there fails that job alone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

from lpw_sdxl.engine.faults import client_error
from lpw_sdxl.errors import LpwSdxlError

T = TypeVar("T")

logger = logging.getLogger(__name__)


async def work_on_pictures(work: Callable[[], T], threads: Executor | None = None) -> T:
    """Run work on a job's pictures in a thread.

    Args:
        work: to run.
        threads: that run it; None for asyncio's own.

    Raises:
        OutOfMemoryError: there was no memory for it.
        GenerationError: it failed for another reason, which is in the log.
        LpwSdxlError: any error of ours that it raised.
    """
    try:
        return await asyncio.get_running_loop().run_in_executor(threads, work)
    except LpwSdxlError:
        raise
    except Exception as caught:
        logger.warning("work on a picture failed", exc_info=caught)
        error = client_error(caught)
    # Only outside of the except block are the frames freed, and the pictures with them.
    raise error

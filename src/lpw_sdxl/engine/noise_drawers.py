"""Threads that draw jobs' noise before it is needed, so that the engine's thread need not."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

from lpw_sdxl.diffusion.solver import NoiseSupply

# One job's draws are in order. A step along a Brownian path of the numbers of `nv` takes twenty
# draws, 90 ms in all at 1024 x 1024, so that eight such jobs need several threads.
DRAWERS = max(2, min(8, (os.cpu_count() or 2) // 2))


class NoiseDrawers:
    """The threads; what they fail at, the engine's thread does again, and fails its job by it."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(DRAWERS, thread_name_prefix="lpw-sdxl-noise")
        self._is_closed = False

    def ask(self, noise: NoiseSupply) -> None:
        """Queue a job's next noise for drawing; from any thread."""
        if self._is_closed:
            return
        try:
            self._threads.submit(noise.draw_next)
        except RuntimeError:  # closed meanwhile
            return

    def close(self) -> None:
        """End the threads; jobs under way draw their own noise from now on."""
        self._is_closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)

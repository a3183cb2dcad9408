"""How many rows one UNet call holds, as things are: fewer after a lack of memory, then more."""

from __future__ import annotations

from lpw_sdxl.engine.cost import MEGA, step_cost
from lpw_sdxl.engine.memory import MemoryPlan
from lpw_sdxl.schema import ImageSize

RECOVERY = 1.03  # after a lack of memory, the growth of a call for each that went well


class Capacity:
    """What the plan gives a UNet call, less what turned out to be too much. One thread's own.

    Args:
        plan: how memory is used.
    """

    def __init__(self, plan: MemoryPlan) -> None:
        self._plan = plan
        self._call_pixels: float = plan.call_pixels
        self._tried_pixels = 0.0  # of the UNet call under way

    @property
    def call_pixels(self) -> float:
        """Give what a call holds now, pixels of all rows together."""
        return self._call_pixels

    def restore(self, call_pixels: float) -> None:
        """Take back what was learned since a call held so many pixels."""
        self._call_pixels = call_pixels

    def rows(self, size: ImageSize) -> int:
        """Say how many rows of a size one UNet call holds; one is always tried."""
        pixels = size.height * size.width
        return max(1, min(self._plan.rows_for(size), int(self._call_pixels) // pixels))

    def begin(self, size: ImageSize, rows: int) -> None:
        """Note the call that is tried now."""
        self._tried_pixels = step_cost(size, rows) * MEGA

    def grow(self) -> None:
        """Note that the call went well."""
        self._call_pixels = min(self._plan.call_pixels, self._call_pixels * RECOVERY)

    def shrink(self) -> None:
        """Note that memory lacked: if it was for a call, the next are half as large at most."""
        if self._tried_pixels:
            self._call_pixels = min(self._call_pixels, self._tried_pixels / 2)
            self._tried_pixels = 0.0

    def end(self) -> None:
        """Note that no call is under way."""
        self._tried_pixels = 0.0

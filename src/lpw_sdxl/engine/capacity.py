"""The number of rows that one UNet call may have: fewer after a lack of memory, then more again."""

from __future__ import annotations

from lpw_sdxl.engine.cost import MEGA, step_cost
from lpw_sdxl.engine.memory import MemoryPlan
from lpw_sdxl.schema import ImageSize

RECOVERY = 1.03  # growth of the capacity for each call that succeeds after a lack of memory


class Capacity:
    """The capacity of a UNet call: the plan's, less what turned out to be too much; for one thread.

    Args:
        plan: how memory is used.
    """

    def __init__(self, plan: MemoryPlan) -> None:
        self._plan = plan
        self._call_pixels: float = plan.call_pixels
        self._tried_pixels = 0.0  # of the UNet call under way

    @property
    def call_pixels(self) -> float:
        """Return the capacity now, pixels of all rows of a call."""
        return self._call_pixels

    def restore(self, call_pixels: float) -> None:
        """Set the capacity back to an earlier `call_pixels`."""
        self._call_pixels = call_pixels

    def row_limit(self, size: ImageSize) -> int:
        """Compute how many rows of a size one UNet call may have, at least 1."""
        pixels = size.height * size.width
        return max(1, min(self._plan.rows_for(size), int(self._call_pixels) // pixels))

    def begin(self, size: ImageSize, rows: int) -> None:
        """Note the UNet call that is tried now."""
        self._tried_pixels = step_cost(size, rows) * MEGA

    def grow(self) -> None:
        """Note that the call succeeded."""
        self._call_pixels = min(self._plan.call_pixels, self._call_pixels * RECOVERY)

    def shrink(self) -> None:
        """Note a lack of memory: if a call was under way, halve it for the capacity."""
        if self._tried_pixels:
            self._call_pixels = min(self._call_pixels, self._tried_pixels / 2)
            self._tried_pixels = 0.0

    def end(self) -> None:
        """Note that no call is under way any more."""
        self._tried_pixels = 0.0

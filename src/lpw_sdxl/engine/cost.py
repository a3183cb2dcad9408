"""What jobs cost the device, and how fast the device has worked lately: pure arithmetic."""

from __future__ import annotations

from typing import NamedTuple

from lpw_sdxl.schema import ImageSize

MEGA = 1_000_000
HALF_LIFE_S = 60.0  # of the memory of the pace, in seconds of work
LEAST_VARIATION = 0.01  # relative variance of the costs seen, below which their slope means nothing


class Work(NamedTuple):
    """Work for the device, done or to be done.

    Attributes:
        calls: of the UNet; a fraction where a call is shared with others.
        cost: megapixels of all rows in them.
    """

    calls: float
    cost: float

    def plus(self, other: Work) -> Work:
        """Add other work."""
        return Work(self.calls + other.calls, self.cost + other.cost)


NO_WORK = Work(0.0, 0.0)


def step_cost(size: ImageSize, rows: int) -> float:
    """Say what one UNet call costs for one job: its pixels times its rows, in megapixels."""
    return size.height * size.width * rows / MEGA


class Pace:
    """How long the device takes for a UNet call and for what is in it, from what it did lately.

    Fits `seconds = per_call + per_cost * cost` to the calls seen, by least squares; older ones
    count for less, half after HALF_LIFE_S seconds of work. Encoding and decoding between two calls
    count with the second. While all calls seen cost about the same, nothing is known of others:
    the time is then counted for the call or for its cost, whichever is in the job's favour.
    """

    def __init__(self) -> None:
        # Of the calls seen: their number, cost, cost squared, seconds, and seconds times cost.
        self._sums = (0.0,) * 5

    def add(self, cost: float, seconds: float) -> None:
        """Note one UNet call: megapixels of rows in it, and the seconds that it took."""
        kept = 0.5 ** (seconds / HALF_LIFE_S)
        seen = (1.0, cost, cost**2, seconds, seconds * cost)
        self._sums = tuple(old * kept + new for old, new in zip(self._sums, seen, strict=True))

    def seconds_for(self, work: Work) -> float | None:
        """Say how long so much work takes at this pace; None while nothing has been seen."""
        calls, cost, cost_squared, seconds, seconds_cost = self._sums
        if not cost:
            return None
        spread = calls * cost_squared - cost**2
        if spread <= LEAST_VARIATION * cost**2:
            return min(seconds / calls * work.calls, seconds / cost * work.cost)
        slope = (calls * seconds_cost - cost * seconds) / spread
        per_cost = max(0.0, min(slope, seconds / cost))
        per_call = max(0.0, (seconds - per_cost * cost) / calls)
        return per_call * work.calls + per_cost * work.cost

"""What jobs cost the device, and how fast the device has worked lately: pure arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
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


@dataclass
class Pace:
    """How long the device takes for a UNet call and for what is in it, from what it did lately.

    Fits `seconds = per_call + per_cost * cost` to the calls seen, by least squares; older ones
    count for less, half after HALF_LIFE_S seconds of work. Encoding and decoding between two calls
    count with the second. While all calls seen cost about the same, nothing is known of others:
    the time is then counted for the call or for its cost, whichever is in the job's favour.
    """

    _calls: float = 0.0
    _cost: float = 0.0
    _cost_squared: float = 0.0
    _seconds: float = 0.0
    _seconds_cost: float = 0.0

    def add(self, cost: float, seconds: float) -> None:
        """Note one UNet call: megapixels of rows in it, and the seconds that it took."""
        kept = 0.5 ** (seconds / HALF_LIFE_S)
        self._calls = self._calls * kept + 1
        self._cost = self._cost * kept + cost
        self._cost_squared = self._cost_squared * kept + cost**2
        self._seconds = self._seconds * kept + seconds
        self._seconds_cost = self._seconds_cost * kept + seconds * cost

    def seconds_for(self, work: Work) -> float | None:
        """Say how long so much work takes at this pace; None while nothing has been seen."""
        if not self._cost:
            return None
        if not self._is_varied:
            return min(self._seconds / self._calls * work.calls, self._per_cost * work.cost)
        per_call, per_cost = self._fit()
        return per_call * work.calls + per_cost * work.cost

    @property
    def _is_varied(self) -> bool:
        """Tell whether the calls seen differ enough in cost to know what the cost does."""
        return self._spread > LEAST_VARIATION * self._cost**2

    @property
    def _spread(self) -> float:
        return self._calls * self._cost_squared - self._cost**2

    @property
    def _per_cost(self) -> float:
        return self._seconds / self._cost

    def _fit(self) -> tuple[float, float]:
        """Fit both coefficients, neither of them negative."""
        slope = (self._calls * self._seconds_cost - self._cost * self._seconds) / self._spread
        slope = max(0.0, min(slope, self._per_cost))
        return max(0.0, (self._seconds - slope * self._cost) / self._calls), slope

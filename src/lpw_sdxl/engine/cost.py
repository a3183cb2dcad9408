"""The cost of jobs for the device, and the device's recent pace: pure arithmetic."""

from __future__ import annotations

from typing import NamedTuple

from lpw_sdxl.schema import ImageSize

MEGA = 1_000_000
HALF_LIFE_S = 60.0  # seconds of work after which a call's weight in the pace is halved
# Encoding a picture is about the work of so many UNet rows of its size: 1.1 of 3 TMACs at
# 1024 x 1024, in a VAE that mostly computes in float32.
ENCODING_ROWS = 1
# Of a UNet row of a megapixel: 3 TMACs at 1024 x 1024, as above. By it an upscaler's work is
# compared with others'; how long it takes is measured.
ROW_MULTIPLICATIONS = 2.86e12
MIN_VARIATION = 0.01  # relative variance of the calls' costs, below which no slope is fitted


class Work(NamedTuple):
    """Work for the device, done or to be done.

    Attributes:
        calls: of the UNet; a fraction where a call is shared with other jobs.
        cost: megapixels of all rows of the calls.
        tiles: cost of what upscalers' networks do, in megapixels of rows too (`tile_cost`).
    """

    calls: float
    cost: float
    tiles: float = 0.0

    @property
    def whole_cost(self) -> float:
        """Return the cost of calls and tiles, megapixels of rows."""
        return self.cost + self.tiles

    def plus(self, other: Work) -> Work:
        """Return the sum of this and other work."""
        return Work(*(own + one for own, one in zip(self, other, strict=True)))

    def times(self, share: float) -> Work:
        """Return a share of this work."""
        return Work(*(share * own for own in self))


NO_WORK = Work(0.0, 0.0)


def step_cost(size: ImageSize, rows: int) -> float:
    """Compute the cost of one UNet call for one job, megapixels: its pixels times its rows."""
    return size.height * size.width * rows / MEGA


def tile_cost(multiplications: float) -> float:
    """Compute the cost of an upscaler's call, in megapixels of UNet rows of equal arithmetic.

    Args:
        multiplications: of the call, with as many additions.
    """
    return multiplications / ROW_MULTIPLICATIONS


class Pace:
    """The device's pace: seconds for a UNet call and for its cost, estimated from recent calls.

    `seconds = per_call + per_cost * cost` is fitted to the calls by least squares; the weight of a
    call is halved after HALF_LIFE_S seconds of work. Encoding and decoding between two calls count
    with the second. While all calls have about the same cost, nothing can be fitted: the time is
    then proportional to the calls or to their cost, whichever is in the job's favour. Upscalers'
    tiles have a pace of their own; before the first one it is that of the calls' cost.
    """

    def __init__(self) -> None:
        # Weighted sums over the calls: of 1, cost, cost squared, seconds, and seconds times cost.
        self._sums = (0.0,) * 5
        self._tiles = (0.0, 0.0)  # weighted sums over the tiles: of cost and seconds

    def add(self, cost: float, seconds: float) -> None:
        """Add one UNet call to the pace.

        Args:
            cost: megapixels of its rows.
            seconds: that it took.
        """
        kept = 0.5 ** (seconds / HALF_LIFE_S)
        added = (1.0, cost, cost**2, seconds, seconds * cost)
        self._sums = tuple(old * kept + new for old, new in zip(self._sums, added, strict=True))

    def add_tile(self, cost: float, seconds: float) -> None:
        """Add one call of an upscaler's network.

        Args:
            cost: of it, by `tile_cost`.
            seconds: that it took.
        """
        kept = 0.5 ** (seconds / HALF_LIFE_S)
        costs, all_seconds = self._tiles
        self._tiles = (costs * kept + cost, all_seconds * kept + seconds)

    def seconds_for(self, work: Work) -> float | None:
        """Estimate the seconds that work takes at this pace; None before the first of its kind."""
        calls_s = self._seconds_of_calls(work) if work.calls or work.cost else 0.0
        tiles_s = self._seconds_of_tiles(work.tiles) if work.tiles else 0.0
        return None if calls_s is None or tiles_s is None else calls_s + tiles_s

    def _seconds_of_tiles(self, tiles: float) -> float | None:
        costs, seconds = self._tiles
        if not costs:
            _, costs, _, seconds, _ = self._sums
        return seconds / costs * tiles if costs else None

    def _seconds_of_calls(self, work: Work) -> float | None:
        calls, cost, cost_squared, seconds, seconds_cost = self._sums
        if not cost:
            return None
        spread = calls * cost_squared - cost**2
        if spread <= MIN_VARIATION * cost**2:
            return min(seconds / calls * work.calls, seconds / cost * work.cost)
        slope = (calls * seconds_cost - cost * seconds) / spread
        per_cost = max(0.0, min(slope, seconds / cost))
        per_call = max(0.0, (seconds - per_cost * cost) / calls)
        return per_call * work.calls + per_cost * work.cost

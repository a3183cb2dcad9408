"""The choice of pictures that are enlarged now, and of the next tile: pure functions.

Tiles share the device with UNet calls as other jobs do: by what each job has had of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lpw_sdxl.engine.policy import Served

MOST_UPSCALES = 4  # under way at once
MOST_ENLARGED_PIXELS = 2**26  # of all of them, together and on their way


def admit_upscales(waiting: Iterable[int], active: Sequence[int]) -> list[int]:
    """Choose which waiting upscales begin now: they take memory, and no rows of UNet calls.

    Args:
        waiting: the pixels of the largest picture on each one's way, oldest first.
        active: likewise, of those under way.

    Returns:
        indexes into `waiting`, ascending: while they are few, and small together; one can always
        begin, and none overtakes another.
    """
    taken, count = sum(active), len(active)
    chosen: list[int] = []
    for index, pixels in enumerate(waiting):
        if count and (count == MOST_UPSCALES or taken + pixels > MOST_ENLARGED_PIXELS):
            break
        taken, count = taken + pixels, count + 1
        chosen.append(index)
    return chosen


def choose_tile(waiting: Sequence[Served], stepping: Iterable[Served]) -> int | None:
    """Choose whose tile is enlarged after a UNet call.

    Args:
        waiting: the jobs that wait for a tile.
        stepping: the jobs that wait for a UNet call.

    Returns:
        an index into `waiting`; None where one of the others has had less of the device.
    """
    if not waiting:
        return None
    least = min(range(len(waiting)), key=lambda index: (waiting[index].served, index))
    others = min((one.served for one in stepping), default=waiting[least].served)
    return None if others < waiting[least].served else least

"""Who steps together: pure functions over what the loop knows of its jobs.

Rules: jobs of one key share a call; inside a key the oldest go first; the keys take turns, so that
no size waits for another to run dry.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from lpw_sdxl.schema import ImageSize

NEVER = -1
ACTIVE_CALLS = 4  # all sizes together have at most this many calls' rows under way: bounds memory
TURN_CHUNKS = 64  # prompt chunks encoded between two steps: about the work of one UNet row


class MixedLengths(StrEnum):
    """How rows whose prompts differ in length are stepped; each row's result is the same."""

    MASK = "mask"  # one UNet call: padded to the longest, the padding masked
    GROUP = "group"  # a UNet call for each length: no mask, which keeps a GPU's fast attention


class StepKey(NamedTuple):
    """What must be equal for two jobs to share a UNet call."""

    size: ImageSize


@dataclass(frozen=True)
class Standing:
    """What the policy knows of a job.

    Attributes:
        key: what it can share a call with.
        rows: UNet rows it needs, 1 or 2.
        last_step: number of the call it was last in, or NEVER.
        chunks: of its prompts, still to be encoded while it waits.
    """

    key: StepKey
    rows: int
    last_step: int = NEVER
    chunks: int = 2


def admit(waiting: Sequence[Standing], active: Sequence[Standing], max_rows: int) -> list[int]:
    """Choose which waiting jobs begin now.

    Args:
        waiting: oldest first.
        active: the jobs already under way.
        max_rows: rows of one UNet call.

    Returns:
        indexes into `waiting`, ascending. A key takes jobs while its rows fit into one call; the
        first job of a key that does not fit closes that key, so that a small one cannot overtake.
        All keys together take what ACTIVE_CALLS calls hold; the first job over that closes all.
        At most TURN_CHUNKS are encoded in one turn (though always one job), because the jobs
        under way wait for that.
    """
    free_chunks = TURN_CHUNKS
    free_in_all = ACTIVE_CALLS * max_rows - sum(job.rows for job in active)
    free: dict[StepKey, int] = defaultdict(lambda: max_rows)
    for job in active:
        free[job.key] -= job.rows
    chosen: list[int] = []
    for index, job in enumerate(waiting):
        if job.rows > free_in_all or (chosen and job.chunks > free_chunks):
            break
        if job.rows <= free[job.key]:
            free[job.key] -= job.rows
            free_in_all -= job.rows
            free_chunks -= job.chunks
            chosen.append(index)
        else:
            free[job.key] = 0
    return chosen


def choose_group(active: Sequence[Standing]) -> list[int]:
    """Choose the jobs of the next UNet call: those of the key whose last call is longest ago.

    A key counts by its most recent call, not by its newest job: else a key that new jobs keep
    joining would always look as if it had waited longest.

    Returns:
        indexes into `active`; empty if there is none.
    """
    groups: dict[StepKey, list[int]] = defaultdict(list)
    for index, job in enumerate(active):
        groups[job.key].append(index)
    if not groups:
        return []
    return min(
        groups.values(),
        key=lambda members: (max(active[index].last_step for index in members), members[0]),
    )


def share_calls(lengths: Sequence[int], mixed_lengths: MixedLengths) -> list[list[int]]:
    """Choose which rows of a step share a UNet call.

    Args:
        lengths: of each row's prompt, tokens.
        mixed_lengths: what to do where they differ.

    Returns:
        indexes into `lengths` for each call, ascending; every row is in one call.
    """
    calls: dict[int, list[int]] = defaultdict(list)
    for index, length in enumerate(lengths):
        calls[length if mixed_lengths is MixedLengths.GROUP else 0].append(index)
    return list(calls.values())

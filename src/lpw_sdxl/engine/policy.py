"""Who steps together: pure functions over what the loop knows of its jobs.

Rules: jobs of one key share a call, with a few sets of LoRAs among them; inside a key the oldest go
first; the device's time is shared by jobs, not by calls, so that a small image never waits for a
large one to be done, nor a size that one job uses for a size that many use.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from lpw_sdxl.engine.cost import step_cost
from lpw_sdxl.lora.sets import NO_LORAS, LoraSet
from lpw_sdxl.schema import ImageSize

ACTIVE_CALLS = 4  # all sizes together have at most this many calls' rows under way: bounds memory
TURN_CHUNKS = 64  # prompt chunks encoded between two steps: about the work of one UNet row
STAY_TRAVELS = 10  # a phase lasts this many times its components' travel while others wait
CALLS_WITH_LORAS = 2  # calls' rows of one size that are under way where their LoRAs differ
STAY_CALLS = 4  # so many calls go before the least served job's, if its LoRAs have to be made

Capacity = Callable[[ImageSize], int]  # rows of one UNet call that fit, by the images' size


class Phase(StrEnum):
    """What the device does; each needs one component of the model."""

    ENCODE = "encode"
    STEP = "step"
    DECODE = "decode"


class StepKey(NamedTuple):
    """What must be equal for two jobs to share a UNet call."""

    size: ImageSize


@dataclass(frozen=True)
class Standing:
    """What the policy knows of a job.

    Attributes:
        key: what it can share a call with.
        rows: UNet rows it needs, 1 or 2.
        served: device time it has had, counted in megapixels of its own rows; what counts is how
            it compares with the others' (`served_at_first`, `served_after`).
        chunks: of its prompts, still to be encoded while it waits.
        loras: that the UNet has for it.
    """

    key: StepKey
    rows: int
    served: float = 0.0
    chunks: int = 2
    loras: LoraSet = NO_LORAS


@dataclass(frozen=True)
class LoraMixing:
    """Which sets of LoRAs may share a call.

    Attributes:
        max_sets: in one call, no LoRAs at all counted as one.
        is_at_hand: whether a set's weights need not be made first.
    """

    max_sets: int
    is_at_hand: Callable[[LoraSet], bool]


def admit(
    waiting: Iterable[Standing], active: Sequence[Standing], max_rows: int, capacity: Capacity
) -> list[int]:
    """Choose which waiting jobs begin now.

    Args:
        waiting: oldest first.
        active: the jobs already under way.
        max_rows: rows of one UNet call of native size.
        capacity: rows of one UNet call, by size.

    Returns:
        indexes into `waiting`, ascending. A key takes jobs while its rows fit into one call, or
        into two where their LoRAs differ (a choice, so that a call has few sets of them); it
        always takes one. The first job of a key that does not fit closes that key, so that a small
        one cannot overtake. All keys together take what ACTIVE_CALLS calls hold; the first job over
        that closes all. At most TURN_CHUNKS are encoded in one turn (though always one job),
        because the jobs under way wait for that.
    """
    free_chunks = TURN_CHUNKS
    free_in_all = ACTIVE_CALLS * max_rows - sum(job.rows for job in active)
    taken: dict[StepKey, int] = defaultdict(int)
    sets: dict[StepKey, set[LoraSet]] = defaultdict(set)
    for job in active:
        taken[job.key] += job.rows
        sets[job.key].add(job.loras)
    closed: set[StepKey] = set()
    chosen: list[int] = []
    for index, job in enumerate(waiting):
        if job.rows > free_in_all or (chosen and job.chunks > free_chunks):
            break
        if job.key in closed:
            continue
        calls = 1 if sets[job.key] <= {job.loras} else CALLS_WITH_LORAS
        if taken[job.key] and taken[job.key] + job.rows > calls * capacity(job.key.size):
            closed.add(job.key)
            continue
        taken[job.key] += job.rows
        sets[job.key].add(job.loras)
        free_in_all -= job.rows
        free_chunks -= job.chunks
        chosen.append(index)
    return chosen


NO_MIXING = LoraMixing(max_sets=1, is_at_hand=lambda _: True)
"""A call has one set, and none is better than another."""


def choose_group(
    active: Sequence[Standing],
    capacity: Capacity,
    mixing: LoraMixing = NO_MIXING,
    passed_over: int = 0,
) -> list[int]:
    """Choose the jobs of the next UNet call: the least served one, and who can go with it.

    A job that waits is served nothing while the others are, so its turn comes. If its LoRAs would
    have to be made in the place of another's, the least served one whose LoRAs are at hand goes
    before it, for a few calls: else sets that don't fit into the memory together would be made for
    every call.

    Args:
        active: all jobs that want to step.
        capacity: rows of one UNet call.
        mixing: which LoRAs go together.
        passed_over: calls in a row that were without the least served job. What it is served does
            not tell: those that go before it may leave, and others come.

    Returns:
        indexes into `active`, ascending; empty if there is none. The group is of one key and fits
        into one call, or is one job; it has no more sets of LoRAs than may be mixed.
    """
    if not active:
        return []
    by_service = sorted(range(len(active)), key=lambda index: (active[index].served, index))
    at_hand = {job.loras for job in active if mixing.is_at_hand(job.loras)}
    if len(at_hand) >= mixing.max_sets and passed_over < STAY_CALLS:
        first = _choose_first([active[index] for index in by_service], at_hand)
        by_service.insert(0, by_service.pop(first))
    leader = active[by_service[0]]
    if leader.loras not in at_hand:
        at_hand = set()  # it is made in their place, and others' with it
    free = capacity(leader.key.size)
    sets: set[LoraSet] = set()
    group: list[int] = []
    for index in _by_company(active, by_service):
        job = active[index]
        has_room = job.key == leader.key and (not group or job.rows <= free)
        is_worth_it = job.loras in at_hand or len(at_hand) < mixing.max_sets
        if has_room and is_worth_it and len(sets | {job.loras}) <= mixing.max_sets:
            free -= job.rows
            sets.add(job.loras)
            at_hand.add(job.loras)
            group.append(index)
    return sorted(group)


def _by_company(active: Sequence[Standing], by_service: Sequence[int]) -> list[int]:
    """Bring together, behind the first, the jobs of one set among those that were served alike.

    Fewer sets in a call are fewer divided layers. Who was served less by half a call stays ahead.
    """
    first = active[by_service[0]]
    level = first.served + step_cost(first.key.size, first.rows) / 2
    order: dict[LoraSet, int] = {}
    for index in by_service:
        order.setdefault(active[index].loras, len(order))

    def place(index: int) -> tuple[bool, int]:
        is_ahead = active[index].served > level
        return is_ahead, 0 if is_ahead else order[active[index].loras]

    return sorted(by_service, key=place)


def least_served(active: Sequence[Standing]) -> int:
    """Say whose turn it is, by what each has had: an index into `active`, which is not empty."""
    return min(range(len(active)), key=lambda index: (active[index].served, index))


def _choose_first(by_service: Sequence[Standing], at_hand: Collection[LoraSet]) -> int:
    """Choose whom a call is for, of jobs in the order of what they were served."""
    least = by_service[0]
    patience = STAY_CALLS * step_cost(least.key.size, least.rows)
    for index, job in enumerate(by_service):
        if job.served > least.served + patience:
            break
        if job.loras in at_hand:
            return index
    return 0


def served_at_first(job: Standing, active: Sequence[Standing]) -> float:
    """Say what a job that begins counts as served: one call of its own more than the least served.

    Level with the least served it would go before all who are ahead, and so would whoever begins
    after it: an endless stream of jobs of one step each would let nobody else step.
    """
    least = min((one.served for one in active), default=0.0)
    return least + step_cost(job.key.size, job.rows)


def served_after(group: Sequence[Standing]) -> list[float]:
    """Say what each job of a group counts as served after its call.

    Who went along with a less served one is at most one call of its own ahead of it: the rest is
    free, for it would otherwise be waited for later, when those have gone.
    """
    least = min(job.served for job in group)
    return [max(job.served, least + step_cost(job.key.size, job.rows)) for job in group]


def share_calls(rows: int, max_rows: int) -> list[range]:
    """Divide the rows of a step among UNet calls, as few as can be.

    Args:
        rows: of the step.
        max_rows: rows of one call, at least 1.

    Returns:
        the rows' indexes for each call; every row is in one call.
    """
    return [range(start, min(start + max_rows, rows)) for start in range(0, rows, max_rows)]


def choose_phase(
    work: frozenset[Phase], current: Phase, seconds_here: float, travel_s: float
) -> Phase:
    """Choose what to do next where only one component of the model fits on the device.

    Args:
        work: the phases that have something to do.
        current: the phase whose component is on the device.
        seconds_here: since it came.
        travel_s: what a change takes.

    Returns:
        the current phase while it has work and nobody else has, or it has not yet lasted
        STAY_TRAVELS times the travel; else the next phase with work, in the order of an image.
    """
    others = work - {current}
    if not others or (current in work and seconds_here < STAY_TRAVELS * travel_s):
        return current
    order = list(Phase)
    after = order[order.index(current) + 1 :] + order[: order.index(current)]
    return next(phase for phase in after if phase in work)

"""The choice of jobs that begin and of jobs that share a step: pure functions over their views.

Rules: jobs of one key share a call, with a few sets of LoRAs among them; within a key the oldest
begin first, but very long prompts give way to others for a while; the device's time is shared
equally among jobs, not among sizes, so that a small image never waits until a large one is done,
nor a job of a rare size until those of a common size are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from lpw_sdxl.engine.cost import step_cost
from lpw_sdxl.lora.sets import NO_LORAS, LoraSet
from lpw_sdxl.schema import ImageSize

ACTIVE_CALLS = 4  # all jobs under way have at most the rows of so many calls: bounds memory
TURN_CHUNKS = 64  # prompt chunks encoded between two steps, at most: about the work of one UNet row
LONG_PROMPT_CHUNKS = 16  # 600 tokens in each of both prompts; longer ones give way to others
CALLS_WITH_LORAS = 2  # jobs of one size have the rows of so many calls where their LoRAs differ
MAX_CALLS_PASSED_OVER = 4  # in a row, without the least served job, if its LoRAs have to be made

RowLimit = Callable[[ImageSize], int]  # the most rows of one UNet call, by the images' size


class StepKey(NamedTuple):
    """The properties that must be equal for two jobs to share a UNet call."""

    size: ImageSize


@dataclass(frozen=True)
class JobView:
    """A job as the policy sees it.

    Attributes:
        key: jobs of equal keys can share a call.
        rows: its rows of a UNet call: one for each part of its prompt, and the negative one.
        served: device time that it has had, in megapixels of its own rows; only its difference
            from the other jobs' matters (`served_at_first`, `served_after`).
        chunks: of its prompts, which are encoded when it begins.
        loras: of the UNet for its rows.
        later_key: of its next pass, whose calls it joins without beginning anew; None for none.
    """

    key: StepKey
    rows: int
    served: float = 0.0
    chunks: int = 2
    loras: LoraSet = NO_LORAS
    later_key: StepKey | None = None

    @property
    def call_cost(self) -> float:
        """Return the cost of its UNet call, megapixels of rows."""
        return step_cost(self.key.size, self.rows)


class Served(Protocol):
    """A job, or its view."""

    @property
    def served(self) -> float:
        """Return the device time that it has had."""


@dataclass(frozen=True)
class LoraMixing:
    """The rule for which sets of LoRAs may share a call.

    Attributes:
        max_sets: in one call, no LoRAs at all counted as one.
        is_at_hand: returns whether a set's weights exist already.
    """

    max_sets: int
    is_at_hand: Callable[[LoraSet], bool]


def order_to_begin(chunks: Sequence[int], waited_s: Sequence[float]) -> list[int]:
    """Order waiting jobs: those first that have waited longest for what they cost.

    Of ordinary prompts that is the oldest. One of LONG_PROMPT_CHUNKS chunks and more has to wait
    longer by the number of times that it has so many: its encoding and its steps delay all others.
    It does begin, however many short ones come: what it has waited grows all the time.

    Args:
        chunks: of each job's prompts.
        waited_s: since each job was accepted, seconds.

    Returns:
        indexes of the jobs.
    """

    def patience(index: int) -> float:
        return waited_s[index] / max(1, chunks[index] // LONG_PROMPT_CHUNKS)

    return sorted(range(len(chunks)), key=patience, reverse=True)


def admit(
    waiting: Iterable[JobView],
    active: Sequence[JobView],
    max_rows: int,
    row_limit: RowLimit,
    *,
    later_rows: int = 0,
) -> list[int]:
    """Choose which waiting jobs begin now.

    Args:
        waiting: in the order in which they should begin.
        active: the jobs already under way.
        max_rows: rows of one UNet call of native size.
        row_limit: rows of one UNet call, by size.
        later_rows: that the active jobs have more of in a later call than in their next ones.

    Returns:
        indexes into `waiting`, ascending. Jobs of a key begin while its rows fit into one call, or
        into CALLS_WITH_LORAS calls where their LoRAs differ (so that jobs of few sets can be chosen
        for a call); one job of a key can always begin. The first job of a key that does not fit
        stops that key, so that a smaller one cannot overtake it, nor one whose next pass has the
        key, which is not asked again. All keys together have the rows of
        ACTIVE_CALLS calls, or are one job of more rows; the first job beyond that stops all. At
        most TURN_CHUNKS chunks are encoded in one turn (but always one job), because the jobs under
        way wait for that.
    """
    free_chunks = TURN_CHUNKS
    free_in_all = ACTIVE_CALLS * max_rows - sum(job.rows for job in active) - later_rows
    taken: dict[StepKey, int] = defaultdict(int)
    sets: dict[StepKey, set[LoraSet]] = defaultdict(set)
    for job in active:
        taken[job.key] += job.rows
        sets[job.key].add(job.loras)
    closed: set[StepKey] = set()
    chosen: list[int] = []
    for index, job in enumerate(waiting):
        # With nothing under way a job of more rows than that begins: else none would ever.
        has_room = job.rows <= free_in_all or not (active or chosen)
        if not has_room or (chosen and job.chunks > free_chunks):
            break
        if job.key in closed or job.later_key in closed:
            continue
        calls = 1 if sets[job.key] <= {job.loras} else CALLS_WITH_LORAS
        if taken[job.key] and taken[job.key] + job.rows > calls * row_limit(job.key.size):
            closed.add(job.key)
            continue
        taken[job.key] += job.rows
        sets[job.key].add(job.loras)
        free_in_all -= job.rows
        free_chunks -= job.chunks
        chosen.append(index)
    return chosen


NO_MIXING = LoraMixing(max_sets=1, is_at_hand=lambda _: True)
"""One set in a call, and all sets are at hand."""


def choose_group(
    active: Sequence[JobView],
    row_limit: RowLimit,
    mixing: LoraMixing = NO_MIXING,
    passed_over: int = 0,
) -> list[int]:
    """Choose the jobs of the next UNet call: the least served one, and others that can share it.

    A job that waits is not served while others are, so that it becomes the least served one. If its
    LoRAs would have to be made in the place of another set, the least served job whose LoRAs are at
    hand goes first, for MAX_CALLS_PASSED_OVER calls at most. Otherwise sets that do not fit into
    the memory together would be made anew for every call.

    Args:
        active: all jobs with UNet calls left.
        row_limit: rows of one UNet call, by size.
        mixing: which sets of LoRAs may share a call.
        passed_over: calls in a row that were without the least served job. It can't be computed
            from `served`: the jobs that went first may be gone, and others may have begun.

    Returns:
        indexes into `active`, ascending; empty if that is empty. The group has one key and fits
        into one call, or is one job; it has at most `mixing.max_sets` sets of LoRAs.
    """
    if not active:
        return []
    by_service = sorted(range(len(active)), key=lambda index: (active[index].served, index))
    at_hand = {job.loras for job in active if mixing.is_at_hand(job.loras)}
    if len(at_hand) >= mixing.max_sets and passed_over < MAX_CALLS_PASSED_OVER:
        first = _choose_first([active[index] for index in by_service], at_hand)
        by_service.insert(0, by_service.pop(first))
    leader = active[by_service[0]]
    if leader.loras not in at_hand:
        at_hand = set()  # its set is made in their place, and others may be made with it
    free_rows = row_limit(leader.key.size)
    sets: set[LoraSet] = set()
    group: list[int] = []
    for index in _sort_by_set(active, by_service):
        job = active[index]
        has_room = job.key == leader.key and (not group or job.rows <= free_rows)
        is_worth_it = job.loras in at_hand or len(at_hand) < mixing.max_sets
        if has_room and is_worth_it and len(sets | {job.loras}) <= mixing.max_sets:
            free_rows -= job.rows
            sets.add(job.loras)
            at_hand.add(job.loras)
            group.append(index)
    return sorted(group)


def _sort_by_set(active: Sequence[JobView], by_service: Sequence[int]) -> list[int]:
    """Sort by set of LoRAs the jobs that were served at most half a call more than the first.

    Fewer sets in a call divide fewer layers. The other jobs follow as they were.
    """
    first = active[by_service[0]]
    level = first.served + first.call_cost / 2
    order: dict[LoraSet, int] = {}
    for index in by_service:
        order.setdefault(active[index].loras, len(order))

    def place(index: int) -> tuple[bool, int]:
        is_served_more = active[index].served > level
        return is_served_more, 0 if is_served_more else order[active[index].loras]

    return sorted(by_service, key=place)


def least_served(active: Sequence[JobView]) -> int:
    """Find the least served job: an index into `active`, which must not be empty."""
    return min(range(len(active)), key=lambda index: (active[index].served, index))


def _choose_first(by_service: Sequence[JobView], at_hand: Collection[LoraSet]) -> int:
    """Choose the job that leads a call: an index into the jobs sorted by service."""
    least = by_service[0]
    patience = MAX_CALLS_PASSED_OVER * least.call_cost
    for index, job in enumerate(by_service):
        if job.served > least.served + patience:
            break
        if job.loras in at_hand:
            return index
    return 0


def served_at_first(cost: float, active: Iterable[Served]) -> float:
    """Compute `served` for a job that begins: one call of its own more than the least served job.

    If it were equal to the least served job, it would be stepped before all others, and so would
    every job that begins later: an endless stream of jobs of one step would starve the others.

    Args:
        cost: of its first call.
        active: the other jobs.
    """
    return min((one.served for one in active), default=0.0) + cost


def served_after(group: Sequence[JobView]) -> list[float]:
    """Compute `served` for each job of a group after its call.

    A job that shared the call of a less served one counts at most one call of its own more than
    that one had. More would make it wait later for jobs that it did not delay.
    """
    least = min(job.served for job in group)
    return [max(job.served, least + job.call_cost) for job in group]


def share_calls(rows: int, max_rows: int) -> list[range]:
    """Divide the rows of a step among as few UNet calls as possible.

    Args:
        rows: of the step.
        max_rows: rows of one call, at least 1.

    Returns:
        the indexes of the rows of each call; every row is in one call.
    """
    return [range(start, min(start + max_rows, rows)) for start in range(0, rows, max_rows)]

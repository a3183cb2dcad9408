"""The kinds of work on a device that holds one component at a time, and which of them is next."""

from __future__ import annotations

from enum import StrEnum

MIN_PHASE_TRANSFERS = 10  # a phase with work lasts at least so many times its component's transfer


class Phase(StrEnum):
    """A kind of work on the device; each needs one component of the model."""

    ENCODE = "encode"
    STEP = "step"
    PICTURE = "picture"  # the VAE's: pictures are encoded, images decoded


def choose_phase(
    work: frozenset[Phase], current: Phase, seconds_here: float, transfer_s: float
) -> Phase:
    """Choose what to do next where only one component of the model fits on the device.

    Args:
        work: the phases that have something to do.
        current: the phase whose component is on the device.
        seconds_here: since that component came to the device.
        transfer_s: that the last change of components took, seconds.

    Returns:
        the current phase if no other has work, or if it has work and has not yet lasted
        MIN_PHASE_TRANSFERS transfers; else the next phase with work, in an image's order.
    """
    others = work - {current}
    if not others or (current in work and seconds_here < MIN_PHASE_TRANSFERS * transfer_s):
        return current
    order = list(Phase)
    after = order[order.index(current) + 1 :] + order[: order.index(current)]
    return next(phase for phase in after if phase in work)

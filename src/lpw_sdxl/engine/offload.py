"""The decision whether components take turns on the device, and the reason for it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

EVERYTHING_FITS_BYTES = 20_000_000_000  # of the device; a smaller one has one component at a time
FREE_TO_WEIGHTS = 1.5  # times the weights are to be free, or the same


@dataclass(frozen=True)
class DeviceMemory:
    """The memory of a CUDA device before the model is moved there; bytes."""

    total: int
    free: int


class OffloadRule(StrEnum):
    """A rule that decides whether components take turns; a label of the metrics."""

    SETTING = "setting"  # LPW_SDXL_OFFLOAD says so
    CPU = "cpu"  # computes where the weights are
    SMALL_DEVICE = "small_device"
    LITTLE_FREE = "little_free"  # of a large device
    EVERYTHING_FITS = "everything_fits"


class OffloadDecision(NamedTuple):
    """Whether only the component at work is on the device, and why.

    Attributes:
        is_offloading: the decision.
        rule: that made it.
        reason: the rule with its numbers, for a reader.
    """

    is_offloading: bool
    rule: OffloadRule
    reason: str


def decide_offload(memory: DeviceMemory | None, weights: int, offload: str) -> OffloadDecision:
    """Decide whether only the component at work is on the device.

    Args:
        memory: of the device; None for the CPU.
        weights: bytes of all of them.
        offload: the setting, `auto`, `always` or `never`.
    """
    if offload != "auto":
        reason = f"LPW_SDXL_OFFLOAD is {offload}"
        return OffloadDecision(offload == "always", OffloadRule.SETTING, reason)
    if memory is None:
        reason = "auto: a CPU computes where the weights are"
        return OffloadDecision(False, OffloadRule.CPU, reason)
    needed = FREE_TO_WEIGHTS * weights
    if memory.total < EVERYTHING_FITS_BYTES:
        reason = (
            f"auto: {_rounded_down(memory.total)} GB of device memory are less than"
            f" {EVERYTHING_FITS_BYTES / 1e9:g} GB"
        )
        return OffloadDecision(True, OffloadRule.SMALL_DEVICE, reason)
    if memory.free < needed:
        reason = (
            f"auto: {_rounded_down(memory.free)} GB of device memory are free, less than"
            f" {_rounded_up(needed)} GB, {FREE_TO_WEIGHTS:g} times the weights"
        )
        return OffloadDecision(True, OffloadRule.LITTLE_FREE, reason)
    reason = (
        f"auto: {_rounded_down(memory.free)} GB free of {_rounded_down(memory.total)} GB of device"
        f" memory are enough for {_rounded_up(weights)} GB of weights"
    )
    return OffloadDecision(False, OffloadRule.EVERYTHING_FITS, reason)


def _rounded_down(size: float) -> str:
    """Write bytes in GB: 19.99 GB never become the 20.0 that they are less than."""
    return f"{math.floor(size / 1e8) / 10:.1f}"


def _rounded_up(size: float) -> str:
    return f"{math.ceil(size / 1e8) / 10:.1f}"

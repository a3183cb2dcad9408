"""The memory that this process uses, as it is known without asking the device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

from lpw_sdxl.engine.description import HardwareDescription

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Pool:
    """A part of torch's memory on a GPU, bytes.

    Attributes:
        current: now.
        peak: the most so far.
    """

    current: int
    peak: int


@dataclass(frozen=True)
class GpuMemory:
    """The memory of the GPU, bytes.

    Attributes:
        total: of the GPU.
        other: that was in use before the model came.
        allocated: of tensors.
        reserved: that torch holds, for tensors and in reserve.
        active: of tensors, and of those that the GPU still works on.
        inactive: of pieces that can't be used as they are.
        retries: allocations that had to free something first.
        out_of_memory: allocations that failed.
    """

    total: int
    other: int
    allocated: Pool
    reserved: Pool
    active: Pool
    inactive: Pool
    retries: int
    out_of_memory: int


@dataclass(frozen=True)
class MemoryUse:
    """The memory in use.

    Attributes:
        used: by this process on the host, bytes.
        total: of the host, bytes.
        gpu: None for a CPU.
    """

    used: int
    total: int
    gpu: GpuMemory | None


def memory_use(hardware: HardwareDescription, device: torch.device) -> MemoryUse:
    """Read the memory in use: the process's own, and what torch has counted of a GPU's.

    Args:
        hardware: the device.
        device: the same, as torch has it.
    """
    used = psutil.Process().memory_info().rss
    total = psutil.virtual_memory().total
    if device.type != "cuda":
        return MemoryUse(used, total, None)
    import torch  # noqa: PLC0415 - the border reads this file's types before torch is there

    stats = torch.cuda.memory_stats(device)  # torch's own counts: the GPU is not asked

    def pool(name: str) -> Pool:
        key = f"{name}_bytes.all"
        return Pool(stats.get(f"{key}.current", 0), stats.get(f"{key}.peak", 0))

    free = hardware.total_bytes if hardware.free_bytes is None else hardware.free_bytes
    gpu = GpuMemory(
        hardware.total_bytes,
        hardware.total_bytes - free,
        pool("allocated"),
        pool("reserved"),
        pool("active"),
        pool("inactive_split"),
        stats.get("num_alloc_retries", 0),
        stats.get("num_ooms", 0),
    )
    return MemoryUse(used, total, gpu)

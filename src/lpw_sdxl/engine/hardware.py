"""What the device is: its name, its memory, and what drives it."""

from __future__ import annotations

import re
from pathlib import Path

import psutil
import torch

from lpw_sdxl.cuda_driver import read_driver_version
from lpw_sdxl.engine.description import HardwareDescription
from lpw_sdxl.engine.offload import DeviceMemory

CPU_FACTS = Path("/proc/cpuinfo")
_CPU_NAME = re.compile(r"^model name[ \t]*:[ \t]*(\S.*)$", re.MULTILINE)


def describe_hardware(device: torch.device, memory: DeviceMemory | None) -> HardwareDescription:
    """Describe a device.

    Args:
        device: the CPU, or a CUDA device.
        memory: of a CUDA device before the model is moved there; None for the CPU.
    """
    if device.type != "cuda":
        return HardwareDescription(
            device=str(device),
            name=read_cpu_name(),
            total_bytes=psutil.virtual_memory().total,
            threads=torch.get_num_threads(),
        )
    assert memory is not None
    properties = torch.cuda.get_device_properties(device)
    return HardwareDescription(
        device=str(device),
        name=properties.name,
        total_bytes=memory.total,
        free_bytes=memory.free,
        driver=read_driver_version(),
        compute_capability=f"{properties.major}.{properties.minor}",
    )


def read_cpu_name(file: Path = CPU_FACTS) -> str:
    """Read the CPU's name; "CPU" where the kernel does not list one.

    Args:
        file: the kernel's list of processors.
    """
    try:
        found = _CPU_NAME.search(file.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        found = None
    return found[1].strip() if found else "CPU"

"""The memory in use, as A1111's door and others read it."""

from __future__ import annotations

import pytest
import torch

from lpw_sdxl.doors.a1111.memory import describe_memory
from lpw_sdxl.engine.hardware import describe_hardware
from lpw_sdxl.engine.memory_use import GpuMemory, MemoryUse, Pool, memory_use
from lpw_sdxl.engine.offload import DeviceMemory


def test_a_cpus_memory_is_the_processs_own() -> None:
    cpu = torch.device("cpu")
    use = memory_use(describe_hardware(cpu, None), cpu)
    assert 10**7 < use.used < use.total
    assert use.gpu is None
    ram = describe_memory(use)["ram"]
    assert ram["free"] + ram["used"] == ram["total"]


def test_a_gpus_memory_has_what_others_use_too() -> None:
    pools = (Pool(2, 3), Pool(5, 6), Pool(2, 4), Pool(1, 1))
    use = MemoryUse(1, 10, GpuMemory(100, 20, *pools, retries=7, out_of_memory=8))
    cuda = describe_memory(use)["cuda"]
    assert cuda["system"] == {"free": 75, "used": 25, "total": 100}
    assert cuda["allocated"] == {"current": 2, "peak": 3}
    assert cuda["events"] == {"retries": 7, "oom": 8}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpus_memory_is_counted_by_torch() -> None:
    device = torch.device("cuda:0")
    free, total = torch.cuda.mem_get_info(device)
    hardware = describe_hardware(device, DeviceMemory(free=free, total=total))
    tensor = torch.zeros(2**20, device=device)
    gpu = memory_use(hardware, device).gpu
    assert gpu is not None
    assert gpu.allocated.current >= tensor.nbytes
    assert gpu.reserved.current >= gpu.allocated.current
    assert gpu.total == total

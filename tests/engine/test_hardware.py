"""What a device is said to be."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
import torch

from lpw_sdxl.cuda_driver import read_driver
from lpw_sdxl.engine.calibration import read_memory
from lpw_sdxl.engine.hardware import describe_hardware, read_cpu_name


def test_a_cpu_has_a_name_threads_and_its_machines_memory() -> None:
    found = describe_hardware(torch.device("cpu"), None)
    assert found.device == "cpu"
    assert found.name == read_cpu_name() != ""
    assert found.total_bytes == psutil.virtual_memory().total
    assert found.threads == torch.get_num_threads()
    assert found.free_bytes is found.driver is found.compute_capability is None


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("processor\t: 0\nmodel name\t: AMD EPYC 9354\nmodel name\t: B\n", "AMD EPYC 9354"),
        ("model name : Intel(R) Xeon(R) CPU @ 2.20GHz  \n", "Intel(R) Xeon(R) CPU @ 2.20GHz"),
        ("model name\t:\nflags\t: fpu\n", "CPU"),
        ("processor\t: 0\nCPU implementer\t: 0x41\n", "CPU"),
    ],
    ids=["first of several", "trailing blanks", "empty", "Arm lists none"],
)
def test_a_cpus_name_is_the_kernels(tmp_path: Path, text: str, name: str) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(text)
    assert read_cpu_name(file) == name


def test_a_cpu_without_the_kernels_list_is_a_cpu(tmp_path: Path) -> None:
    assert read_cpu_name(tmp_path / "none") == "CPU"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_has_name_memory_driver_and_capability() -> None:
    device = torch.device("cuda", 0)
    memory = read_memory(device)
    assert memory is not None
    found = describe_hardware(device, memory)
    assert found.device == "cuda:0"
    assert found.name == torch.cuda.get_device_name(device)
    assert (found.total_bytes, found.free_bytes) == (memory.total, memory.free)
    major, minor = torch.cuda.get_device_capability(device)
    assert found.compute_capability == f"{major}.{minor}"
    driver = read_driver()
    assert driver is not None
    assert found.driver == driver.version
    assert found.threads is None

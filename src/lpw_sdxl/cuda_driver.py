"""The CUDA of this machine, found without importing torch, and why a GPU can't be used.

The driver's own library is asked: `cuInit`, `cuDriverGetVersion` and `cuDeviceGetCount` of NVIDIA's
driver API. Which CUDA torch was built for is read from torch's file of its version.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lpw_sdxl.errors import SettingsError

SMALL_MODEL_BYTES = 10**9  # the demo model has 20 MB, SDXL 7 GB
LIBRARY = "libcuda.so.1"
KERNEL_MODULE = Path("/sys/module/nvidia/version")
NEEDED_DRIVERS = {11: "450.80.02", 12: "525.60.13", 13: "580"}
"""The oldest driver for each major version of CUDA, by NVIDIA's table of minor version
compatibility."""
_ARCHITECTURE = re.compile(r"(?:sm|compute)_([0-9]+)[a-z]?")
_TORCH_CUDA = re.compile(r"^cuda\b[^=]*= *['\"](\d+)\.(\d+)", re.MULTILINE)
_TORCH_VERSION = re.compile(r"^__version__ *= *['\"]([^'\"]+)", re.MULTILINE)

CudaVersion = tuple[int, int]


@dataclass(frozen=True)
class Driver:
    """NVIDIA's driver.

    Attributes:
        cuda: the newest CUDA that it serves, major and minor.
        devices: number of GPUs that this process sees.
        version: such as `580.159.04`; None if the kernel does not list it.
        failure: code of `cuInit`, 0 if it worked.
    """

    cuda: CudaVersion
    devices: int
    version: str | None = None
    failure: int = 0


@dataclass(frozen=True)
class TorchBuild:
    """The installed torch.

    Attributes:
        version: such as `2.13.0+cpu`.
        cuda: that it was built for, major and minor; None for none.
    """

    version: str
    cuda: CudaVersion | None


def read_driver(
    load: Callable[[str], Any] = ctypes.CDLL, kernel_module: Path = KERNEL_MODULE
) -> Driver | None:
    """Read the driver's version and devices; return None where there is none.

    Args:
        load: loads a shared library by its name.
        kernel_module: file with the driver's version.
    """
    try:
        library = load(LIBRARY)
    except OSError:
        return None
    failure = int(library.cuInit(0))
    number = ctypes.c_int(0)
    library.cuDriverGetVersion(ctypes.byref(number))
    cuda = number.value // 1000, number.value % 1000 // 10
    devices = ctypes.c_int(0)
    if not failure:
        library.cuDeviceGetCount(ctypes.byref(devices))
    return Driver(cuda, devices.value, read_driver_version(kernel_module), failure)


def read_driver_version(kernel_module: Path = KERNEL_MODULE) -> str | None:
    """Read the driver's version, such as `580.159.04`; return None if the kernel does not list it.

    Args:
        kernel_module: file with it.
    """
    try:
        return kernel_module.read_text().strip() or None
    except OSError:
        return None


def read_torch_build(version_file: Path | None = None) -> TorchBuild:
    """Read which torch is installed, without importing it.

    Args:
        version_file: torch's `version.py`; None for that of the installed torch.
    """
    if version_file is None:
        spec = importlib.util.find_spec("torch")
        assert spec is not None
        assert spec.origin is not None
        version_file = Path(spec.origin).with_name("version.py")
    text = version_file.read_text(encoding="utf-8")
    version = _TORCH_VERSION.search(text)
    cuda = _TORCH_CUDA.search(text)
    return TorchBuild(
        version[1] if version else "of an unknown version",
        (int(cuda[1]), int(cuda[2])) if cuda else None,
    )


def find_cuda_obstacle(driver: Driver | None, torch: TorchBuild) -> str | None:
    """Return why torch can't use a GPU here, as a part of a sentence; None if it should work.

    Args:
        driver: None where there is none.
        torch: the installed one.
    """
    if torch.cuda is None:
        return f"the installed torch ({torch.version}) was built without CUDA"
    if driver is None:
        return (
            "this machine shows no NVIDIA driver (a container needs `--gpus` and NVIDIA's container"
            " toolkit)"
        )
    if driver.cuda[0] < torch.cuda[0]:
        named = f" {driver.version}" if driver.version else ""
        needed = NEEDED_DRIVERS.get(torch.cuda[0], "a newer one")
        return (
            f"the NVIDIA driver{named} serves CUDA {_write(driver.cuda)} and is too old for the"
            f" installed torch ({torch.version}), whose CUDA {_write(torch.cuda)} needs driver"
            f" {needed} or newer; that, or a torch for an older CUDA (the TORCH_INDEX of"
            " `make install`, or of the checkout that an image is made of), would be right"
        )
    if driver.failure or not driver.devices:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        hidden = "" if visible is None else f" (CUDA_VISIBLE_DEVICES is {visible!r})"
        code = f", whose cuInit answers {driver.failure}," if driver.failure else ""
        return f"the NVIDIA driver{code} shows no GPU{hidden}"
    return None


def find_gpu_obstacle(
    capability: tuple[int, int], built_for: Sequence[str], name: str
) -> str | None:
    """Return why torch has no code for a GPU, as a part of a sentence; None if it has.

    Args:
        capability: of the GPU.
        built_for: as `torch.cuda.get_arch_list` lists them, such as `sm_80` and `compute_90`.
        name: of the GPU.
    """
    numbers = [int(digits[1]) for one in built_for if (digits := _ARCHITECTURE.fullmatch(one))]
    own = 10 * capability[0] + capability[1]
    # Code for an older minor version runs, and what is only compiled to PTX runs on all newer ones.
    if not numbers or own >= min(numbers):
        return None
    return (
        f"{name} has compute capability {capability[0]}.{capability[1]}, and the installed torch is"
        f" built for {min(numbers) // 10}.{min(numbers) % 10} or newer; a newer GPU, or a torch for"
        " an older CUDA, would be right"
    )


def refuse_silent_cpu(wanted: str, model_bytes: int, obstacle: str | None) -> None:
    """Refuse to serve a real model on a CPU where that was not asked for.

    Args:
        wanted: the setting `LPW_SDXL_DEVICE`.
        model_bytes: of the model's files.
        obstacle: as `find_cuda_obstacle` returns it; None where CUDA can be used.

    Raises:
        SettingsError: says what was found, and what would be right.
    """
    if obstacle is None or wanted == "cpu":
        return
    if wanted == "cuda":
        raise SettingsError(
            f"LPW_SDXL_DEVICE is cuda, and CUDA can't be used: {obstacle}; auto or cpu would be"
            " right without a GPU"
        )
    if model_bytes > SMALL_MODEL_BYTES:
        raise SettingsError(
            f"the model has {model_bytes / 1e9:.1f} GB, and CUDA can't be used: {obstacle}; an"
            " image on a CPU takes minutes, and LPW_SDXL_DEVICE=cpu serves on it anyway"
        )


def predict_cuda(wanted: str, workers: int, model_bytes: int) -> bool:
    """Predict without torch whether a model will be served on a GPU.

    Args:
        wanted: the setting `LPW_SDXL_DEVICE`.
        workers: how many GPUs are needed, where they are used.
        model_bytes: of the model's files.

    Raises:
        SettingsError: as `refuse_silent_cpu`; or there are fewer GPUs than workers.
    """
    if wanted == "cpu":
        return False
    driver = read_driver()
    obstacle = find_cuda_obstacle(driver, read_torch_build())
    refuse_silent_cpu(wanted, model_bytes, obstacle)
    if obstacle is None and driver is not None:
        refuse_more_workers(workers, driver.devices)
    return obstacle is None


def refuse_more_workers(workers: int, devices: int) -> None:
    """Refuse more workers than there are GPUs.

    Raises:
        SettingsError: there are fewer.
    """
    if workers > devices:
        raise SettingsError(
            f"LPW_SDXL_WORKERS is {workers}, and {devices} CUDA devices are visible; a worker needs"
            f" one of its own, so at most {devices} would be right"
        )


def _write(version: CudaVersion) -> str:
    return f"{version[0]}.{version[1]}"

"""The choice of the device that a model is served on."""

from __future__ import annotations

import torch

from lpw_sdxl.cuda_driver import (
    find_cuda_obstacle,
    find_gpu_obstacle,
    read_driver,
    read_torch_build,
    refuse_silent_cpu,
)
from lpw_sdxl.errors import SettingsError


def choose_device(wanted: str, model_bytes: int = 0) -> torch.device:
    """Choose the device that a setting means.

    Args:
        wanted: `auto`, `cpu` or `cuda`.
        model_bytes: of the model's files; a large one is served on a CPU only if that is wanted.

    Raises:
        SettingsError: if a CUDA device is needed that this machine does not have.
    """
    has_cuda = wanted != "cpu" and torch.cuda.is_available()
    if not has_cuda:
        obstacle = find_cuda_obstacle(read_driver(), read_torch_build())
        refuse_silent_cpu(wanted, model_bytes, obstacle or "torch finds no CUDA device")
    if has_cuda:
        capability, built_for = torch.cuda.get_device_capability(0), torch.cuda.get_arch_list()
        old = find_gpu_obstacle(capability, built_for, torch.cuda.get_device_name(0))
        if old is not None:
            raise SettingsError(f"CUDA can't be used: {old}; LPW_SDXL_DEVICE=cpu serves on a CPU")
    # To a worker only its own GPU is visible, as number 0.
    return torch.device("cuda", 0) if has_cuda else torch.device("cpu")

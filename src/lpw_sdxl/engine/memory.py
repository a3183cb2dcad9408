"""Where the model lives, decided once at start and told in one line."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lpw_sdxl.errors import SettingsError

GIB = 1024**3


def choose_device(wanted: str) -> torch.device:
    """Turn the device setting into a device.

    Args:
        wanted: `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises:
        SettingsError: if a CUDA device was asked for that this machine does not have.
    """
    has_cuda = torch.cuda.is_available()
    if wanted == "auto":
        return torch.device("cuda", 0) if has_cuda else torch.device("cpu")
    if wanted == "cpu":
        return torch.device("cpu")
    name, _, number = wanted.partition(":")
    count = torch.cuda.device_count() if has_cuda else 0
    if name != "cuda" or not (number.isdigit() or number == "") or int(number or 0) >= count:
        raise SettingsError(
            f"LPW_SDXL_DEVICE is {wanted}, and this machine has {count} CUDA devices;"
            " auto, cpu, or cuda:N with N below that count would be right"
        )
    return torch.device("cuda", int(number or 0))


@dataclass(frozen=True)
class MemoryPlan:
    """How the device's memory is used.

    Attributes:
        device: where everything runs.
        dtype: of UNet and text encoders.
        weight_bytes: bytes of weights that stay on the device.
        max_rows: UNet rows of one call.
    """

    device: torch.device
    dtype: torch.dtype
    weight_bytes: int
    max_rows: int

    def __str__(self) -> str:
        """Say the plan in one line of a log."""
        return (
            f"everything stays on {self.device} in {str(self.dtype).removeprefix('torch.')}"
            f" ({self.weight_bytes / GIB:.2f} GiB of weights), up to {self.max_rows} rows a UNet"
            " call, images decoded one by one"
        )

"""Where the model lives, decided once at start and told in one line."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lpw_sdxl.errors import SettingsError

GIB = 1024**3


def choose_device(wanted: str) -> torch.device:
    """Turn the device setting into a device.

    Args:
        wanted: `auto`, `cpu` or `cuda`.

    Raises:
        SettingsError: if a CUDA device was asked for that this machine does not have.
    """
    has_cuda = torch.cuda.is_available()
    if wanted == "cuda" and not has_cuda:
        raise SettingsError(
            "LPW_SDXL_DEVICE is cuda, and this machine has no CUDA device that torch can use;"
            " auto or cpu would be right"
        )
    # BentoML shows a worker the one GPU it is to use, which is then number 0.
    is_cuda = has_cuda and wanted != "cpu"
    return torch.device("cuda", 0) if is_cuda else torch.device("cpu")


@dataclass(frozen=True)
class MemoryPlan:
    """How the device's memory is used.

    Attributes:
        device: where everything runs.
        dtype: of UNet and text encoders.
        weight_bytes: bytes of all weights, text encoders included; they stay on the device.
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

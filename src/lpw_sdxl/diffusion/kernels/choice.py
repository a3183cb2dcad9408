"""Which operations a device gets: the kernels where they can run and are right, else none.

None means that the networks stay as they are without the kernels, bit for bit.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from lpw_sdxl.diffusion.kernels.launcher import offer_launcher
from lpw_sdxl.diffusion.kernels.operations import Operations
from lpw_sdxl.diffusion.kernels.trial import find_wrong_kernel

logger = logging.getLogger(__name__)

CAPABILITIES = frozenset({(8, 0), (8, 6), (8, 9), (9, 0), (12, 0)})
"""Compute capabilities that the kernels are compiled for in the tests."""
FLOAT8_CAPABILITY = (8, 9)
"""The first with products in fp8."""


@dataclass(frozen=True)
class KernelChoice:
    """The operations for one device, or why there are none.

    Attributes:
        operations: the kernels; None where they can't be used.
        obstacle: why not, in words that follow "because"; None where they can.
    """

    operations: Operations | None
    obstacle: str | None = None


def choose_operations(
    device: torch.device, networks: Sequence[nn.Module], *, quantises: bool
) -> KernelChoice:
    """Choose the operations for networks on a device, and compile and try them there.

    Args:
        device: where the networks are called.
        networks: whose widths the kernels are compiled for; each in the dtype it is called in.
        quantises: whether results are wanted in fp8 too.
    """
    obstacle = find_device_obstacle(device, quantises=quantises)
    if obstacle is None:
        offer_launcher()
        # Imported here, for it imports Triton, which a machine without a GPU need not have.
        from lpw_sdxl.diffusion.kernels.triton_operations import (  # noqa: PLC0415
            TritonOperations,
        )

        operations = TritonOperations()
        obstacle = find_wrong_kernel(operations, networks, device, quantises=quantises)
        if obstacle is None:
            return KernelChoice(operations)
    return KernelChoice(None, obstacle)


def find_device_obstacle(device: torch.device, *, quantises: bool) -> str | None:
    """Return why a device can't run the kernels, before any is compiled; None if nothing is known.

    Args:
        device: of the networks.
        quantises: whether results are wanted in fp8 too.
    """
    if device.type != "cuda":
        return f"the device is {device}, and they run on CUDA devices"
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    capability = torch.cuda.get_device_capability(device)
    if capability not in CAPABILITIES:
        known = ", ".join(f"{major}.{minor}" for major, minor in sorted(CAPABILITIES))
        return (
            f"the device has compute capability {capability[0]}.{capability[1]}, and they are for"
            f" {known}"
        )
    if quantises and capability < FLOAT8_CAPABILITY:
        return (
            f"the device has compute capability {capability[0]}.{capability[1]}, and fp8 begins"
            f" at {FLOAT8_CAPABILITY[0]}.{FLOAT8_CAPABILITY[1]}"
        )
    return None

"""What replaces torch's own functions in a model's networks: chosen for a device, and installed.

It is chosen before the memory is planned, and installed before anything notes the weights.
"""

from __future__ import annotations

import logging
from typing import Any, Literal, NamedTuple

import torch

from lpw_sdxl.diffusion.float8 import Float8Products, find_width_obstacle, quantise_unet
from lpw_sdxl.diffusion.fused_unet import Fusion, arrange_weights
from lpw_sdxl.diffusion.fused_vae import fuse_vae
from lpw_sdxl.diffusion.kernels.choice import choose_operations
from lpw_sdxl.diffusion.kernels.operations import Operations
from lpw_sdxl.errors import SettingsError
from lpw_sdxl.settings import Settings

logger = logging.getLogger(__name__)


class Acceleration(NamedTuple):
    """The replacement of torch's own functions.

    Attributes:
        operations: between the products; None for torch's.
        quantises: whether the large products of the UNet are computed in fp8.
    """

    operations: Operations | None
    quantises: bool = False

    @property
    def kernels(self) -> Literal["plain", "fused"]:
        """Return what lies between the products, as plans name it."""
        return "plain" if self.operations is None else "fused"

    @property
    def precision(self) -> Literal["model", "fp8"]:
        """Return the precision of the large products, as plans name it."""
        return "fp8" if self.quantises else "model"

    @property
    def divides_layers(self) -> bool:
        """Return whether rows of a call may have different sets of LoRAs.

        Divided layers are not computed in fp8, so that a picture would change by its company.
        """
        return not self.quantises

    def check_offloading(self, reason: str) -> None:
        """Refuse fp8 where the model's parts take turns on the device.

        Args:
            reason: why they do.

        Raises:
            SettingsError: if the products are in fp8.
        """
        if self.quantises:
            raise SettingsError(
                "LPW_SDXL_PRECISION is fp8, which needs all of the model on the device, and its"
                f" parts take turns there ({reason}); the model's own precision would be right"
            )


NO_ACCELERATION = Acceleration(None)


def choose_acceleration(
    unet: Any, vae: Any, device: torch.device, settings: Settings
) -> Acceleration:
    """Choose what the settings want and the device can do; what it can't do is logged, or refused.

    Args:
        unet: in the dtype that it is called in, on any device.
        vae: likewise.
        device: where both are called.
        settings: the operator's.

    Raises:
        SettingsError: fp8 is wanted and can't be had: that would be other pictures.
    """
    quantises = settings.precision == "fp8"
    if not (settings.fused_kernels or quantises):
        return NO_ACCELERATION
    networks = [unet] if vae.dtype == torch.float32 else [unet, vae]
    choice = choose_operations(device, networks, quantises=quantises)
    obstacle = choice.obstacle
    if quantises and obstacle is None:
        obstacle = find_width_obstacle(unet) or _find_product_obstacle(unet.dtype, device)
    if quantises and obstacle is not None:
        raise SettingsError(
            f"LPW_SDXL_PRECISION is fp8, and that can't be had because {obstacle}; without it the"
            " model is served in its own precision"
        )
    if obstacle is not None:
        logger.warning(
            "LPW_SDXL_FUSED_KERNELS has no effect because %s; torch's own functions are used",
            obstacle,
        )
    return Acceleration(choice.operations, quantises)


def install(acceleration: Acceleration, unet: Any, vae: Any) -> Fusion | None:
    """Lay out the weights of networks, and make the VAE use the operations.

    Args:
        acceleration: what was chosen.
        unet: where it stays; the Denoiser fuses it.
        vae: Diffusers' AutoencoderKL.

    Returns:
        how the UNet is to be fused; None where it stays as it is.
    """
    if acceleration.operations is None:
        return None
    arrange_weights(unet)
    if vae.dtype != torch.float32:
        fuse_vae(vae, acceleration.operations)
    if not acceleration.quantises:
        return Fusion(acceleration.operations)
    quantise_unet(unet)
    products = Float8Products(unet.dtype)
    products.choose_result(unet.device)
    return Fusion(acceleration.operations, products)


def _find_product_obstacle(dtype: torch.dtype, device: torch.device) -> str | None:
    """Return why torch has no product in fp8 on a device, None if it has one."""
    try:
        Float8Products(dtype).choose_result(device)
    except RuntimeError as error:
        return f"torch has no product for it there ({str(error).strip().splitlines()[0]})"
    return None

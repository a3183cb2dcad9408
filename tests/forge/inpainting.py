"""UNets of inpainting models, made of UNets that take latents alone."""

from __future__ import annotations

from typing import Any

import torch

from lpw_sdxl.checkpoint.architecture import INPAINTING_CHANNELS


def widen_unet(unet: Any, seed: int = 0) -> Any:
    """Return a copy of Diffusers' UNet that sees a mask and a masked picture too.

    Args:
        unet: of 4 channels.
        seed: of the new channels' weights, which are as large as the others.
    """
    config = {**unet.config, "in_channels": INPAINTING_CHANNELS}
    weights = unet.state_dict()
    old = weights["conv_in.weight"]
    added = torch.randn(
        (old.shape[0], INPAINTING_CHANNELS - old.shape[1], *old.shape[2:]),
        generator=torch.Generator().manual_seed(seed),
    )
    weights["conv_in.weight"] = torch.cat([old, (added * old.float().std()).to(old)], dim=1)
    wide = type(unet).from_config(config)
    wide.load_state_dict(weights)
    return wide.to(unet.dtype).eval().requires_grad_(False)

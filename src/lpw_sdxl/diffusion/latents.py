"""The start of an image: its noise, and the numbers that state its size to SDXL."""

from __future__ import annotations

import torch

from lpw_sdxl.schema import LATENT_SCALE, ImageSize

LATENT_CHANNELS = 4


def latents_shape(size: ImageSize) -> tuple[int, int, int, int]:
    """Return the shape of one image's latents, `(1, 4, height/8, width/8)`."""
    return 1, LATENT_CHANNELS, size.height // LATENT_SCALE, size.width // LATENT_SCALE


def seeded_generator(seed: int) -> torch.Generator:
    """Create an image's own random generator.

    It is on the CPU whatever the device: a seed then draws the same noise on every machine, and no
    other image of the same UNet call changes it.
    """
    return torch.Generator(device="cpu").manual_seed(seed)


def draw_noise(size: ImageSize, generator: torch.Generator) -> torch.Tensor:
    """Draw one image's starting noise.

    Returns:
        float32 on the CPU, `[1, 4, height/8, width/8]`, unit variance.
    """
    return torch.randn(latents_shape(size), generator=generator, dtype=torch.float32)


def size_embedding(size: ImageSize) -> torch.Tensor:
    """List the six numbers that condition SDXL on an image's size (arXiv 2307.01952, 2.2).

    Returns:
        float32, `[6]`: original height and width, top and left of the crop, target height and
        width; pixels. Nothing is cropped and the original is the target.
    """
    return torch.tensor(
        [size.height, size.width, 0, 0, size.height, size.width], dtype=torch.float32
    )

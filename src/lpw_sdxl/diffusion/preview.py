"""A small picture of what latents are becoming, without the VAE's work.

A latent cell's four numbers are nearly a linear map away from the mean colour of its 8 x 8 pixels.
The map is fitted to the model's own VAE, once, on latents that are as rough as a picture's: plain
noise becomes texture, from which the map of colours is hard to tell.
"""

from __future__ import annotations

import torch

from lpw_sdxl.diffusion.decoder import Decoder, Pixels
from lpw_sdxl.diffusion.latents import draw_noise, seeded_generator
from lpw_sdxl.schema import LATENT_SCALE, ImageSize

FITTED_SIZE = ImageSize(256, 256)
OCTAVES = (1, 2, 4, 8)  # latent cells; alike in strength, as in a picture's 1/f spectrum


class Preview:
    """Draws previews for one VAE.

    Args:
        decoder: whose colours to match; it decodes one image here.
    """

    @torch.inference_mode()
    def __init__(self, decoder: Decoder) -> None:
        vae = decoder.vae
        latents = _draw_octaves(FITTED_SIZE).to(vae.device)
        pixels = torch.from_numpy(decoder.decode(latents)).permute(2, 0, 1)[None].float()
        colours = torch.nn.functional.avg_pool2d(pixels, LATENT_SCALE)  # [1, 3, h, w]
        self._map = torch.linalg.lstsq(
            _features(latents.cpu()), colours.flatten(2)[0].T
        ).solution  # [5, 3]

    @torch.inference_mode()
    def draw(self, latents: torch.Tensor) -> Pixels:
        """Draw latents `[1, 4, h, w]` as uint8 `[h, w, 3]`."""
        colours = _features(latents.float().cpu()) @ self._map
        levels = colours.nan_to_num(0.0).clamp(0, 255).round().to(torch.uint8)
        pixels: Pixels = levels.unflatten(0, latents.shape[-2:]).numpy()
        return pixels


def _draw_octaves(size: ImageSize) -> torch.Tensor:
    """Draw noise that is rough and smooth at once, `[1, 4, h, w]`, of unit variance."""
    generator = seeded_generator(0)
    shape = (size.height // LATENT_SCALE, size.width // LATENT_SCALE)
    octaves = [
        torch.nn.functional.interpolate(
            draw_noise(ImageSize(size.height // cells, size.width // cells), generator),
            shape,
            mode="bilinear",
        )
        for cells in OCTAVES
    ]
    latents = torch.stack(octaves).sum(0)
    return latents / latents.std()


def _features(latents: torch.Tensor) -> torch.Tensor:
    """Lay cells out as rows with a constant: `[1, 4, h, w]` to `[h * w, 5]`."""
    cells = latents.flatten(2)[0].T
    return torch.cat([cells, torch.ones(len(cells), 1)], dim=1)

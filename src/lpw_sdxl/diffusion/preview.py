"""Previews: small pictures of latents, drawn without the VAE.

The mean colour of a latent cell's 8 x 8 pixels is nearly a linear function of its four numbers. The
function is fitted once to the model's own VAE, on latents as rough as a picture's: plain noise
is decoded to texture, which shows little of the colours.
"""

from __future__ import annotations

import torch

from lpw_sdxl.diffusion.decoder import Decoder, Pixels
from lpw_sdxl.diffusion.latents import draw_noise, seeded_generator
from lpw_sdxl.schema import LATENT_SCALE, ImageSize

FITTED_SIZE = ImageSize(256, 256)
OCTAVES = (1, 2, 4, 8)  # latent cells; of equal strength, as in a picture's 1/f spectrum


class Preview:
    """The drawing of previews in the colours of one VAE.

    Args:
        decoder: of that VAE; it decodes one image for the fit.
    """

    @torch.inference_mode()
    def __init__(self, decoder: Decoder) -> None:
        vae = decoder.vae
        latents = _draw_octaves(FITTED_SIZE).to(vae.device)
        pixels = torch.from_numpy(decoder.decode(latents)).permute(2, 0, 1)[None].float()
        colours = torch.nn.functional.avg_pool2d(pixels, LATENT_SCALE)  # [1, 3, h, w]
        self._map = torch.linalg.lstsq(
            _list_cells(latents.cpu()), colours.flatten(2)[0].T
        ).solution  # [5, 3]

    @torch.inference_mode()
    def draw(self, latents: torch.Tensor) -> Pixels:
        """Draw latents `[1, 4, h, w]` as uint8 `[h, w, 3]`."""
        colours = _list_cells(latents.float().cpu()) @ self._map
        levels = colours.nan_to_num(0.0).clamp(0, 255).round().to(torch.uint8)
        pixels: Pixels = levels.unflatten(0, latents.shape[-2:]).numpy()
        return pixels


def _draw_octaves(size: ImageSize) -> torch.Tensor:
    """Draw noise of all octaves together, `[1, 4, h, w]`, of unit variance."""
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


def _list_cells(latents: torch.Tensor) -> torch.Tensor:
    """List the cells' numbers, each with a constant 1: `[1, 4, h, w]` to `[h * w, 5]`."""
    cells = latents.flatten(2)[0].T
    return torch.cat([cells, torch.ones(len(cells), 1)], dim=1)

"""Previews: small pictures of latents, drawn without the VAE.

The mean colour of a latent cell's 8 x 8 pixels is nearly a linear function of its four numbers. The
function is fitted once to the model's own VAE, on latents as rough as a picture's: plain noise
is decoded to texture, which shows little of the colours.

The engine's thread only copies latents to the host; any other thread draws them, with numpy alone:
torch's own threads would contend with those of the engine.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from lpw_sdxl.diffusion.decoder import Decoder, Pixels
from lpw_sdxl.diffusion.latents import draw_noise, seeded_generator
from lpw_sdxl.schema import LATENT_SCALE, ImageSize

FITTED_SIZE = ImageSize(256, 256)
OCTAVES = (1, 2, 4, 8)  # latent cells; of equal strength, as in a picture's 1/f spectrum


Levels = npt.NDArray[np.float32]


class Preview:
    """The previews in the colours of one VAE.

    Args:
        decoder: of that VAE; it decodes one image for the fit.
    """

    @torch.inference_mode()
    def __init__(self, decoder: Decoder) -> None:
        vae = decoder.vae
        latents = _draw_octaves(FITTED_SIZE).to(vae.device)
        pixels = torch.from_numpy(decoder.decode(latents)).permute(2, 0, 1)[None].float()
        colours = torch.nn.functional.avg_pool2d(pixels, LATENT_SCALE)  # [1, 3, h, w]
        solution = torch.linalg.lstsq(_list_cells(latents.cpu()), colours.flatten(2)[0].T).solution
        self._map: Levels = solution.numpy()  # [5, 3]

    @torch.inference_mode()
    def take(self, latents: torch.Tensor) -> UndrawnPreview:
        """Copy latents `[1, 4, h, w]` for a preview, without waiting for the device."""
        rough = latents[0].float()
        if rough.device.type != "cuda":
            return UndrawnPreview(rough.to("cpu", copy=True), self._map)
        host = torch.empty(rough.shape, dtype=torch.float32, pin_memory=True)
        host.copy_(rough, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record()
        return UndrawnPreview(host, self._map, copied)


class UndrawnPreview:
    """A preview that is not drawn yet: latents on their way to the host.

    Args:
        latents: float32 on the host, `[4, h, w]`.
        colours: of the four numbers of a cell, and of a constant 1, `[5, 3]`.
        copied: happens when the latents are there; None if they are.
    """

    def __init__(
        self, latents: torch.Tensor, colours: Levels, copied: torch.cuda.Event | None = None
    ) -> None:
        self._latents = latents
        self._colours = colours
        self._copied = copied

    @property
    def byte_count(self) -> int:
        """Count the bytes that it takes."""
        return self._latents.nbytes

    def draw(self) -> Pixels:
        """Draw the preview, uint8 `[h, w, 3]`; for any thread but the engine's."""
        if self._copied is not None:
            self._copied.synchronize()
        *scales, constant = self._colours
        cells: Levels = self._latents.numpy()
        # Latents that diverge are drawn too. No product of matrices: BLAS has threads of its own.
        with np.errstate(invalid="ignore", over="ignore"):
            levels = constant + sum(
                cell[..., None] * scale for cell, scale in zip(cells, scales, strict=True)
            )
        return np.nan_to_num(levels, nan=0.0).clip(0, 255).round().astype(np.uint8)


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

"""From a job's first pass to the start of its second: its latents scaled, or its pixels."""

from __future__ import annotations

from typing import Protocol

import torch

from lpw_sdxl.diffusion.decoder import Pixels
from lpw_sdxl.diffusion.enlarging import enlarge_latents
from lpw_sdxl.diffusion.offloader import Offloader
from lpw_sdxl.diffusion.start_encoder import StartEncoder, StartPicture, UnfinishedStart
from lpw_sdxl.engine.job import Job
from lpw_sdxl.engine.upscalers import ReadUpscaler, UpscalerNetworks
from lpw_sdxl.imaging.resizing import enlarge_pixels
from lpw_sdxl.second_pass import Upscaler
from lpw_sdxl.upscaling.network import UpscalerNetwork
from lpw_sdxl.upscaling.tiles import TiledPicture
from lpw_sdxl.upscaling.tiling import Tiling, usual_tiling

MOST_ENLARGINGS = 3  # of one picture by the same upscaler


class DecodeJob(Protocol):
    """Decodes a job whose pass is done."""

    def __call__(self, job: Job, *, in_tiles: bool = False) -> Pixels:
        """Decode it, in tiles where memory is short."""


class Enlarger:
    """The way between two passes; for the engine's thread.

    Args:
        starts: makes starts of the second pass.
        offloader: of the components.
        decode: the decoding stage.
        device: where upscalers work.
    """

    def __init__(
        self,
        starts: StartEncoder,
        offloader: Offloader,
        decode: DecodeJob,
        device: torch.device,
    ) -> None:
        self._starts = starts
        self._offloader = offloader
        self._decode = decode
        self._networks = UpscalerNetworks(device)

    def release_networks(self) -> None:
        """Free the memory of networks that no job is at."""
        self._networks.clear()

    def make_start(self, job: Job, *, in_tiles: bool = False) -> UnfinishedStart | None:
        """Make the start of a job's second pass, or enlarge a tile of it.

        Args:
            job: whose first pass is done.
            in_tiles: whether to decode in tiles, and to enlarge in smaller ones.

        Returns:
            None while tiles are left to enlarge.

        Raises:
            GenerationError: the first pass diverged.
        """
        assert job.denoising is not None
        enlargement, second = job.spec.enlargement, job.spec.request.hires
        assert enlargement is not None
        assert second is not None
        upscaler = second.built_in
        if upscaler is not None and upscaler.is_latent:
            latents = enlarge_latents(job.denoising.latents, enlargement, upscaler)
            return self._starts.begin_latents(latents, enlargement.size)
        if job.upscaler is None:
            assert upscaler is not None
            pixels = self._decode(job, in_tiles=in_tiles)
            larger = enlarge_pixels(pixels, enlargement, upscaler)
            return self._starts.begin_picture(StartPicture(larger))
        tiled = self._enlarge_tile(job, job.upscaler, in_tiles=in_tiles)
        if tiled is None:
            return None
        larger = enlarge_pixels(tiled, enlargement, Upscaler.LANCZOS)
        return self._starts.begin_picture(StartPicture(larger))

    def _enlarge_tile(self, job: Job, upscaler: ReadUpscaler, *, in_tiles: bool) -> Pixels | None:
        """Enlarge the next tile of a job's first pass; return all once it is the last one.

        Where the upscaler's scale is too small it works again on its result, as in A1111.
        """
        self._offloader.require("vae")  # its phase, and half of its turns are the UNet's
        if job.enlarging is None:
            pixels = self._decode(job, in_tiles=in_tiles)
            job.enlarging = self._cut(self._networks.get(upscaler), pixels)
            job.enlargings = 1
        elif in_tiles:
            job.enlarging = self._cut(job.enlarging.network, job.enlarging.pixels, is_small=True)
        job.enlarging.advance()
        if job.enlarging.done < job.enlarging.tiles:
            return None
        network, pixels = job.enlarging.network, job.enlarging.result
        assert job.spec.enlargement is not None
        covering = job.spec.enlargement.covering
        is_small = any(have < need for have, need in zip(pixels.shape, covering, strict=False))
        if is_small and network.design.scale > 1 and job.enlargings < MOST_ENLARGINGS:
            job.enlarging = self._cut(network, pixels)
            job.enlargings += 1
            return None
        return pixels

    @staticmethod
    def _cut(network: UpscalerNetwork, pixels: Pixels, *, is_small: bool = False) -> TiledPicture:
        """Cut a picture into the usual tiles, or into smaller ones where memory is short."""
        tiling = usual_tiling(network.design)
        if is_small:
            smaller = max(tiling.tile // 2, tiling.overlap * 3 // 2)
            tiling = Tiling(min(tiling.tile, smaller), tiling.overlap)
        return TiledPicture(network, pixels, tiling)

"""From a job's first pass to the start of its second: its latents scaled, or its pixels.

Pictures that stand for themselves are enlarged here too.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import torch

from lpw_sdxl.diffusion.decoder import Pixels
from lpw_sdxl.diffusion.enlarging import enlarge_latents
from lpw_sdxl.diffusion.offloader import Offloader
from lpw_sdxl.diffusion.start_encoder import StartEncoder, StartPicture, UnfinishedStart
from lpw_sdxl.engine.enlarging import Enlarging
from lpw_sdxl.engine.job import Job
from lpw_sdxl.engine.upscale_job import UpscaleJob
from lpw_sdxl.engine.upscalers import UpscalerNetworks
from lpw_sdxl.second_pass import Upscaler


class DecodeJob(Protocol):
    """Decodes a job whose pass is done."""

    def __call__(self, job: Job, *, in_tiles: bool = False) -> Pixels:
        """Decode it, in tiles where memory is short."""


class Enlarger:
    """The device's part of enlarging, and the thread that does the rest; for the engine's thread.

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
        # One, because a picture on its way takes up to half a gigabyte.
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="lpw-sdxl-resizer")

    def release_networks(self) -> None:
        """Free the memory of networks that no job is at."""
        self._networks.clear()

    def make_start(self, job: Job, *, in_tiles: bool = False) -> UnfinishedStart | None:
        """Make the start of a job's second pass, or come a part nearer to it.

        Pixels are decoded, enlarged in tiles by an imported upscaler, one tile at a time, and
        brought to their size in a thread, for whose end nothing here waits.

        Args:
            job: whose first pass is done.
            in_tiles: whether to decode in tiles, and to enlarge in smaller ones.

        Returns:
            None while it is not whole.

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
        enlarging = job.enlarging
        if enlarging is None:
            pixels = self._decode(job, in_tiles=in_tiles)
            kind = upscaler or Upscaler.LANCZOS
            job.enlarging = enlarging = Enlarging(pixels, enlargement, kind, job.upscaling)
        elif enlarging.wants_tile:
            self._offloader.require("vae")  # its phase, and half of its turns are the UNet's
            enlarging.advance(self._networks, in_small_tiles=in_tiles)
        elif enlarging.is_ready:
            return self._starts.begin_picture(StartPicture(enlarging.result))
        if not enlarging.wants_tile:
            enlarging.resize(self._threads)
        return None

    def begin(self, job: UpscaleJob) -> None:
        """Begin a picture that stands for itself: what needs no network is left to the thread."""
        job.begin(self._threads)

    def advance(self, job: UpscaleJob, *, in_tiles: bool = False) -> None:
        """Enlarge the next tile of a picture that stands for itself.

        Args:
            job: that has tiles left.
            in_tiles: whether memory is short, and tiles have to be smaller.

        Raises:
            GenerationError: the network gave numbers that are not finite.
        """
        self._offloader.require("vae")  # as above
        job.advance(self._networks, self._threads, in_small_tiles=in_tiles)

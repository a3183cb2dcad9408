"""The intake of requests: each becomes what its job needs, in threads, before it is queued.

Its prompts are read, its LoRAs' files opened, its pictures decoded. It knows no queue, no loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

from lpw_sdxl.addon.named_upscalers import find_imported
from lpw_sdxl.addon.registry import Registry
from lpw_sdxl.engine.hires import plan_between_passes
from lpw_sdxl.engine.job_spec import JobSpec
from lpw_sdxl.engine.offer import Offer
from lpw_sdxl.engine.picture_work import work_on_pictures
from lpw_sdxl.engine.reading import Coming, PictureMemory, Reading
from lpw_sdxl.engine.resolver import RequestResolver
from lpw_sdxl.engine.upscale_job import UpscaleSpec
from lpw_sdxl.engine.upscale_resolver import UpscaleResolver
from lpw_sdxl.engine.upscalers import NetworkUpscaling, ReadUpscaler, UpscalerFiles
from lpw_sdxl.imaging.picture import read_picture
from lpw_sdxl.imaging.resizing import Pixels
from lpw_sdxl.imaging.start_image import StartImage, read_start_image
from lpw_sdxl.lora.library import LoraLibrary, OpenLora
from lpw_sdxl.resting_pool import RestingPool
from lpw_sdxl.schema import GenerationRequest
from lpw_sdxl.upscale_request import UpscaleRequest

FILE_READERS = 2  # threads for LoRAs' files
SHORT_CHARACTERS = 4000  # of all prompts; reading them takes some milliseconds


@dataclass(frozen=True)
class TakenRequest:
    """A request that was checked, and what its job needs.

    Attributes:
        spec: of the job.
        files: of its LoRAs, open.
        picture: that it starts from; None for noise alone.
        upscaling: an imported upscaler's, between its passes; None where none is needed.
    """

    spec: JobSpec
    files: tuple[OpenLora, ...] = ()
    picture: StartImage | None = None
    upscaling: NetworkUpscaling | None = None

    @property
    def picture_bytes(self) -> int:
        """Count the bytes of its picture, decoded."""
        return 0 if self.picture is None else self.picture.nbytes


@dataclass(frozen=True)
class TakenUpscale:
    """A request to enlarge a picture that was checked, and its picture.

    Attributes:
        spec: of the job.
        pixels: of the picture, `[h, w, 3]`.
    """

    spec: UpscaleSpec
    pixels: Pixels

    @property
    def picture_bytes(self) -> int:
        """Count the bytes of its picture, decoded."""
        return self.pixels.nbytes


class Resolvers(NamedTuple):
    """The resolvers of requests, by what is asked for."""

    images: RequestResolver
    upscales: UpscaleResolver


class RequestIntake:
    """The reading of requests, for any number of callers at a time.

    Args:
        resolvers: of requests.
        reading: what all requests have in common.
        library: keeps the LoRAs' files.
    """

    def __init__(self, resolvers: Resolvers, reading: Reading, library: LoraLibrary) -> None:
        self._resolver, self._upscale_resolver = resolvers
        self._library = library
        self._reading = reading
        self._upscalers = UpscalerFiles()
        # Requests with short prompts wait for no long ones, of which one takes up to half a second.
        self._short_readers = ThreadPoolExecutor(1, thread_name_prefix="lpw-sdxl-short-reader")
        self._long_readers = RestingPool("lpw-sdxl-long-reader")
        self._file_readers = ThreadPoolExecutor(
            FILE_READERS, thread_name_prefix="lpw-sdxl-file-reader"
        )
        # One, because a picture takes up to 0.7 GB as long as it is decoded.
        self._picture_readers = ThreadPoolExecutor(1, thread_name_prefix="lpw-sdxl-picture-reader")

    async def take(
        self, request: GenerationRequest, accepted_at: float, memory: PictureMemory
    ) -> TakenRequest:
        """Check a request, open its LoRAs' files and decode its pictures.

        Args:
            request: with its pictures' files.
            accepted_at: when it came (time.monotonic).
            memory: counts the files; they are let go, and what was decoded counts in their place.

        Raises:
            RequestError: a limit is broken, a name unknown, or a picture can't be read.
            LoraUnavailableError: a LoRA's file can't be read.
            GenerationError: a picture's reading failed, or there was no memory for it.
            OverloadedError: the pictures of all requests leave no room for this one's.
            DeadlineError: a file was still being read when the request's time ran out.
            TimeLimitError: likewise, the server's.
        """
        coming = Coming(accepted_at, request.deadline_s)
        taken = await self._decide_and_hold(request, coming)
        if request.image is None:
            return taken
        limits = self._resolver.picture_limits
        read = partial(read_start_image, request, taken.spec.first.size, limits)
        reading = work_on_pictures(read, self._picture_readers)
        picture = await self._reading.in_time(reading, coming, "its picture was")
        memory.grow(picture.nbytes - len(request.image) - len(request.mask_image or b""))
        return replace(taken, picture=picture)

    async def take_upscale(
        self, request: UpscaleRequest, accepted_at: float, memory: PictureMemory
    ) -> TakenUpscale:
        """Check a request to enlarge a picture, read its upscaler, and decode the picture.

        Args:
            request: with its picture's file.
            accepted_at: when it came (time.monotonic).
            memory: as in `take`.

        Raises:
            RequestError: a limit is broken, a name unknown, or the picture can't be read.
            UpscalerUnavailableError: the upscaler's file can't be read.
            GenerationError: as in `take`.
            OverloadedError: likewise.
            DeadlineError: likewise.
            TimeLimitError: likewise.
        """
        coming = Coming(accepted_at, request.deadline_s)
        in_thread = asyncio.get_running_loop().run_in_executor

        async def find(offer: Offer) -> ReadUpscaler | None:
            if request.built_in is not None:
                return None
            addon = find_imported(offer.registry, request.upscaler, "upscaler")
            return await in_thread(self._file_readers, self._upscalers.read, addon)

        upscaler = await self._reading.with_offer(find, coming, "an upscaler's file was")
        spec = await in_thread(
            self._short_readers, self._upscale_resolver.resolve, request, upscaler
        )
        read = partial(read_picture, request.image, "image", self._resolver.picture_limits)
        reading = work_on_pictures(read, self._picture_readers)
        picture = await self._reading.in_time(reading, coming, "its picture was")
        memory.grow(picture.pixels.nbytes - len(request.image))
        return TakenUpscale(spec, picture.pixels)

    def close(self) -> None:
        """End the threads."""
        for threads in (
            self._short_readers,
            self._long_readers,
            self._file_readers,
            self._picture_readers,
        ):
            threads.shutdown(wait=False)

    async def _decide_and_hold(self, request: GenerationRequest, coming: Coming) -> TakenRequest:
        """Check a request, open its LoRAs' files and read its upscaler's."""
        in_thread = asyncio.get_running_loop().run_in_executor
        is_short = _prompt_characters(request) <= SHORT_CHARACTERS
        readers = self._short_readers if is_short else self._long_readers

        async def read(offer: Offer) -> TakenRequest:
            spec = await in_thread(readers, self._resolver.resolve, request, offer)
            upscaling = None
            if spec.upscaler is not None:
                upscaler = await in_thread(self._file_readers, self._upscalers.read, spec.upscaler)
                upscaling = plan_between_passes(spec, upscaler, self._upscale_resolver.room)
                self._resolver.check_cost(spec, upscaling.cost)
            if not spec.loras:
                return TakenRequest(spec, upscaling=upscaling)
            # Read here, a LoRA's file delays no other job.
            files = await in_thread(self._file_readers, self._hold, spec.loras, offer.registry)
            return TakenRequest(spec, files, upscaling=upscaling)

        return await self._reading.with_offer(read, coming, "a LoRA's or an upscaler's file was")

    def _hold(self, loras: Collection[str], registry: Registry) -> tuple[OpenLora, ...]:
        """Open the LoRAs' files and read them into the library, before the job is queued.

        Raises:
            LoraUnavailableError: one has changed, or can't be read.
        """
        return tuple(self._library.hold(registry.by_key[key]) for key in loras)


def _prompt_characters(request: GenerationRequest) -> int:
    """Count the characters of all prompts of a request."""
    second = request.hires
    more = () if second is None else (second.prompt or "", second.negative_prompt or "")
    return sum(map(len, (request.prompt, request.negative_prompt, *more)))

"""The intake of requests: each becomes what its job needs, in threads, before it is queued.

Its prompts are read, its LoRAs' files opened, its pictures decoded. It knows no queue, no loop.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, TypeVar, cast

from lpw_sdxl.addon.catalogue import Catalogue
from lpw_sdxl.addon.registry import Pending, Registry
from lpw_sdxl.engine.job_spec import JobSpec
from lpw_sdxl.engine.offer import Offers
from lpw_sdxl.engine.picture_work import work_on_pictures
from lpw_sdxl.engine.resolver import RequestResolver
from lpw_sdxl.engine.upscalers import ReadUpscaler, UpscalerFiles
from lpw_sdxl.errors import (
    AddonNotReadError,
    DeadlineError,
    LoraUnavailableError,
    OverloadedError,
    TimeLimitError,
)
from lpw_sdxl.imaging.start_image import StartImage, read_start_image
from lpw_sdxl.lora.library import LoraLibrary, OpenLora
from lpw_sdxl.resting_pool import RestingPool
from lpw_sdxl.schema import GenerationRequest
from lpw_sdxl.settings import Settings

T = TypeVar("T")

FILE_READERS = 2  # threads for LoRAs' files
RETRY_AFTER_READING_S = 5
MOST_TRIES = 5  # of a request whose LoRA is replaced each time between its look-up and its reading
SHORT_CHARACTERS = 4000  # of all prompts; reading them takes some milliseconds


class PictureMemory(Protocol):
    """The memory that counts the bytes of requests' pictures."""

    def grow(self, size: int) -> None:
        """Count so many bytes more, or fewer where that is negative.

        Raises:
            OverloadedError: there is no room for them.
        """


class Uncounted:
    """The memory of a caller in Python, which holds the pictures anyway."""

    def grow(self, size: int) -> None:
        """Count nothing."""


UNCOUNTED = Uncounted()


@dataclass(frozen=True)
class TakenRequest:
    """A request that was checked, and what its job needs.

    Attributes:
        spec: of the job.
        files: of its LoRAs, open.
        picture: that it starts from; None for noise alone.
        upscaler: between its passes; None where none is needed.
    """

    spec: JobSpec
    files: tuple[OpenLora, ...] = ()
    picture: StartImage | None = None
    upscaler: ReadUpscaler | None = None

    @property
    def picture_bytes(self) -> int:
        """Count the bytes of its picture, decoded."""
        return 0 if self.picture is None else self.picture.nbytes


class RequestIntake:
    """The reading of requests, for any number of callers at a time.

    Args:
        resolver: of requests.
        offers: of LoRAs and embeddings.
        catalogue: which the offers follow.
        library: keeps the LoRAs' files.
        settings: the source of the limits.
    """

    def __init__(
        self,
        resolver: RequestResolver,
        offers: Offers,
        catalogue: Catalogue,
        library: LoraLibrary,
        settings: Settings,
    ) -> None:
        self._resolver = resolver
        self._offers = offers
        self._catalogue = catalogue
        self._library = library
        self._settings = settings
        self._upscalers = UpscalerFiles()
        self._waiting_for_files = 0  # requests
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
        taken = await self._decide_and_hold(request, accepted_at)
        if request.image is None:
            return taken
        limits = self._resolver.picture_limits
        read = partial(read_start_image, request, taken.spec.first.size, limits)
        reading = work_on_pictures(read, self._picture_readers)
        picture = await self._in_time(reading, request, accepted_at, "its picture was")
        memory.grow(picture.nbytes - len(request.image) - len(request.mask_image or b""))
        return replace(taken, picture=picture)

    def close(self) -> None:
        """End the threads."""
        for threads in (
            self._short_readers,
            self._long_readers,
            self._file_readers,
            self._picture_readers,
        ):
            threads.shutdown(wait=False)

    async def _decide_and_hold(
        self, request: GenerationRequest, accepted_at: float
    ) -> TakenRequest:
        """Check a request and open its LoRAs' files, once more where one changes meanwhile."""
        in_thread = asyncio.get_running_loop().run_in_executor
        is_short = _prompt_characters(request) <= SHORT_CHARACTERS
        readers = self._short_readers if is_short else self._long_readers
        tries = 0
        while True:
            offer = self._offers.current
            try:
                spec = await in_thread(readers, self._resolver.resolve, request, offer)
                upscaler = None
                if spec.upscaler is not None:
                    read = self._upscalers.read
                    upscaler = await in_thread(self._file_readers, read, spec.upscaler)
                if not spec.loras:
                    return TakenRequest(spec, upscaler=upscaler)
                # Read here, a LoRA's file delays no other job.
                files = await in_thread(self._file_readers, self._hold, spec.loras, offer.registry)
                return TakenRequest(spec, files, upscaler=upscaler)
            except AddonNotReadError as error:
                await self._wait_until_read(cast("Pending", error.pending), request, accepted_at)
            except LoraUnavailableError:
                tries += 1
                await in_thread(self._file_readers, self._catalogue.look)
                if self._offers.current.registry is offer.registry or tries == MOST_TRIES:
                    raise

    def _hold(self, loras: Collection[str], registry: Registry) -> tuple[OpenLora, ...]:
        """Open the LoRAs' files and read them into the library, before the job is queued.

        Raises:
            LoraUnavailableError: one has changed, or can't be read.
        """
        return tuple(self._library.hold(registry.by_key[key]) for key in loras)

    async def _wait_until_read(
        self, pending: Pending, request: GenerationRequest, accepted_at: float
    ) -> None:
        """Wait until a LoRA's file is read, at most as long as the request may take.

        Raises:
            OverloadedError: a quarter of the queue's places wait for files already.
            DeadlineError: it takes longer than the request's own limit.
            TimeLimitError: it takes longer than the server's.
        """
        if self._waiting_for_files >= max(1, self._settings.max_queued_jobs // 4):
            raise OverloadedError(
                "too many requests wait for LoRAs that are still being read on this server",
                retry_after_s=RETRY_AFTER_READING_S,
            )
        self._waiting_for_files += 1
        try:
            reading = asyncio.wrap_future(pending.when_read())
            await self._in_time(reading, request, accepted_at, "a LoRA's file was")
        finally:
            self._waiting_for_files -= 1

    async def _in_time(
        self, reading: Awaitable[T], request: GenerationRequest, accepted_at: float, what: str
    ) -> T:
        """Wait for what is being read, at most as long as the request may take.

        Raises:
            DeadlineError: it takes longer than the request's own limit.
            TimeLimitError: it takes longer than the server's.
        """
        own = math.inf if request.deadline_s is None else request.deadline_s
        limit_s = min(self._settings.time_limit_s, own)
        try:
            return await asyncio.wait_for(reading, accepted_at + limit_s - time.monotonic())
        except TimeoutError:
            message = f"{what} still being read when the time for this image ran out"
            if limit_s == own:
                raise DeadlineError(message, field="deadline_s") from None
            raise TimeLimitError(message) from None


def _prompt_characters(request: GenerationRequest) -> int:
    """Count the characters of all prompts of a request."""
    second = request.hires
    more = () if second is None else (second.prompt or "", second.negative_prompt or "")
    return sum(map(len, (request.prompt, request.negative_prompt, *more)))

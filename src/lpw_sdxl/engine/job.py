"""A request inside the engine, and its image."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import NamedTuple

from lpw_sdxl.conditioning.scheduled import ScheduledConditioning
from lpw_sdxl.diffusion.decoder import Pixels
from lpw_sdxl.diffusion.solver import NoiseSupply
from lpw_sdxl.diffusion.start_encoder import UnfinishedStart
from lpw_sdxl.diffusion.step import Denoising
from lpw_sdxl.engine.cost import ENCODING_ROWS, Work, step_cost
from lpw_sdxl.engine.job_spec import JobSpec, PassSpec
from lpw_sdxl.engine.policy import JobView, StepKey
from lpw_sdxl.engine.progress import ImageProgress, Listener
from lpw_sdxl.engine.upscalers import ReadUpscaler
from lpw_sdxl.errors import DeadlineError, LpwSdxlError, TimeLimitError
from lpw_sdxl.imaging import ImageRecord, encode_image
from lpw_sdxl.imaging.start_image import StartImage, Surroundings
from lpw_sdxl.lora.library import OpenLora
from lpw_sdxl.schema import ImageSize
from lpw_sdxl.upscaling.tiles import TiledPicture

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class GeneratedImage:
    """A finished image, not yet encoded.

    Attributes:
        pixels: uint8, `[height, width, 3]`.
        record: how it was made, with the seed that was drawn or requested.
    """

    pixels: Pixels
    record: ImageRecord

    @property
    def size(self) -> ImageSize:
        """Return the size of the pixels; of a repainted part, that of the whole picture."""
        return ImageSize(*self.pixels.shape[:2])

    @property
    def seed(self) -> int:
        """Return the seed that makes this image again."""
        return self.record.seed

    def put_into(self, surroundings: Surroundings) -> GeneratedImage:
        """Return the picture of which this is a repainted part; CPU work for a worker thread."""
        return replace(self, pixels=surroundings.put_back(self.pixels))

    def encode(self) -> bytes:
        """Encode to the requested format; CPU work for a worker thread."""
        return encode_image(self.pixels, self.record.request.image_format, self.record)


class QueuePlace(NamedTuple):
    """A place among the jobs that wait.

    Attributes:
        before: jobs that wait and came earlier.
        wait_s: expected until the job begins, seconds; None before the first UNet call of all.
    """

    before: int
    wait_s: float | None


class Job:
    """One request from its acceptance to its image; only the loop's thread changes it.

    Args:
        spec: of the image.
        accepted_at: when the request came (time.monotonic); its time limits count from then.
        time_limit_s: the server's own limit on any request.
        listener: of its progress.
        files: of its LoRAs, kept open until it is done.

    Attributes:
        future: resolves to a GeneratedImage or to one of our errors; cancelling it drops the job
            at the next step.
        upscaler: an imported one, read; None where none is needed.
        enlarging: its first pass's picture, while an imported upscaler enlarges it in tiles.
        picture: that it starts from, set before it is queued; None for noise alone, and once it is
            encoded.
        conditionings: its prompts, encoded, by pass; empty until then.
        start: what it is to denoise, partly made or whole; None until its prompts are encoded.
        noises: that can be drawn ahead, by pass; None where there is none.
        denoising: of the current pass; None until its start is made.
        served: device time that it has had, as policy.JobView counts it.
        begun_at: when it left the queue (time.monotonic); None until then.
        place: where it waits, as the queue last noted it; None before that.
        is_stopped: whether its owner wants the image as far as it is; any thread may set it.
    """

    def __init__(
        self,
        spec: JobSpec,
        accepted_at: float,
        time_limit_s: float = math.inf,
        listener: Listener | None = None,
        files: Sequence[OpenLora] = (),
    ) -> None:
        self.spec = spec
        self.picture: StartImage | None = None
        self.upscaler: ReadUpscaler | None = None
        self.enlarging: TiledPicture | None = None
        self.enlargings = 0  # begun
        self.conditionings: dict[int, ScheduledConditioning] = {}
        self.start: UnfinishedStart | None = None
        self.noises: list[NoiseSupply | None] = [None] * len(spec.passes)
        self.pass_index = 0
        self._files = files
        self.accepted_at = accepted_at
        self.listener = listener
        self.future: Future[GeneratedImage] = Future()
        self.denoising: Denoising | None = None
        self.served = 0.0
        self.begun_at: float | None = None
        self.place: QueuePlace | None = None
        self.is_stopped = False
        self._answering = threading.Lock()
        self._is_answered = False  # guarded by _answering
        own = spec.request.deadline_s
        self._has_own_deadline = own is not None and own <= time_limit_s
        limit_s = min(time_limit_s, math.inf if own is None else own)
        self._deadline = accepted_at + limit_s
        self._chunks = sum(text.chunk_count for text in spec.texts)

    @property
    def current(self) -> PassSpec:
        """Return the pass that it is in."""
        return self.spec.passes[self.pass_index]

    @property
    def size(self) -> ImageSize:
        """Return the size at which it is denoised now, pixels."""
        return self.current.size

    @property
    def is_in_last_pass(self) -> bool:
        """Return whether no other pass follows."""
        return self.pass_index == len(self.spec.passes) - 1

    @property
    def ends_with_pass(self) -> bool:
        """Return whether its image is that of the pass that it is in."""
        return self.is_in_last_pass or self.is_stopped

    @property
    def is_denoised(self) -> bool:
        """Return whether its pass has no UNet call left, or it is stopped and was in one."""
        if self.denoising is None:
            return False
        return self.denoising.is_done or (self.is_stopped and self._calls_done > 0)

    @property
    def calls_done(self) -> int:
        """Count its UNet calls so far, of all passes."""
        before = sum(one.calls for one in self.spec.passes[: self.pass_index])
        return before + self._calls_done

    @property
    def is_enlarged_by_pixels(self) -> bool:
        """Return whether its picture is decoded and enlarged before its next pass."""
        second = self.spec.request.hires
        if second is None or self.is_in_last_pass:
            return False
        return second.built_in is None or not second.built_in.is_latent

    @property
    def view(self) -> JobView:
        """Build the job's view for the policy."""
        key, loras = StepKey(self.size), self.current.loras.unet
        later = self.spec.passes[self.pass_index + 1 :]
        later_key = StepKey(later[0].size) if later else None
        return JobView(key, self.rows, self.served, self._chunks, loras, later_key)

    @property
    def rows(self) -> int:
        """Count its rows of the next UNet call; before a pass is stepped, of the largest."""
        return self.current.rows if self.denoising is None else self.denoising.row_count

    @property
    def start_cost(self) -> float:
        """Compute the cost of what is left to encode of pictures, in megapixels of UNet rows."""
        has_picture = self.spec.record.picture is not None or self.pass_index > 0
        is_left = has_picture and self.denoising is None
        cost = step_cost(self.size, ENCODING_ROWS) if is_left else 0.0
        if not self.is_enlarged_by_pixels:
            return cost
        return cost + step_cost(self.spec.size, ENCODING_ROWS)

    @property
    def work(self) -> Work:
        """Compute the work that is left, in UNet calls of the job's own."""
        later = self.spec.passes[self.pass_index + 1 :]
        cost = self.current.cost_left(self._calls_done) + sum(one.cost_left(0) for one in later)
        return Work(self.spec.unet_calls - self.calls_done, cost + self.start_cost)

    def shared_work(self, max_rows: int) -> Work:
        """Compute the work that is left, as its share of UNet calls of `max_rows` rows."""
        later = self.spec.passes[self.pass_index + 1 :]
        rows = self.current.rows_left(self._calls_done) + sum(one.rows_left(0) for one in later)
        return Work(rows / max_rows, self.work.cost)

    @property
    def _calls_done(self) -> int:
        return 0 if self.denoising is None else self.denoising.unet_calls_done

    @property
    def is_encoded(self) -> bool:
        """Return whether its prompts are encoded."""
        return self.start is not None or self.denoising is not None or self.pass_index > 0

    @property
    def is_waiting_for_picture(self) -> bool:
        """Return whether its prompts are encoded, and its picture is not."""
        return self.start is not None and self.denoising is None

    def begin_next_pass(self, start: UnfinishedStart) -> None:
        """Leave the pass that is done for the next one, which has this start."""
        self.pass_index += 1
        self.denoising = self.enlarging = self.upscaler = None
        self.start = start

    def release_start(self) -> None:
        """Drop what only the making of its denoising needed."""
        self.picture = self.start = self.noises[self.pass_index] = None
        self.conditionings.pop(self.pass_index, None)

    @property
    def is_cancelled(self) -> bool:
        """Return whether the caller has cancelled it."""
        return self.future.cancelled()

    def seconds_left(self, now: float) -> float:
        """Compute the seconds that are left for it at `now` (time.monotonic)."""
        return self._deadline - now

    def is_late(self, now: float) -> bool:
        """Return whether its time has run out at `now` (time.monotonic)."""
        return now > self._deadline

    def is_cancelled_or_late(self, now: float) -> bool:
        """Return whether it is cancelled, or late at `now` (time.monotonic)."""
        return self.is_cancelled or self.is_late(now)

    def late_error(self, message: str) -> LpwSdxlError:
        """Build the error for a late job: by the request's own limit or by the server's."""
        if self._has_own_deadline:
            return DeadlineError(message, field="deadline_s")
        return TimeLimitError(message)

    def report(self, progress: ImageProgress) -> None:
        """Report progress to the listener; log an error of its own and drop it."""
        if self.listener is None:
            return
        try:
            self.listener.on_progress(progress)
        except Exception:
            logger.exception("a listener to an image's progress failed")
            self.listener = None

    def finish(self, pixels: Pixels) -> None:
        """Answer with the image, unless the job is cancelled or answered already."""
        if self._claim():
            self.future.set_result(GeneratedImage(pixels, self.spec.record))

    def fail(self, error: Exception) -> None:
        """Answer with an error, unless the job is cancelled or answered already."""
        # The frames that an error passed through hold tensors; its message is all a caller needs.
        error.with_traceback(None)
        error.__context__ = error.__cause__ = None
        if self._claim():
            self.future.set_exception(error)

    def _claim(self) -> bool:
        """Return whether this call may answer: of the loop and the watchdog, only the first may."""
        with self._answering:
            if self._is_answered:
                return False
            self._is_answered = True
        return self.future.set_running_or_notify_cancel()

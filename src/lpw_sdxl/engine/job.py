"""A request inside the engine, and its image."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

from lpw_sdxl.conditioning.read_schedule import ReadSchedule
from lpw_sdxl.conditioning.scheduled import ScheduledConditioning
from lpw_sdxl.diffusion.decoder import Pixels
from lpw_sdxl.diffusion.solver import NoiseSupply, SolverPlan
from lpw_sdxl.diffusion.start_encoder import UnfinishedStart
from lpw_sdxl.diffusion.step import Denoising, Guidance
from lpw_sdxl.engine.cost import ENCODING_ROWS, Work, step_cost
from lpw_sdxl.engine.policy import JobView, StepKey
from lpw_sdxl.engine.progress import ImageProgress, Listener
from lpw_sdxl.errors import DeadlineError, LpwSdxlError, TimeLimitError
from lpw_sdxl.imaging import ImageRecord, encode_image
from lpw_sdxl.imaging.start_image import StartImage, Surroundings
from lpw_sdxl.lora.library import OpenLora
from lpw_sdxl.lora.sets import NO_LORA_SETS, LoraSets
from lpw_sdxl.schema import GenerationRequest, ImageSize

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


@dataclass(frozen=True)
class JobSpec:
    """A request with everything decided that it left open.

    Attributes:
        record: the request, and the seed, size and scheduler decided for it.
        prompts: the prompt and negative prompt over the UNet calls, read.
        plan: of its sampler.
        loras: of the UNet and of the text encoders.
    """

    record: ImageRecord
    prompts: ReadSchedule
    plan: SolverPlan
    loras: LoraSets = NO_LORA_SETS

    @property
    def request(self) -> GenerationRequest:
        """Return the request."""
        return self.record.request

    @property
    def size(self) -> ImageSize:
        """Return the image's size, pixels."""
        return self.record.size

    @property
    def unet_calls(self) -> int:
        """Count the UNet calls in all; some samplers make nearly two a step."""
        return self.plan.calls

    @property
    def guidance(self) -> Guidance:
        """Return the request's guidance."""
        request = self.request
        interval = request.guidance_interval
        return Guidance(
            request.guidance_scale,
            request.guidance_rescale,
            None if interval is None else (interval[0], interval[1]),
        )

    def rows_of(self, call: int) -> int:
        """Count the rows of a UNet call by its index: the parts, and one more with guidance."""
        prompts = self.prompts
        is_guided = self.guidance.is_active(call, self.unet_calls, has_weights=prompts.has_weights)
        return prompts.part_count + is_guided

    @cached_property
    def rows(self) -> int:
        """Count the rows of the largest of its UNet calls."""
        return max(map(self.rows_of, range(self.unet_calls)))

    @cached_property
    def _rows_before(self) -> tuple[int, ...]:
        """List the rows of all calls before each, and behind the last."""
        return tuple(accumulate(map(self.rows_of, range(self.unet_calls)), initial=0))

    def rows_left(self, calls_done: int) -> int:
        """Count the rows of all UNet calls that are left."""
        return self._rows_before[-1] - self._rows_before[calls_done]


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
        picture: that it starts from, set before it is queued; None for noise alone, and once it is
            encoded.
        conditioning: its prompts, encoded; None until then, and once it is stepped.
        start: what it is to denoise, partly made or whole; None until its prompts are encoded.
        noise: that can be drawn ahead for it; None where there is none.
        denoising: None until its start is made.
        served: device time that it has had, as policy.JobView counts it.
        begun_at: when it left the queue (time.monotonic); None until then.
        place: where it waits, as the queue last noted it; None before that.
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
        self.conditioning: ScheduledConditioning | None = None
        self.start: UnfinishedStart | None = None
        self.noise: NoiseSupply | None = None
        self._files = files
        self.accepted_at = accepted_at
        self.listener = listener
        self.future: Future[GeneratedImage] = Future()
        self.denoising: Denoising | None = None
        self.served = 0.0
        self.begun_at: float | None = None
        self.place: QueuePlace | None = None
        self._answering = threading.Lock()
        self._is_answered = False  # guarded by _answering
        own = spec.request.deadline_s
        self._has_own_deadline = own is not None and own <= time_limit_s
        limit_s = min(time_limit_s, math.inf if own is None else own)
        self._deadline = accepted_at + limit_s
        self._key = StepKey(spec.size)
        self._chunks = sum(text.chunk_count for text in spec.prompts.texts)

    @property
    def view(self) -> JobView:
        """Build the job's view for the policy."""
        return JobView(self._key, self.rows, self.served, self._chunks, self.spec.loras.unet)

    @property
    def rows(self) -> int:
        """Count its rows of the next UNet call; before it is stepped, of the largest."""
        return self.spec.rows if self.denoising is None else self.denoising.row_count

    @property
    def start_cost(self) -> float:
        """Compute the cost of what is left to encode of its picture, in megapixels of UNet rows."""
        has_picture = self.spec.record.picture is not None
        is_left = has_picture and self.denoising is None
        return step_cost(self.spec.size, ENCODING_ROWS) if is_left else 0.0

    @property
    def work(self) -> Work:
        """Compute the work that is left, in UNet calls of the job's own."""
        done = 0 if self.denoising is None else self.denoising.unet_calls_done
        calls = self.spec.unet_calls - done
        cost = step_cost(self.spec.size, self.spec.rows_left(done)) + self.start_cost
        return Work(calls, cost)

    def shared_work(self, max_rows: int) -> Work:
        """Compute the work that is left, as its share of UNet calls of `max_rows` rows."""
        work = self.work
        done = self.spec.unet_calls - int(work.calls)
        return Work(self.spec.rows_left(done) / max_rows, work.cost)

    @property
    def is_encoded(self) -> bool:
        """Return whether its prompts are encoded."""
        return self.start is not None or self.denoising is not None

    @property
    def is_waiting_for_picture(self) -> bool:
        """Return whether its prompts are encoded, and its picture is not."""
        return self.start is not None and self.denoising is None

    def release_start(self) -> None:
        """Drop what only the making of its denoising needed."""
        self.picture = self.conditioning = self.start = self.noise = None

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

"""A request inside the engine, and the image that it becomes."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from lpw_sdxl.conditioning.read_prompts import ReadPrompts
from lpw_sdxl.diffusion.decoder import Pixels
from lpw_sdxl.diffusion.step import Denoising, Guidance
from lpw_sdxl.engine.cost import Work, step_cost
from lpw_sdxl.engine.policy import Standing, StepKey
from lpw_sdxl.errors import DeadlineError, LpwSdxlError, TimeLimitError
from lpw_sdxl.imaging import ImageRecord, encode_image
from lpw_sdxl.lora.sets import NOWHERE, LoraSets
from lpw_sdxl.schema import GenerationRequest

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class GeneratedImage:
    """A finished image, not yet encoded.

    Attributes:
        pixels: uint8, `[height, width, 3]`.
        record: how it was made, with the seed that was drawn or asked for.
    """

    pixels: Pixels
    record: ImageRecord

    @property
    def seed(self) -> int:
        """Give the seed that makes this image again."""
        return self.record.seed

    def encode(self) -> bytes:
        """Encode to the format that was asked for; CPU work for a worker thread."""
        return encode_image(self.pixels, self.record.request.image_format, self.record)


@dataclass(frozen=True)
class JobSpec:
    """A request with everything decided that it left open.

    Attributes:
        record: the request, and the seed, size and scheduler decided for it.
        prompts: the prompt and negative prompt, read.
        unet_calls: that its steps make; some schedulers make nearly two a step.
        loras: that the networks have for it.
    """

    record: ImageRecord
    prompts: ReadPrompts
    unet_calls: int
    loras: LoraSets = NOWHERE

    @property
    def request(self) -> GenerationRequest:
        """Give what was asked."""
        return self.record.request

    @property
    def guidance(self) -> Guidance:
        """Give the request's guidance."""
        return Guidance(self.request.guidance_scale, self.request.guidance_rescale)

    @property
    def rows(self) -> int:
        """Count the UNet rows of each call: one, or two with guidance."""
        return 2 if self.guidance.is_active else 1


@dataclass(frozen=True)
class Progress:
    """How far one image is.

    Attributes:
        call: UNet calls made for it.
        calls: that it takes in all; some schedulers make nearly two a step.
        preview: a small picture of what it is becoming, uint8 `[height/8, width/8, 3]`; None where
            none was asked for.
    """

    call: int
    calls: int
    preview: Pixels | None = None


@dataclass(frozen=True)
class Listener:
    """Who wants to know how far an image is.

    Attributes:
        hear: called in the engine's thread after each of the image's UNet calls: it must return at
            once, and an error of its own is logged and goes no further.
        wants_previews: a preview costs a little at each call.
    """

    hear: Callable[[Progress], None]
    wants_previews: bool = False


class Job:
    """One request from its acceptance to its image; only the loop's thread changes it.

    Args:
        spec: what to make.
        accepted_at: when the request came (time.monotonic); its time counts from then.
        time_limit_s: the server's own limit on any request.
        listener: who wants to hear of its progress.

    Attributes:
        future: resolves to a GeneratedImage or to one of our errors; cancelling it drops the job
            at the next step.
        denoising: None until its prompt is encoded.
        served: device time it has had, as policy.Standing counts it.
    """

    def __init__(
        self,
        spec: JobSpec,
        accepted_at: float,
        time_limit_s: float = math.inf,
        listener: Listener | None = None,
    ) -> None:
        self.spec = spec
        self.accepted_at = accepted_at
        self.listener = listener
        self.future: Future[GeneratedImage] = Future()
        self.denoising: Denoising | None = None
        self.served = 0.0
        self._answering = threading.Lock()
        self._is_answered = False  # guarded by _answering
        own = spec.request.deadline_s
        self._has_own_deadline = own is not None and own <= time_limit_s
        limit_s = min(time_limit_s, math.inf if own is None else own)
        self._deadline = accepted_at + limit_s
        self._key = StepKey(spec.record.size)
        self._chunks = sum(text.chunk_count for text in spec.prompts.texts)

    @property
    def standing(self) -> Standing:
        """Tell the policy what it needs to know."""
        return Standing(self._key, self.spec.rows, self.served, self._chunks, self.spec.loras.unet)

    @property
    def step_cost(self) -> float:
        """Say what one UNet call costs for it, megapixels of rows."""
        return step_cost(self.spec.record.size, self.spec.rows)

    @property
    def work(self) -> Work:
        """Say what is still to be done for it, in calls of its own."""
        done = 0 if self.denoising is None else self.denoising.step_index
        calls = self.spec.unet_calls - done
        return Work(calls, calls * self.step_cost)

    def shared_work(self, max_rows: int) -> Work:
        """Say what is still to be done for it, where calls of `max_rows` rows are full."""
        work = self.work
        return Work(work.calls * self.spec.rows / max_rows, work.cost)

    @property
    def is_cancelled(self) -> bool:
        """Tell whether whoever asked has gone."""
        return self.future.cancelled()

    def seconds_left(self, now: float) -> float:
        """Say how long it may still take at `now` (time.monotonic)."""
        return self._deadline - now

    def is_late(self, now: float) -> bool:
        """Tell whether its time has run out at `now` (time.monotonic)."""
        return now > self._deadline

    def is_over(self, now: float) -> bool:
        """Tell whether whoever asked has gone, or its time has run out at `now`."""
        return self.is_cancelled or self.is_late(now)

    def late_error(self, why: str) -> LpwSdxlError:
        """Say by whose limit it is late: the request's own or the server's."""
        if self._has_own_deadline:
            return DeadlineError(why, field="deadline_s")
        return TimeLimitError(why)

    def tell(self, progress: Progress) -> None:
        """Tell the listener; it can't spoil anything."""
        if self.listener is None:
            return
        try:
            self.listener.hear(progress)
        except Exception:
            logger.exception("whoever listens to an image's progress failed")
            self.listener = None

    def finish(self, pixels: Pixels) -> None:
        """Hand the image over, unless whoever asked has gone or has an answer already."""
        if self._claim():
            self.future.set_result(GeneratedImage(pixels, self.spec.record))

    def fail(self, error: Exception) -> None:
        """Hand an error over, unless whoever asked has gone or has an answer already."""
        # The frames that an error passed through hold tensors; who awaits it needs its words only.
        error.with_traceback(None)
        error.__context__ = error.__cause__ = None
        if self._claim():
            self.future.set_exception(error)

    def _claim(self) -> bool:
        """Become the one who answers; the loop and the watchdog may both want to."""
        with self._answering:
            if self._is_answered:
                return False
            self._is_answered = True
        return self.future.set_running_or_notify_cancel()

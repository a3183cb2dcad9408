"""A request inside the engine, and the image that it becomes."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass
from typing import NamedTuple

from lpw_sdxl.diffusion.decoder import Pixels
from lpw_sdxl.diffusion.step import Denoising, Guidance
from lpw_sdxl.engine.policy import NEVER, Standing, StepKey
from lpw_sdxl.imaging import ImageRecord, encode_image
from lpw_sdxl.prompt import Prompt
from lpw_sdxl.schema import GenerationRequest


class PromptTexts(NamedTuple):
    """A job's parsed prompt and negative prompt."""

    prompt: Prompt
    negative_prompt: Prompt


class TextCount(NamedTuple):
    """How long one prompt is: tokens of its text, and the chunks that hold them."""

    tokens: int
    chunks: int


class TextCounts(NamedTuple):
    """The lengths of a job's prompts."""

    prompt: TextCount
    negative_prompt: TextCount


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
        prompts: the parsed prompt and negative prompt.
        counts: how long they are.
    """

    record: ImageRecord
    prompts: PromptTexts
    counts: TextCounts

    @property
    def request(self) -> GenerationRequest:
        """Give what was asked."""
        return self.record.request

    @property
    def guidance(self) -> Guidance:
        """Give the request's guidance."""
        return Guidance(self.request.guidance_scale, self.request.guidance_rescale)


class Job:
    """One request from its acceptance to its image; only the loop's thread changes it.

    Args:
        spec: what to make.
        accepted_at: when the request came (time.monotonic); its `deadline_s` counts from then.

    Attributes:
        future: resolves to a GeneratedImage or to one of our errors; cancelling it drops the job
            at the next step.
        denoising: None until its prompt is encoded.
        last_step: number of the UNet call it was last in.
    """

    def __init__(self, spec: JobSpec, accepted_at: float) -> None:
        self.spec = spec
        self.future: Future[GeneratedImage] = Future()
        self.denoising: Denoising | None = None
        self.last_step = NEVER
        deadline_s = spec.request.deadline_s
        self._deadline = None if deadline_s is None else accepted_at + deadline_s

    @property
    def standing(self) -> Standing:
        """Tell the policy what it needs to know."""
        rows = 2 if self.spec.guidance.is_active else 1
        chunks = sum(count.chunks for count in self.spec.counts)
        return Standing(StepKey(self.spec.record.size), rows, self.last_step, chunks)

    @property
    def is_cancelled(self) -> bool:
        """Tell whether whoever asked has gone."""
        return self.future.cancelled()

    def is_late(self, now: float) -> bool:
        """Tell whether the request's own deadline has passed at `now` (time.monotonic)."""
        return self._deadline is not None and now > self._deadline

    def finish(self, pixels: Pixels) -> None:
        """Hand the image over, unless whoever asked has gone."""
        if self.future.set_running_or_notify_cancel():
            self.future.set_result(GeneratedImage(pixels, self.spec.record))

    def fail(self, error: Exception) -> None:
        """Hand an error over, unless whoever asked has gone."""
        # The frames that an error passed through hold tensors; who awaits it needs its words only.
        error.with_traceback(None)
        error.__context__ = error.__cause__ = None
        if self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)

"""A request inside the engine, and its image."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from lpw_sdxl.conditioning.scheduled import ScheduledConditioning
from lpw_sdxl.diffusion.decoder import Pixels
from lpw_sdxl.diffusion.solver import NoiseSupply
from lpw_sdxl.diffusion.start_encoder import UnfinishedStart
from lpw_sdxl.diffusion.step import Denoising
from lpw_sdxl.engine.cost import ENCODING_ROWS, Work, step_cost
from lpw_sdxl.engine.enlarging import Enlarging
from lpw_sdxl.engine.job_spec import JobSpec, PassSpec
from lpw_sdxl.engine.policy import JobView, StepKey
from lpw_sdxl.engine.progress import Listener
from lpw_sdxl.engine.queued_job import QueuedJob, TimeLimits
from lpw_sdxl.engine.upscalers import NetworkUpscaling
from lpw_sdxl.imaging import ImageRecord, encode_image
from lpw_sdxl.imaging.start_image import StartImage, Surroundings
from lpw_sdxl.lora.library import OpenLora
from lpw_sdxl.schema import ImageSize


@dataclass(frozen=True)
class GeneratedImage:
    """A finished image, not yet encoded.

    Attributes:
        pixels: uint8, `[height, width, 3]`.
        record: how it was made, with the seed that was drawn or requested.
        surroundings: of which this is a repainted part; None where it is whole.
    """

    pixels: Pixels
    record: ImageRecord
    surroundings: Surroundings | None = None

    @property
    def size(self) -> ImageSize:
        """Return the size of the pixels; of a repainted part, that of the whole picture."""
        return ImageSize(*self.pixels.shape[:2])

    @property
    def seed(self) -> int:
        """Return the seed that makes this image again."""
        return self.record.seed

    def put_back(self) -> GeneratedImage:
        """Return the whole picture; of a repainted part, CPU work for a worker thread."""
        if self.surroundings is None:
            return self
        pixels = self.surroundings.put_back(self.pixels)
        return replace(self, pixels=pixels, surroundings=None)

    def encode(self) -> bytes:
        """Encode to the requested format; CPU work for a worker thread."""
        return encode_image(self.pixels, self.record.request.image_format, self.record)


class Job(QueuedJob[GeneratedImage]):
    """One image from its request's acceptance to its pixels.

    Args:
        spec: of the image.
        accepted_at: when the request came (time.monotonic); its time limits count from then.
        time_limit_s: the server's own limit on any request.
        listener: of its progress.
        files: of its LoRAs, kept open until it is done.

    Attributes:
        upscaling: by an imported upscaler, between its passes; None where none is needed.
        enlarging: its first pass's picture, from its decoding to the second pass's size.
        picture: that it starts from, set before it is queued; None for noise alone, and once it is
            encoded.
        conditionings: its prompts, encoded, by pass; empty until then.
        start: what it is to denoise, partly made or whole; None until its prompts are encoded.
        noises: that can be drawn ahead, by pass; None where there is none.
        surroundings: that its image is put back into; None for none.
        draw_ahead: asks threads for noise.
        denoising: of the current pass; None until its start is made.
        takes_unfinished: whether its caller takes the image as far as it is.
        is_stopped: whether its owner wants that.
    """

    def __init__(
        self,
        spec: JobSpec,
        accepted_at: float,
        time_limit_s: float = math.inf,
        listener: Listener | None = None,
        files: Sequence[OpenLora] = (),
    ) -> None:
        own_s = spec.request.deadline_s
        super().__init__(TimeLimits(accepted_at, time_limit_s, own_s), listener)
        self.spec = spec
        self.picture: StartImage | None = None
        self.upscaling: NetworkUpscaling | None = None
        self.enlarging: Enlarging | None = None
        self.conditionings: dict[int, ScheduledConditioning] = {}
        self.start: UnfinishedStart | None = None
        self.noises: list[NoiseSupply | None] = [None] * len(spec.passes)
        self.pass_index = 0
        self._files = files
        self.surroundings: Surroundings | None = None
        self.draw_ahead: Callable[[NoiseSupply], None] = lambda _: None
        self.denoising: Denoising | None = None
        self.takes_unfinished = self.is_stopped = False
        self._chunks = sum(text.chunk_count for text in spec.texts)

    @property
    def current(self) -> PassSpec:
        """Return the pass that it is in."""
        return self.spec.passes[self.pass_index]

    @property
    def calls(self) -> int:
        """Count the UNet calls of all its passes."""
        return self.spec.unet_calls

    @property
    def steps(self) -> int:
        """Count the denoising steps of all its passes."""
        return self.spec.steps

    @property
    def most_rows(self) -> int:
        """Count the rows of the largest of its UNet calls."""
        return self.spec.rows

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
    def is_resizing(self) -> bool:
        """Return whether all that it waits for is a picture's resizing in a thread."""
        return self.enlarging is not None and self.enlarging.is_resizing

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
        denoising = self.denoising  # as in `_calls_done`
        return self.current.rows if denoising is None else denoising.row_count

    @property
    def first_cost(self) -> float:
        """Compute the cost of its next UNet call, megapixels of rows."""
        return step_cost(self.size, self.rows)

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
    def tile_cost(self) -> float:
        """Compute the cost of what an imported upscaler has left to do, as in `Work.tiles`."""
        upscaling, enlarging = self.upscaling, self.enlarging
        if upscaling is None:
            return 0.0
        return upscaling.cost if enlarging is None else enlarging.tile_cost

    @property
    def work(self) -> Work:
        """Compute the work that is left, in UNet calls of the job's own."""
        later = self.spec.passes[self.pass_index + 1 :]
        cost = self.current.cost_left(self._calls_done) + sum(one.cost_left(0) for one in later)
        calls = self.spec.unet_calls - self.calls_done
        return Work(calls, cost + self.start_cost, self.tile_cost)

    def shared_work(self, max_rows: int) -> Work:
        """Compute the work that is left, as its share of UNet calls of `max_rows` rows."""
        later = self.spec.passes[self.pass_index + 1 :]
        rows = self.current.rows_left(self._calls_done) + sum(one.rows_left(0) for one in later)
        return self.work._replace(calls=rows / max_rows)

    @property
    def _calls_done(self) -> int:
        denoising = self.denoising  # another thread may ask while this one is left
        return 0 if denoising is None else denoising.unet_calls_done

    @property
    def is_encoded(self) -> bool:
        """Return whether its prompts are encoded."""
        return self.start is not None or self.denoising is not None or self.pass_index > 0

    @property
    def is_waiting_for_picture(self) -> bool:
        """Return whether its prompts are encoded, and its picture is not."""
        return self.start is not None and self.denoising is None

    def prepare(self) -> None:
        """Request its noise from threads while it waits."""
        for noise in self.noises:
            if noise is not None:
                self.draw_ahead(noise)

    def begin_next_pass(self, start: UnfinishedStart) -> None:
        """Leave the pass that is done for the next one, which has this start."""
        # In this order, for another thread that asks meanwhile how many calls are left.
        self.denoising = None
        self.pass_index += 1
        self.enlarging = self.upscaling = None
        self.start = start

    def release_start(self) -> None:
        """Drop what only the making of its denoising needed."""
        self.picture = self.start = self.noises[self.pass_index] = None
        self.conditionings.pop(self.pass_index, None)

    def stop(self) -> bool:
        """End it with the image as far as it is, if it has begun and its caller takes that."""
        self.is_stopped = self.takes_unfinished and self.begun_at is not None
        return self.is_stopped

    def finish(self, pixels: Pixels) -> None:
        """Answer with the image, unless the job is cancelled or answered already."""
        self.answer(GeneratedImage(pixels, self.spec.record, self.surroundings))

    def release(self) -> None:
        """Drop a picture that is to be resized in a thread."""
        if self.enlarging is not None:
            self.enlarging.release()

"""A job as it was decided before it was accepted: its passes, each denoised at one size."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from lpw_sdxl.addon.registry import Addon
from lpw_sdxl.conditioning.read_prompts import ReadText
from lpw_sdxl.conditioning.read_schedule import ReadSchedule
from lpw_sdxl.diffusion.solver import SolverPlan
from lpw_sdxl.diffusion.step import Guidance
from lpw_sdxl.engine.cost import step_cost
from lpw_sdxl.imaging import ImageRecord
from lpw_sdxl.lora.sets import NO_LORA_SETS, LoraSets
from lpw_sdxl.schema import GenerationRequest, ImageSize
from lpw_sdxl.second_pass import Enlargement


@dataclass(frozen=True)
class PassSpec:
    """One pass of a job.

    Attributes:
        prompts: the prompt and negative prompt over the UNet calls, read.
        plan: of its sampler.
        guidance: by the negative prompt.
        loras: of the UNet and of the text encoders.
    """

    prompts: ReadSchedule
    plan: SolverPlan
    guidance: Guidance
    loras: LoraSets = NO_LORA_SETS

    @property
    def size(self) -> ImageSize:
        """Return the size at which it denoises, pixels."""
        return self.plan.size

    @property
    def calls(self) -> int:
        """Count its UNet calls; some samplers make nearly two a step."""
        return self.plan.calls

    def rows_of(self, call: int) -> int:
        """Count the rows of a UNet call by its index: the parts, and one more with guidance."""
        prompts = self.prompts
        is_guided = self.guidance.is_active(call, self.calls, has_weights=prompts.has_weights)
        return prompts.part_count + is_guided

    @cached_property
    def rows(self) -> int:
        """Count the rows of the largest of its UNet calls."""
        return max(map(self.rows_of, range(self.calls)))

    @cached_property
    def _rows_before(self) -> tuple[int, ...]:
        """List the rows of all calls before each, and behind the last."""
        return tuple(accumulate(map(self.rows_of, range(self.calls)), initial=0))

    def rows_left(self, calls_done: int) -> int:
        """Count the rows of all UNet calls that are left."""
        return self._rows_before[-1] - self._rows_before[calls_done]

    def cost_left(self, calls_done: int) -> float:
        """Compute the cost of all UNet calls that are left, megapixels of rows."""
        return step_cost(self.size, self.rows_left(calls_done))


@dataclass(frozen=True)
class JobSpec:
    """A request with everything decided that it left open.

    Attributes:
        record: the request, and the seed, size and scheduler decided for it.
        passes: over the image, in order; at least one.
        enlargement: from the first pass to the second; None where there is one pass.
        upscaler: an imported one, between the passes; None where none is needed.
    """

    record: ImageRecord
    passes: tuple[PassSpec, ...]
    enlargement: Enlargement | None = None
    upscaler: Addon | None = None

    @property
    def request(self) -> GenerationRequest:
        """Return the request."""
        return self.record.request

    @property
    def first(self) -> PassSpec:
        """Return the first pass."""
        return self.passes[0]

    @property
    def size(self) -> ImageSize:
        """Return the size of the finished image, pixels."""
        return self.passes[-1].size

    @property
    def unet_calls(self) -> int:
        """Count the UNet calls of all passes."""
        return sum(one.calls for one in self.passes)

    @property
    def steps(self) -> int:
        """Count the denoising steps of all passes."""
        return sum(one.plan.steps for one in self.passes)

    @property
    def rows(self) -> int:
        """Count the rows of the largest of its UNet calls."""
        return max(one.rows for one in self.passes)

    @property
    def cost(self) -> float:
        """Compute the cost of all UNet calls, megapixels of rows."""
        return sum(one.cost_left(0) for one in self.passes)

    @property
    def texts(self) -> tuple[ReadText, ...]:
        """Return the texts of all passes, each once."""
        return tuple({text: None for one in self.passes for text in one.prompts.texts})

    @property
    def loras(self) -> frozenset[str]:
        """Return the keys of all LoRAs that any pass uses."""
        return frozenset(
            key
            for one in self.passes
            for loras in (one.loras.unet, one.loras.text_encoders)
            for key, _ in loras
        )

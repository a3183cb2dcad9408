"""One pass of a job: what is denoised at one size, decided before the job is accepted."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from lpw_sdxl.conditioning.read_schedule import ReadSchedule
from lpw_sdxl.diffusion.solver import SolverPlan
from lpw_sdxl.diffusion.step import Guidance
from lpw_sdxl.engine.cost import step_cost
from lpw_sdxl.lora.sets import NO_LORA_SETS, LoraSets
from lpw_sdxl.schema import ImageSize


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

"""One image's steps: its rows of each UNet call, guidance, its sampler's step.

Every row of a call has its own timestep, guidance, prompt length and sampler; only the latents'
size is shared. It knows nothing of queues, requests or HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from lpw_sdxl.conditioning.scheduled import ConditionedStage, ScheduledConditioning, TextRow
from lpw_sdxl.diffusion.latents import size_embedding
from lpw_sdxl.diffusion.noise import copy_to_device
from lpw_sdxl.diffusion.solver import NoiseSupply, SolverPlan
from lpw_sdxl.diffusion.start import NoiseStart, Start
from lpw_sdxl.lora.sets import NO_LORAS, LoraSet

# A longer prompt is projected in every call: kept keys and values are 0.33 MB a token in float16 at
# SDXL's size, for each row.
MAX_KEPT_TOKENS = 308
MIN_TOTAL_WEIGHT = 1e-6  # of parts whose mean is taken


@dataclass(frozen=True)
class Guidance:
    """The extent to which predictions are moved from the negative prompt towards the prompt.

    Attributes:
        scale: classifier-free guidance (arXiv 2207.12598); 1 or less needs no negative row where
            there is one part of weight 1.
        rescale: share of the standard deviation to restore, 0 to 1 (arXiv 2305.08891, 3.4).
        interval: the share of the UNet calls from which and the one before which there is guidance
            (arXiv 2404.07724); None for all.
    """

    scale: float
    rescale: float = 0.0
    interval: tuple[float, float] | None = None

    def is_active(self, call: int, calls: int, *, has_weights: bool = False) -> bool:
        """Return whether a UNet call needs the negative prompt.

        Args:
            call: its index.
            calls: of the image in all.
            has_weights: whether the prompt has several parts, or one whose weight is not 1.
        """
        if self.interval is not None and not self.interval[0] <= call / calls < self.interval[1]:
            return False
        return has_weights or self.scale > 1.0


class Denoising:
    """The denoising of one image, from its start to its final latents.

    Args:
        conditioning: the encoded prompts over the calls.
        guidance: by the negative prompt.
        plan: of the image's sampler.
        device: where it runs.
        loras: of the UNet.
        start: what is denoised.
        noise: of the plan; None has it drawn here.

    Attributes:
        size: pixels.
        unet_calls_done: so far; some samplers make nearly two calls a step.
    """

    def __init__(
        self,
        *,
        conditioning: ScheduledConditioning,
        guidance: Guidance,
        plan: SolverPlan,
        device: torch.device,
        loras: LoraSet = NO_LORAS,
        start: Start = NoiseStart(),  # noqa: B008 - frozen
        noise: NoiseSupply | None = None,
    ) -> None:
        self.guidance = guidance
        self.size = plan.size
        self.unet_calls_done = 0
        self._plan = plan
        self._solver = plan.begin(start, device, noise)
        self._time_ids = copy_to_device(size_embedding(plan.size), device)
        self._conditioning = conditioning
        self._sides = PromptSides(loras)

    @property
    def latents(self) -> torch.Tensor:
        """Return the latents, float32 on the device, `[1, 4, height/8, width/8]`."""
        return self._solver.latents

    @property
    def denoised(self) -> torch.Tensor:
        """Return the estimate of the final latents where there is one, else the latents."""
        return self._solver.denoised

    @property
    def unet_calls(self) -> int:
        """Count this image's UNet calls in all, those done included."""
        return self._plan.calls

    @property
    def is_done(self) -> bool:
        """Return whether no UNet call is left."""
        return self.unet_calls_done >= self.unet_calls

    @property
    def timestep(self) -> torch.Tensor:
        """Return the timestep of the next UNet call, a scalar on the CPU."""
        return self._solver.timestep

    @property
    def row_count(self) -> int:
        """Count this image's rows of the next UNet call."""
        return len(self._stage.parts) + self._is_guided

    def rows(self) -> list[UnetRow]:
        """Build this image's rows of the next UNet call: the negative one, if any, the parts."""
        latents, timestep = self._solver.model_input(), self._solver.timestep
        if self._solver.shown is not None:
            latents = torch.cat([latents, self._solver.shown], dim=1)
        sides = self._sides.of(self._stage.rows(is_guided=self._is_guided))
        return [UnetRow(latents, timestep, side, self._time_ids) for side in sides]

    def advance(self, predictions: torch.Tensor) -> None:
        """Take the sampler's step that follows a UNet call.

        Args:
            predictions: the UNet's output for this image's rows, `[rows, 4, h, w]`.
        """
        weights = self._stage.weights
        self._solver.advance(
            guide(predictions.float(), self.guidance, weights, has_negative=self._is_guided)
        )
        self.unet_calls_done += 1

    @property
    def _stage(self) -> ConditionedStage:
        return self._conditioning.at(self._plan.prompt_step(self.unet_calls_done))

    @property
    def _is_guided(self) -> bool:
        """Return whether the next UNet call needs the negative prompt."""
        return self.guidance.is_active(
            self.unet_calls_done, self.unet_calls, has_weights=self._stage.has_weights
        )


@dataclass(frozen=True)
class UnetRow:
    """One row of a UNet call: one image's line, with its prompt or its negative prompt."""

    latents: torch.Tensor  # [1, 4, h, w], or [1, 9, h, w] with what an inpainting UNet sees
    timestep: torch.Tensor  # scalar, CPU
    prompt: PromptSide
    time_ids: torch.Tensor  # [6]


class PromptSide:
    """A job's prompt or negative prompt, as an argument of the UNet.

    Attributes:
        embeds: `[tokens, 2048]`.
        pooled: `[1280]`.
        loras: of the UNet for this row.
    """

    def __init__(
        self, embeds: torch.Tensor, pooled: torch.Tensor, loras: LoraSet = NO_LORAS
    ) -> None:
        self.embeds = embeds
        self.pooled = pooled
        self.loras = loras
        self._projected: torch.Tensor | None = None

    @property
    def tokens(self) -> int:
        """Count the prompt's tokens, padding included."""
        return len(self.embeds)

    @property
    def is_projected(self) -> bool:
        """Return whether `project_once` was called."""
        return self._projected is not None

    def project_once(self, project: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """Return the embeds' projection, `[tokens, width]`; `project` is called once at most."""
        if self._projected is None:
            self._projected = project(self.embeds)
        return self._projected


class PromptSides:
    """The texts of one image as arguments of the UNet, each once.

    Projections of texts that were in force are kept for when they are again, as long as all of
    them together are no longer than those of one call may be.

    Args:
        loras: of the UNet.
    """

    def __init__(self, loras: LoraSet) -> None:
        self._loras = loras
        self._sides: dict[TextRow, PromptSide] = {}

    def of(self, rows: Sequence[TextRow]) -> list[PromptSide]:
        """Return the sides of the texts in force."""
        for row in rows:
            # The last in force stand at the end.
            side = self._sides.pop(row, None)
            self._sides[row] = side or self._make(row)
        room = MAX_KEPT_TOKENS * len(rows)
        for row, side in reversed([*self._sides.items()]):
            room -= side.tokens
            if room < 0 and row not in rows:
                del self._sides[row]
        return [self._sides[row] for row in rows]

    def _make(self, row: TextRow) -> PromptSide:
        text = row.text.lengthened(row.tokens)
        return PromptSide(text.embeds, text.pooled, self._loras)


def guide(
    predictions: torch.Tensor,
    guidance: Guidance,
    weights: Sequence[float] = (1.0,),
    *,
    has_negative: bool,
) -> torch.Tensor:
    """Combine an image's rows into one prediction.

    Args:
        predictions: of the negative prompt, if there is one, and of the parts: `[rows, 4, h, w]`.
        guidance: its scale, and its rescale (arXiv 2305.08891, equations 14 to 16).
        weights: of the parts. Guidance adds each part's distance from the negative prompt, times
            its weight (A1111's AND, after arXiv 2206.01714); without it, theirs is the mean.
        has_negative: whether the first row is the negative prompt's.

    Returns:
        `[1, 4, h, w]`.
    """
    parts = predictions[1:] if has_negative else predictions
    if not has_negative:
        return _weighted_mean(parts, weights)
    negative = predictions[0:1]
    guided = negative
    for part, weight in zip(parts.split(1), weights, strict=True):
        guided = guided + weight * guidance.scale * (part - negative)
    if guidance.rescale > 0:
        positive = _weighted_mean(parts, weights)
        over_image = tuple(range(1, guided.ndim))
        positive_deviation = positive.std(dim=over_image, keepdim=True)
        rescaled = guided * (positive_deviation / guided.std(dim=over_image, keepdim=True))
        guided = guidance.rescale * rescaled + (1 - guidance.rescale) * guided
    return guided


def _weighted_mean(parts: torch.Tensor, weights: Sequence[float]) -> torch.Tensor:
    """Compute the weighted mean of predictions, `[n, 4, h, w]`; of one it is that one.

    Weights that cancel each other out have no mean: then all count alike.
    """
    if len(weights) == 1:
        return parts
    shares = torch.tensor(weights)
    total = shares.sum()
    shares = (
        shares / total
        if total.abs() > MIN_TOTAL_WEIGHT
        else torch.full_like(shares, 1 / len(shares))
    )
    return (parts * copy_to_device(shares, parts.device)[:, None, None, None]).sum(0, keepdim=True)

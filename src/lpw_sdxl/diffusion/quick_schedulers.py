"""Two Diffusers schedulers whose `step` would wait: their factors are computed on the CPU.

Their results are those of Diffusers, which tests compare. It knows nothing of names or jobs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from diffusers import LMSDiscreteScheduler, UniPCMultistepScheduler


class UniPCScheduler(UniPCMultistepScheduler):  # type: ignore[misc]  # Diffusers has no types
    """UniPC (arXiv 2302.04867) without a wait for the device.

    Diffusers moves a dozen single numbers to the device at every step and solves a linear system
    there, and the thread waits for each. Both of its updates are linear in the latents and in the
    earlier predictions, so here they are run on the CPU over unit vectors, which gives each
    tensor's factor; the device only adds the scaled tensors up.
    """

    model_outputs: list[torch.Tensor | None]  # the latest last, None where there is none yet

    def multistep_uni_p_bh_update(
        self,
        model_output: torch.Tensor,  # noqa: ARG002 - by now it is the last of `model_outputs`
        *,
        sample: torch.Tensor,
        order: int,
    ) -> torch.Tensor:
        """Predict the next latents, `[1, 4, h, w]`."""
        update = super().multistep_uni_p_bh_update
        return self._combine(
            [sample], lambda unit: update(model_output=unit, sample=unit, order=order)
        )

    def multistep_uni_c_bh_update(
        self,
        this_model_output: torch.Tensor,
        *,
        last_sample: torch.Tensor,
        this_sample: torch.Tensor,  # noqa: ARG002 - only its device matters, and it is the CPU
        order: int,
    ) -> torch.Tensor:
        """Correct the latents that the last step predicted, `[1, 4, h, w]`."""
        update = super().multistep_uni_c_bh_update
        return self._combine(
            [this_model_output, last_sample],
            lambda output, last: update(
                this_model_output=output, last_sample=last, this_sample=last, order=order
            ),
        )

    def _combine(
        self, tensors: Sequence[torch.Tensor], update: Callable[..., torch.Tensor]
    ) -> torch.Tensor:
        """Run a linear update on unit vectors to get the factors, then add the scaled tensors up.

        Args:
            tensors: the arguments of `update`, which reads `self.model_outputs` besides.
            update: takes one argument for each of `tensors`.
        """
        outputs = self.model_outputs
        known = [output for output in outputs if output is not None]
        units = torch.eye(len(tensors) + len(known), dtype=torch.float64).split(1)
        self.model_outputs = [None] * (len(outputs) - len(known)) + [*units[len(tensors) :]]
        try:
            factors = update(*units[: len(tensors)])[0].tolist()
        finally:
            self.model_outputs = outputs
        first, *rest = (
            factor * tensor for factor, tensor in zip(factors, [*tensors, *known], strict=True)
        )
        return sum(rest, start=first)


class LMSScheduler(LMSDiscreteScheduler):  # type: ignore[misc]  # Diffusers has no types
    """The linear multistep method, with a step that takes a tenth of the time.

    Diffusers integrates the Lagrange polynomials with an adaptive quadrature over tensors, 3 ms a
    step in which no other job is stepped. They are cubic at most, and for cubics Gauss's rule of
    two points is exact.
    """

    def get_lms_coefficient(self, order: int, t: int, current_order: int) -> float:
        """Integrate one Lagrange polynomial over a step.

        Args:
            order: earlier derivatives in use, 1 to 4.
            t: index of the step.
            current_order: index of the polynomial, 0 for the latest derivative.
        """
        start, end = self.sigmas[t : t + 2].tolist()
        nodes = self.sigmas[t - order + 1 : t + 1].flip(0).tolist()
        own = nodes.pop(current_order)
        middle, half = (start + end) / 2, (end - start) / 2
        return half * sum(
            math.prod((point - node) / (own - node) for node in nodes)
            for point in (middle - half / math.sqrt(3), middle + half / math.sqrt(3))
        )

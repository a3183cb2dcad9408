"""Which scheduler can sample which model in how many steps; what can't is refused, not bent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lpw_sdxl.diffusion.schedulers import knows_zero_snr
from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.scheduler_table import SCHEDULERS, SchedulerName


def supported_schedulers(config: Mapping[str, Any]) -> list[SchedulerName]:
    """List the schedulers that can sample a model, by its scheduler config."""
    return [name for name in SchedulerName if _obstacle(name, config) is None]


def check_scheduler(
    name: SchedulerName, config: Mapping[str, Any], num_inference_steps: int
) -> None:
    """Refuse a scheduler that would make another picture than the model's, or none.

    Args:
        name: which one.
        config: the model's own scheduler config.
        num_inference_steps: denoising steps.

    Raises:
        InvalidRequestError: naming `scheduler` or `num_inference_steps`, and what would be right.
    """
    if obstacle := _obstacle(name, config):
        able = ", ".join(supported_schedulers(config))
        raise InvalidRequestError(
            f"scheduler {name} can't sample this model, {obstacle}; these can: {able}",
            field="scheduler",
        )
    if num_inference_steps > (most := SCHEDULERS[name].max_steps):
        raise InvalidRequestError(
            f"num_inference_steps is {num_inference_steps}; scheduler {name} takes at most {most}",
            field="num_inference_steps",
        )


def _obstacle(name: SchedulerName, config: Mapping[str, Any]) -> str | None:
    """Say what of a model a scheduler can't honour, or None."""
    recipe = SCHEDULERS[name]
    prediction = config["prediction_type"]
    has_zero_snr = config.get("rescale_betas_zero_snr", False)
    if prediction not in recipe.predictions:
        return f"which predicts {prediction}"
    if has_zero_snr and not knows_zero_snr(name):
        return "which has zero terminal SNR"
    if has_zero_snr and recipe.divides_by_alpha and prediction == "epsilon":
        return "which predicts epsilon with zero terminal SNR"
    return None

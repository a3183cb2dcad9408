from __future__ import annotations

from typing import Any

import pytest
import torch

from lpw_sdxl.diffusion.schedulers import SCHEDULERS, make_scheduler, own_scheduler
from lpw_sdxl.schema import SchedulerName

CONFIG: dict[str, Any] = {
    "_class_name": "EulerDiscreteScheduler",
    "_diffusers_version": "0.42.1",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "interpolation_type": "linear",
    "use_karras_sigmas": False,
}


def test_every_name_has_a_scheduler() -> None:
    assert set(SCHEDULERS) == set(SchedulerName)


@pytest.mark.parametrize("name", list(SchedulerName))
@pytest.mark.parametrize("steps", [1, 2, 7, 30])
def test_a_scheduler_takes_the_steps_it_was_asked_for(name: SchedulerName, steps: int) -> None:
    scheduler = make_scheduler(name, CONFIG, steps)
    assert len(scheduler.timesteps) == steps
    latents = torch.ones(1, 4, 2, 2) * scheduler.init_noise_sigma
    for timestep in scheduler.timesteps:
        model_input = scheduler.scale_model_input(latents, timestep)
        latents = scheduler.step(
            0.1 * model_input,
            timestep,
            latents,
            generator=torch.Generator().manual_seed(0),
            return_dict=False,
        )[0]
    assert latents.isfinite().all()


@pytest.mark.parametrize("name", list(SchedulerName))
def test_the_model_decides_betas_and_prediction(name: SchedulerName) -> None:
    config: Any = make_scheduler(name, CONFIG | {"prediction_type": "v_prediction"}, 4).config
    assert config.prediction_type == "v_prediction"
    assert (config.beta_start, config.beta_schedule) == (0.00085, "scaled_linear")


def test_ddim_does_not_clip() -> None:
    scheduler: Any = make_scheduler(SchedulerName.DDIM, CONFIG, 4)
    assert scheduler.config.clip_sample is False


def test_karras_sigmas_differ_from_the_plain_ones() -> None:
    plain: Any = make_scheduler(SchedulerName.DPMPP_2M, CONFIG, 8)
    karras: Any = make_scheduler(SchedulerName.DPMPP_2M_KARRAS, CONFIG, 8)
    assert not torch.allclose(plain.sigmas, karras.sigmas)


def test_the_models_own_scheduler_is_named() -> None:
    assert own_scheduler(CONFIG) is SchedulerName.EULER

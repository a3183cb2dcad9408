from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLImg2ImgPipeline

from lpw_sdxl.diffusion.latents import seeded_generator
from lpw_sdxl.diffusion.noise import BrownianNoise, StepResult, TakeStep, bind_step
from lpw_sdxl.diffusion.scheduler_rules import (
    check_scheduler,
    choose_schedule_type,
    supported_schedulers,
)
from lpw_sdxl.diffusion.schedulers import (
    make_scheduler,
    own_schedule_type,
    own_scheduler,
    unet_calls,
)
from lpw_sdxl.errors import InvalidRequestError, ModelError
from lpw_sdxl.schedule_types import ScheduleType
from lpw_sdxl.scheduler_table import SCHEDULERS, SchedulerName
from stock_schedulers import NOT_TAKEN, OWN_TIMESTEPS, STOCK_SCHEDULERS, TAKEN, stock_scheduler
from waiting import Waited, guarded_against_waiting

CONFIG: dict[str, Any] = {
    "_class_name": "EulerDiscreteScheduler",
    "_diffusers_version": "0.42.1",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "rescale_betas_zero_snr": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "interpolation_type": "linear",
    "use_karras_sigmas": False,
}
VELOCITY = CONFIG | {"prediction_type": "v_prediction", "timestep_spacing": "trailing"}
CONFIGS = {
    "epsilon": CONFIG,
    "v": VELOCITY,
    "v with zero SNR": VELOCITY | {"rescale_betas_zero_snr": True},
    "epsilon with zero SNR": CONFIG
    | {"timestep_spacing": "trailing", "rescale_betas_zero_snr": True},
}
SUPPORTED = [
    pytest.param(config, name, id=f"{kind}-{name}")
    for kind, config in CONFIGS.items()
    for name in supported_schedulers(config)
]
NOISY = [
    SchedulerName.EULER_ANCESTRAL,
    SchedulerName.DPMPP_2M_SDE,
    SchedulerName.DPMPP_2M_SDE_KARRAS,
    SchedulerName.DPMPP_3M_SDE,
    SchedulerName.DPMPP_3M_SDE_KARRAS,
    SchedulerName.DPMPP_SDE,
    SchedulerName.DPMPP_SDE_KARRAS,
    SchedulerName.LCM,
    SchedulerName.TCD,
]
Predict = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def fixed(model_input: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
    """A UNet that depends on all it is given."""
    return torch.tanh(model_input) * 0.7 + timestep.float() / 3000


def run(
    scheduler: Any,
    predict: Predict = fixed,
    seed: int = 0,
    device: str = "cpu",
    between: Callable[[], object] = lambda: None,
    bind: Callable[..., TakeStep] = bind_step,
) -> torch.Tensor:
    """Denoise as `Denoising` does, from noise that does not depend on the seed."""
    noise = torch.randn(1, 4, 4, 3, generator=seeded_generator(99)).to(device)
    latents = noise * scheduler.init_noise_sigma
    take_step = bind(scheduler, seeded_generator(seed), latents)
    for timestep in scheduler.timesteps:
        between()
        model_input = scheduler.scale_model_input(latents, timestep)
        latents = take_step(predict(model_input, timestep), timestep, latents).latents
    return latents


def bind_stock(scheduler: Any, generator: torch.Generator, latents: torch.Tensor) -> TakeStep:
    """Step the way that a pipeline of Diffusers does."""
    takes_generator = "generator" in inspect.signature(scheduler.step).parameters
    keywords = {"generator": generator} if takes_generator else {}

    def take_step(*arguments: torch.Tensor) -> StepResult:
        latents = scheduler.step(*arguments, **keywords, return_dict=False)[0]
        return StepResult(latents, latents)

    return take_step


def test_every_name_has_a_scheduler_and_a_stock_one() -> None:
    assert set(SCHEDULERS) == set(SchedulerName) == set(STOCK_SCHEDULERS)


# "trailing" spacing of Diffusers has a timestep too many at 61, 103, 121, 122, 201 and 769 steps.
STEPS = [*range(1, 31), 50, 61, 99, 100, 103, 121, 122, 149, 150, 201, 769, 998]
STEPS_OF_A_TYPE = [1, 2, 4, 7, 20, 61, 103]


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("name", "schedule_type"), [*TAKEN, *((name, None) for name in SCHEDULERS)]
)
def test_unet_calls_are_counted_and_timesteps_fall(
    name: SchedulerName, schedule_type: ScheduleType | None
) -> None:
    lengths = STEPS if schedule_type is None else STEPS_OF_A_TYPE
    for steps in (steps for steps in lengths if steps <= SCHEDULERS[name].max_steps):
        scheduler: Any = make_scheduler(name, CONFIG, steps, schedule_type)
        timesteps = scheduler.timesteps
        assert len(timesteps) == unet_calls(name, steps)
        assert 0 <= timesteps.min() <= timesteps.max() <= 999
        assert (timesteps.diff() <= 0).all()
        if hasattr(scheduler, "sigmas"):
            assert len(scheduler.sigmas) == len(timesteps) + 1


# In floating point 50 * 0.58 is just below 29, which Diffusers rounds down.
SHARES = [(10, 0.7, 7), (50, 0.58, 28), (20, 0.04, 0), (20, 0.05, 1), (7, 0.999, 6), (1, 1.0, 1)]


@pytest.mark.parametrize(("steps", "strength", "left"), [*SHARES, (5, 0.0, 0), (30, 0.75, 22)])
@pytest.mark.parametrize("name", list(SchedulerName))
def test_unet_calls_of_a_part_of_the_steps_are_those_of_diffusers(
    name: SchedulerName, steps: int, strength: float, left: int
) -> None:
    pipeline = StableDiffusionXLImg2ImgPipeline(
        *[None] * 6, scheduler=stock_scheduler(name, CONFIG, 0)
    )
    pipeline.scheduler.set_timesteps(steps)
    timesteps, steps_left = pipeline.get_timesteps(steps, strength, "cpu")
    assert steps_left == left
    assert unet_calls(name, steps, strength) == len(timesteps)


@pytest.mark.thorough
@pytest.mark.parametrize(("config", "name"), SUPPORTED)
@pytest.mark.parametrize("steps", [1, 2, 3, 14, 15, 33, 50, 61])
def test_exact_predictions_lead_to_the_image(
    name: SchedulerName, config: dict[str, Any], steps: int
) -> None:
    """For a UNet whose predictions are exact every solver is exact, of whatever prediction type."""
    steps = min(steps, SCHEDULERS[name].max_steps)
    scheduler: Any = make_scheduler(name, config, steps)
    image = torch.randn(1, 4, 4, 3, generator=seeded_generator(3)) * 0.8
    alphas = scheduler.alphas_cumprod.double().numpy()

    def predict(model_input: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        alpha = max(np.interp(float(timestep), np.arange(1000), alphas), 1e-9)
        signal, noise_share = alpha**0.5, (1 - alpha) ** 0.5
        noise = (model_input - signal * image) / noise_share
        velocity = signal * noise - noise_share * image
        return (noise if config["prediction_type"] == "epsilon" else velocity).float()

    latents = run(scheduler, predict)
    assert latents.isfinite().all()
    # DDIM ends at the first timestep and not at no noise, and TCD adds noise on its way there. A
    # single step of DDIM with "leading" spacing begins there too, and takes all noise for a little.
    if (steps, name) != (1, SchedulerName.DDIM):
        assert (latents - image).abs().max() <= 0.15


@pytest.mark.thorough
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
@pytest.mark.parametrize("name", [SchedulerName.UNIPC, SchedulerName.LMS, SchedulerName.LMS_KARRAS])
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 20, 77])
def test_factors_computed_on_the_cpu_give_what_diffusers_computes(
    name: SchedulerName, steps: int, config: dict[str, Any]
) -> None:
    if name not in supported_schedulers(config):
        config = config | {"rescale_betas_zero_snr": False}
    stock = stock_scheduler(name, config, seed=0)
    stock.set_timesteps(steps)
    expected = run(stock, bind=bind_stock)
    latents = run(make_scheduler(name, config, steps))
    torch.testing.assert_close(latents, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", list(SchedulerName))
@pytest.mark.parametrize("config", [CONFIG, VELOCITY], ids=["epsilon", "v"])
def test_the_model_decides_betas_and_prediction(
    name: SchedulerName, config: dict[str, Any]
) -> None:
    made: Any = make_scheduler(name, config, 4).config
    for key in ("prediction_type", "beta_start", "beta_end", "beta_schedule"):
        assert made[key] == config[key]


def test_ddim_does_not_clip() -> None:
    scheduler: Any = make_scheduler(SchedulerName.DDIM, CONFIG, 4)
    assert scheduler.config.clip_sample is False


@pytest.mark.parametrize(
    "karras", [name for name in SchedulerName if name.endswith("Karras")], ids=str
)
def test_karras_sigmas_differ_from_the_plain_ones(karras: SchedulerName) -> None:
    plain = SchedulerName(karras.removesuffix(" Karras"))
    schedulers: list[Any] = [make_scheduler(name, CONFIG, 8) for name in (plain, karras)]
    assert not torch.allclose(*(scheduler.sigmas for scheduler in schedulers))


# Schedule types


FEW = range(1, 21)


def test_euler_begins_where_each_type_says() -> None:
    timesteps = {
        (kind, steps): make_scheduler(SchedulerName.EULER, CONFIG, steps, kind).timesteps.tolist()
        for kind in ScheduleType
        for steps in (1, 4)
    }
    assert timesteps == {
        (ScheduleType.LEADING, 1): [1],
        (ScheduleType.LEADING, 4): [751, 501, 251, 1],
        (ScheduleType.TRAILING, 1): [999],
        (ScheduleType.TRAILING, 4): [999, 749, 499, 249],
        (ScheduleType.LINSPACE, 1): [0],
        (ScheduleType.LINSPACE, 4): [999, 666, 333, 0],
    }


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["epsilon", "v with zero SNR"])
@pytest.mark.parametrize(("name", "schedule_type"), TAKEN)
def test_a_types_timesteps_are_diffusers_own_whatever_the_models_type(
    name: SchedulerName, schedule_type: ScheduleType, kind: str
) -> None:
    others = [own for own in ScheduleType if own is not schedule_type]
    for steps in FEW:
        model = CONFIGS[kind] | {"timestep_spacing": others[steps % 2].value}
        assert choose_schedule_type(name, schedule_type, model) is schedule_type
        made: Any = make_scheduler(name, model, steps, schedule_type)
        stock = stock_scheduler(name, model, 0, schedule_type)
        stock.set_timesteps(steps)
        assert made.timesteps.tolist() == stock.timesteps.tolist()
        assert len(made.timesteps) == unet_calls(name, steps)
        assert float(made.init_noise_sigma) == float(stock.init_noise_sigma)
        if hasattr(stock, "sigmas"):
            assert made.sigmas.tolist() == stock.sigmas.tolist()


# Diffusers' DPM++ SDE passes torchsde times past the ends of its path, by rounding.
@pytest.mark.filterwarnings("ignore:Should have t[ab]:UserWarning:torchsde")
@pytest.mark.thorough
@pytest.mark.parametrize(("name", "schedule_type"), TAKEN)
def test_a_types_image_is_diffusers_own(name: SchedulerName, schedule_type: ScheduleType) -> None:
    for steps in FEW:
        stock = stock_scheduler(name, CONFIG, 5, schedule_type)
        stock.set_timesteps(steps)
        expected = run(stock, seed=5, bind=bind_stock)
        latents = run(make_scheduler(name, CONFIG, steps, schedule_type), seed=5)
        torch.testing.assert_close(latents, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", sorted(OWN_TIMESTEPS - {SchedulerName.LCM, SchedulerName.TCD}))
def test_karras_sigmas_over_the_whole_range_know_no_type(name: SchedulerName) -> None:
    """Check why a type is refused there: Diffusers reads none."""
    timesteps = set()
    for kind in ScheduleType:
        stock = stock_scheduler(name, CONFIG, 0, kind)
        stock.set_timesteps(8)
        timesteps.add(tuple(stock.timesteps.tolist()))
    assert len(timesteps) == 1


@pytest.mark.parametrize("name", [SchedulerName.LCM, SchedulerName.TCD])
def test_a_distilled_model_has_timesteps_of_its_own_or_those_of_trailing(
    name: SchedulerName,
) -> None:
    for kind in ScheduleType:
        own = make_scheduler(name, CONFIG | {"timestep_spacing": kind.value}, 4)
        assert own.timesteps.tolist() == [999, 759, 499, 259]
    made = make_scheduler(name, CONFIG, 4, ScheduleType.TRAILING)
    stock = stock_scheduler(name, CONFIG, 5)
    stock.set_timesteps(timesteps=[999, 749, 499, 249])  # as DMD2's page has it
    assert made.timesteps.tolist() == stock.timesteps.tolist()
    torch.testing.assert_close(run(made, seed=5), run(stock, seed=5, bind=bind_stock))
    for steps in range(1, 51):
        trailing = make_scheduler(SchedulerName.EULER, CONFIG, steps, ScheduleType.TRAILING)
        made = make_scheduler(name, CONFIG, steps, ScheduleType.TRAILING)
        assert (made.timesteps - trailing.timesteps).abs().max() <= 1  # it rounds down


@pytest.mark.parametrize("steps", [4, 20])
def test_ddim_would_leave_noise_with_linspace(steps: int) -> None:
    """Check why it is refused: Diffusers' own steps do not lead from timestep to timestep."""
    image = torch.randn(1, 4, 4, 3, generator=seeded_generator(3)) * 0.8
    worst = {}
    for kind in ScheduleType:
        stock = stock_scheduler(SchedulerName.DDIM, CONFIG, 0, kind)
        stock.set_timesteps(steps)
        latents = run(stock, exact_noise_of(image, stock), bind=bind_stock)
        worst[kind] = (latents - image).abs().max()
    assert worst[ScheduleType.LINSPACE] > 0.15
    assert max(worst[ScheduleType.LEADING], worst[ScheduleType.TRAILING]) < 0.1


@pytest.mark.thorough
@pytest.mark.parametrize(("name", "schedule_type"), TAKEN)
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 8, 14, 20, 50])
def test_exact_predictions_lead_to_the_image_with_every_type(
    name: SchedulerName, schedule_type: ScheduleType, steps: int
) -> None:
    scheduler = make_scheduler(name, CONFIG, steps, schedule_type)
    image = torch.randn(1, 4, 4, 3, generator=seeded_generator(3)) * 0.8
    latents = run(scheduler, exact_noise_of(image, scheduler))
    if (steps, name, schedule_type) != (1, SchedulerName.DDIM, ScheduleType.LEADING):  # see above
        assert (latents - image).abs().max() <= 0.15


def exact_noise_of(image: torch.Tensor, scheduler: Any) -> Predict:
    """A UNet that predicts the noise over one image, by the timestep that it is given."""
    alphas = scheduler.alphas_cumprod.double().numpy()

    def predict(model_input: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        alpha = np.interp(float(timestep), np.arange(1000), alphas)
        return ((model_input - alpha**0.5 * image) / (1 - alpha) ** 0.5).float()

    return predict


TYPE_REFUSED = {
    (SchedulerName.DDIM, ScheduleType.LINSPACE): (
        "schedule_type is linspace; with scheduler DDIM, leading or trailing would be right"
    ),
    **{
        (name, kind): f"schedule_type is {kind}; with scheduler {name}, which has timesteps of its"
        f" own, null{' or trailing' if name in ('LCM', 'TCD') else ''} would be right"
        for name, kind in NOT_TAKEN
        if name in OWN_TIMESTEPS
    },
}


def test_every_type_that_a_scheduler_does_not_take_is_in_the_table() -> None:
    assert set(TYPE_REFUSED) == set(NOT_TAKEN)
    assert {(name, kind) for name, one in SCHEDULERS.items() for kind in one.schedules} == {*TAKEN}


@pytest.mark.parametrize(("pair", "sentence"), TYPE_REFUSED.items(), ids=map(str, TYPE_REFUSED))
def test_a_type_that_a_scheduler_does_not_take_is_refused(
    pair: tuple[SchedulerName, ScheduleType], sentence: str
) -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        choose_schedule_type(*pair, CONFIG)
    assert (refusal.value.message, refusal.value.field) == (sentence, "schedule_type")


@pytest.mark.parametrize("own", list(ScheduleType))
@pytest.mark.parametrize("name", list(SchedulerName))
def test_without_a_type_it_is_the_models_or_the_schedulers_own(
    name: SchedulerName, own: ScheduleType
) -> None:
    model = CONFIG | {"timestep_spacing": own.value}
    assert own_schedule_type(model) is own
    if (name, own) == (SchedulerName.DDIM, ScheduleType.LINSPACE):
        with pytest.raises(InvalidRequestError, match="is linspace, the model's own; with sched"):
            choose_schedule_type(name, None, model)
        return
    chosen = choose_schedule_type(name, None, model)
    assert chosen is (None if name in OWN_TIMESTEPS else own)
    made = make_scheduler(name, model, 6, chosen).timesteps
    assert torch.equal(made, make_scheduler(name, model, 6).timesteps)


def test_an_own_type_that_is_not_served_is_refused() -> None:
    with pytest.raises(ModelError, match="spacing, sideways, is not served"):
        own_schedule_type(CONFIG | {"timestep_spacing": "sideways"})


# Noise


@pytest.mark.parametrize("name", list(SchedulerName))
def test_noise_is_the_seeds_whatever_happens_to_the_global_generators(name: SchedulerName) -> None:
    numbers = itertools.count()

    def disturb() -> None:
        torch.manual_seed(next(numbers))
        np.random.seed(next(numbers))

    first = run(make_scheduler(name, CONFIG, 6), seed=1)
    state = torch.get_rng_state()
    assert torch.equal(run(make_scheduler(name, CONFIG, 6), seed=1), first)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(run(make_scheduler(name, CONFIG, 6), seed=1, between=disturb), first)
    other = run(make_scheduler(name, CONFIG, 6), seed=2)
    assert torch.equal(other, first) == (name not in NOISY)


def test_seeds_of_64_bits_are_seeds_of_their_own() -> None:
    ends = [
        run(make_scheduler(SchedulerName.DPMPP_SDE, CONFIG, 3), seed=seed)
        for seed in (2**64 - 1, 2**32 - 1)
    ]
    assert not torch.equal(*ends)


def test_a_brownian_path_is_the_seeds_whatever_the_steps() -> None:
    start, middle, end = (torch.tensor(sigma) for sigma in (9.0, 4.0, 0.5))
    sigmas = torch.tensor([14.6, 9.0, 4.0, 0.5, 0.03, 0.0])
    like = torch.empty(1, 4, 2, 2)
    noise = BrownianNoise(sigmas, 5, like)
    whole = noise(start, end) * 8.5**0.5
    halves = noise(start, middle) * 5**0.5 + noise(middle, end) * 3.5**0.5
    torch.testing.assert_close(whole, halves, rtol=1e-4, atol=1e-4)
    assert torch.equal(BrownianNoise(sigmas, 5, like)(middle, end), noise(middle, end))


# Waiting


def prediction_of(model_input: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
    """A prediction without a copy between devices."""
    return model_input * 0.5


@pytest.mark.parametrize("name", list(SchedulerName))
@pytest.mark.parametrize("steps", [1, 5, 20])
def test_no_step_waits_for_the_device(name: SchedulerName, steps: int) -> None:
    scheduler = make_scheduler(name, CONFIG, steps)
    with guarded_against_waiting() as guard:
        latents = run(scheduler, prediction_of, device="meta", between=guard)
    assert latents.is_meta


@pytest.mark.parametrize(
    "name", [SchedulerName.UNIPC, SchedulerName.LCM, SchedulerName.DPMPP_2M_SDE]
)
def test_diffusers_own_step_would_wait(name: SchedulerName) -> None:
    """Check what the test above relies on: it detects the waits of Diffusers' own step."""
    scheduler = stock_scheduler(name, CONFIG, seed=0)
    scheduler.set_timesteps(5)
    scheduler.set_begin_index(0)
    with guarded_against_waiting() as guard, pytest.raises(Waited):
        run(scheduler, prediction_of, device="meta", between=guard, bind=bind_stock)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype:UserWarning")
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", list(SchedulerName))
def test_no_step_waits_for_a_gpu_and_it_draws_what_a_cpu_draws(name: SchedulerName) -> None:
    expected = run(make_scheduler(name, CONFIG, 20), prediction_of)
    try:
        latents = run(
            make_scheduler(name, CONFIG, 20),
            prediction_of,
            device="cuda",
            between=lambda: torch.cuda.set_sync_debug_mode("error"),
        )
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(latents.cpu(), expected, rtol=1e-3, atol=1e-4)


# What is refused


REFUSED = {
    **{
        f"{name} with zero SNR": (name, CONFIGS["v with zero SNR"], 20, "scheduler", "Euler a")
        for name in ("Heun", "LMS", "LMS Karras", "DPM++ SDE", "DPM++ SDE Karras")
    },
    **{
        f"{name} dividing by 0": (name, CONFIGS["epsilon with zero SNR"], 20, "scheduler", "UniPC")
        for name in ("DDIM", "LCM", "TCD")
    },
    **{
        f"{name} for an image": (
            name,
            CONFIG | {"prediction_type": "sample"},
            20,
            "scheduler",
            "DDIM",
        )
        for name in ("Euler a", "DPM++ SDE", "DPM++ SDE Karras")
    },
    "no scheduler at all": (
        "Euler",
        CONFIG | {"prediction_type": "flow_prediction"},
        20,
        "scheduler",
        "flow_prediction",
    ),
    **{
        f"{name} in 51 steps": (name, CONFIG, 51, "num_inference_steps", "at most 50")
        for name in ("LCM", "TCD")
    },
    **{
        f"{name} in 999 steps": (name, CONFIG, 999, "num_inference_steps", "at most 998")
        for name in ("DPM++ 2M", "DPM++ 3M SDE Karras", "UniPC")
    },
}


@pytest.mark.parametrize(
    ("name", "config", "steps", "field", "words"), REFUSED.values(), ids=REFUSED.keys()
)
def test_what_would_be_another_picture_is_refused(
    name: str, config: dict[str, Any], steps: int, field: str, words: str
) -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        check_scheduler(SchedulerName(name), config, steps)
    assert refusal.value.field == field
    assert name in refusal.value.message
    assert words in refusal.value.message


@pytest.mark.parametrize(("config", "name"), SUPPORTED)
def test_what_is_supported_is_not_refused(name: SchedulerName, config: dict[str, Any]) -> None:
    for steps in (1, 2, 50):
        check_scheduler(name, config, steps)


@pytest.mark.parametrize(
    "name", [name for name, recipe in SCHEDULERS.items() if recipe.divides_by_alpha]
)
def test_what_is_listed_as_dividing_by_0_does_so(name: SchedulerName) -> None:
    latents = run(make_scheduler(name, CONFIGS["epsilon with zero SNR"], 20))
    assert not latents.isfinite().all()


@pytest.mark.parametrize(
    "name", [name for name in SchedulerName if SCHEDULERS[name].max_steps < 999]
)
def test_what_is_listed_with_a_limit_of_steps_leaves_beyond_it_the_trained_timesteps(
    name: SchedulerName,
) -> None:
    make_scheduler(name, CONFIG, SCHEDULERS[name].max_steps)
    if SCHEDULERS[name].max_steps == 50:
        with pytest.raises(ValueError, match="original"):
            make_scheduler(name, CONFIG, 51)
    elif "Karras" not in name:
        assert make_scheduler(name, CONFIG, 999).timesteps.max() == 1000


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_the_models_own_scheduler_can_sample_it(config: dict[str, Any]) -> None:
    assert own_scheduler(config) is SchedulerName.EULER
    check_scheduler(own_scheduler(config), config, 150)


def test_an_own_scheduler_that_is_not_served_is_refused() -> None:
    with pytest.raises(ModelError, match="PNDMScheduler"):
        own_scheduler(CONFIG | {"_class_name": "PNDMScheduler"})

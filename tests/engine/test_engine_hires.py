"""A second, larger pass, against a loop by hand: first pass, upscaling, noise, second pass."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from PIL import Image

from lpw_sdxl import sampling
from lpw_sdxl.diffusion.latents import draw_noise, seeded_generator, size_embedding
from lpw_sdxl.diffusion.noise import add_noise
from lpw_sdxl.diffusion.schedulers import begin_at, make_scheduler
from lpw_sdxl.diffusion.step import Denoising
from lpw_sdxl.engine import Engine
from lpw_sdxl.engine import stages as engine_stages
from lpw_sdxl.engine import upscalers as engine_upscalers
from lpw_sdxl.engine.hires import request_of_second
from lpw_sdxl.engine.progress import ImageProgress, Listener
from lpw_sdxl.engine.resolver import RequestResolver
from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.imaging import parameters_text
from lpw_sdxl.scheduler_table import SchedulerName
from lpw_sdxl.schema import GenerationRequest, ImageSize
from lpw_sdxl.second_pass import Enlargement, Upscaler, enlarge
from lpw_sdxl.settings import Settings
from lpw_sdxl.upscaling.network import UpscalerNetwork
from lpw_sdxl.upscaling.tiles import upscale
from lpw_sdxl.upscaling.tiling import Tiling, usual_tiling
from tests.upscaler_folder import SCALES

SIZE, LARGER = ImageSize(height=64, width=96), ImageSize(height=96, width=144)
STEPS, SECOND_STEPS, STRENGTH = 5, 4, 0.6
SEED = 5
Pixels = np.ndarray[Any, Any]
PIXEL = {Upscaler.NONE, Upscaler.NEAREST, Upscaler.LANCZOS}


def request(**fields: Any) -> GenerationRequest:
    common: dict[str, Any] = {"prompt": "a fox", "seed": SEED, "guidance_scale": 4.0}
    common |= {"num_inference_steps": STEPS, **SIZE._asdict()}
    common["hires"] = {"scale": 1.5, "steps": SECOND_STEPS, "strength": STRENGTH}
    hires = fields.pop("hires", {})
    if hires is not None:
        common["hires"] |= hires
    else:
        common["hires"] = None
    return GenerationRequest.model_validate(common | fields)


@pytest.fixture(scope="module")
def unet(model_directory: Path) -> Any:
    return UNet2DConditionModel.from_pretrained(model_directory / "unet", local_files_only=True)


class ByHand:
    """The passes of one image, each a plain loop over the UNet."""

    def __init__(self, engine: Engine, unet: Any) -> None:
        self.pipeline, self._unet = engine.pipeline, unet

    @torch.inference_mode()
    def draw(
        self, wanted: GenerationRequest, enlarge: Callable[[Pixels], Pixels] | None = None
    ) -> Pixels:
        """Draw both passes; `enlarge` is an imported upscaler's work."""
        hires = wanted.hires
        assert hires is not None
        if wanted.sampler_implementation == "k_diffusion":
            first, second = self._first_by_sigmas, self._second_by_sigmas
        else:
            first, second = self._first_by_scheduler, self._second_by_scheduler
        latents = first(wanted)
        generator = seeded_generator(SEED)
        if enlarge is not None or hires.upscaler in PIXEL:
            kind = Image.Resampling.LANCZOS
            if hires.upscaler is Upscaler.NEAREST:
                kind = Image.Resampling.NEAREST
            drawn = self._decode(latents)
            image = Image.fromarray(drawn if enlarge is None else enlarge(drawn))
            larger = np.asarray(image.resize((LARGER.width, LARGER.height), kind))
            pixels = torch.tensor(larger).permute(2, 0, 1)[None].float() / 127.5 - 1
            encoded = self.pipeline.vae.encode(pixels).latent_dist
            sample = encoded.mean + encoded.std * draw_noise(LARGER, generator)
            latents = sample * self.pipeline.vae.config.scaling_factor
        else:
            mode = hires.upscaler.removeprefix("latent").removeprefix("_").replace("_", "-")
            antialias = mode.endswith("antialiased")
            mode = mode.removesuffix("antialiased").removesuffix("-") or "bilinear"
            cells = [side // 8 for side in LARGER]
            latents = torch.nn.functional.interpolate(
                latents, cells, mode=mode, antialias=antialias
            )
        return self._decode(second(wanted, latents, generator))

    def _first_by_scheduler(self, wanted: GenerationRequest) -> torch.Tensor:
        scheduler = make_scheduler(SchedulerName.EULER, self.pipeline.scheduler_config, STEPS)
        noise = draw_noise(SIZE, seeded_generator(SEED))
        return self._walk(scheduler, 0, noise * scheduler.init_noise_sigma, SIZE, wanted)

    def _second_by_scheduler(
        self, wanted: GenerationRequest, latents: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        config = self.pipeline.scheduler_config
        scheduler = make_scheduler(SchedulerName.EULER, config, SECOND_STEPS)
        index = SECOND_STEPS - int(SECOND_STEPS * STRENGTH)
        begin_at(scheduler, index)
        noise = draw_noise(LARGER, generator)
        noised = add_noise(scheduler, latents, noise, scheduler.timesteps[index])
        return self._walk(scheduler, index, noised, LARGER, wanted)

    def _walk(
        self, scheduler: Any, index: int, latents: torch.Tensor, size: ImageSize, wanted: Any
    ) -> torch.Tensor:
        for timestep in scheduler.timesteps[index:]:
            scaled = scheduler.scale_model_input(latents, timestep)
            guided = self._guide(scaled, timestep, size, wanted)
            latents = scheduler.step(guided, timestep, latents, return_dict=False)[0]
        return latents

    def _first_by_sigmas(self, wanted: GenerationRequest) -> torch.Tensor:
        sigmas = sampling.sigmas("Uniform", STEPS)
        noise = sampling.noise("cpu", SEED, (1, 4, SIZE.height // 8, SIZE.width // 8), 1)[0]
        return self._euler(noise * sigmas[0], sigmas, SIZE, wanted)

    def _second_by_sigmas(
        self, wanted: GenerationRequest, latents: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        """All steps are taken: the end of a course of `steps / strength`."""
        sigmas = sampling.sigmas("Uniform", int(SECOND_STEPS / STRENGTH))[-SECOND_STEPS - 1 :]
        noise = sampling.noise("cpu", SEED, (1, 4, LARGER.height // 8, LARGER.width // 8), 1)[0]
        return self._euler(latents + noise * sigmas[0], sigmas, LARGER, wanted)

    def _euler(
        self, latents: torch.Tensor, sigmas: torch.Tensor, size: ImageSize, wanted: Any
    ) -> torch.Tensor:
        model = sampling.sigmas("Uniform", 1000)[:-1].flip(0)  # of timesteps 0 to 999
        for sigma, sigma_next in pairwise(sigmas):
            timestep = torch.tensor(np.interp(sigma.log(), model.log(), np.arange(1000)))
            scaled = latents / (sigma**2 + 1) ** 0.5
            noise = self._guide(scaled, timestep.float(), size, wanted)
            latents = latents + noise * (sigma_next - sigma)
        return latents

    def _guide(
        self, scaled: torch.Tensor, timestep: torch.Tensor, size: ImageSize, wanted: Any
    ) -> torch.Tensor:
        hires, prompt, scale = wanted.hires, wanted.prompt, wanted.guidance_scale
        if size == LARGER:
            prompt, scale = hires.prompt or prompt, hires.guidance_scale or scale
        encoded = self.pipeline.prompt_encoder.encode(prompt, "")
        pairs = [
            (encoded.negative_prompt_embeds, encoded.negative_pooled_prompt_embeds),
            (encoded.prompt_embeds, encoded.pooled_prompt_embeds),
        ]
        negative, positive = (
            self._unet(
                scaled,
                timestep,
                encoder_hidden_states=embeds[None],
                added_cond_kwargs={
                    "text_embeds": pooled[None],
                    "time_ids": size_embedding(size)[None],
                },
                return_dict=False,
            )[0]
            for embeds, pooled in pairs
        )
        return negative + scale * (positive - negative)

    def _decode(self, latents: torch.Tensor) -> Pixels:
        vae = self.pipeline.vae
        decoded = vae.decode(latents / vae.config.scaling_factor).sample[0]
        levels = ((decoded / 2 + 0.5).clamp(0, 1) * 255).round()
        return levels.permute(1, 2, 0).numpy().astype(np.uint8)


FAMILIES: dict[str, dict[str, Any]] = {
    "diffusers": {"scheduler": "Euler"},
    "k_diffusion": {"scheduler": "Euler", "sampler_implementation": "k_diffusion"},
}
CASES = [
    request(hires={"upscaler": upscaler}, **fields)
    for fields in FAMILIES.values()
    for upscaler in Upscaler
] + [
    request(hires={"prompt": "a red ball", "guidance_scale": 2.0}, **fields)
    for fields in FAMILIES.values()
]
NAMES = [f"{one.sampler_implementation}-{one.hires.upscaler}" for one in CASES if one.hires]


def furthest(one: Pixels, other: Pixels) -> int:
    assert one.shape == other.shape
    return int(np.abs(one.astype(int) - other.astype(int)).max())


@pytest.mark.parametrize("wanted", CASES, ids=NAMES)
async def test_it_is_what_a_loop_by_hand_draws(
    engine: Engine, unet: Any, wanted: GenerationRequest
) -> None:
    drawn = await engine.generate(wanted)
    assert drawn.size == LARGER
    assert furthest(drawn.pixels, ByHand(engine, unet).draw(wanted)) <= 1


async def test_among_jobs_of_both_sizes_it_is_the_same(engine: Engine) -> None:
    others = [
        request(hires=None, seed=9),
        request(hires=None, seed=10, **LARGER._asdict(), num_inference_steps=7),
    ]
    together = await asyncio.gather(*map(engine.generate, [*CASES, *others, *others]))
    for one, wanted in zip(together, [*CASES, *others], strict=False):
        assert furthest(one.pixels, (await engine.generate(wanted)).pixels) <= 1


async def test_progress_counts_the_calls_of_both_passes(engine: Engine) -> None:
    wanted = request(**FAMILIES["k_diffusion"])
    spec = engine.decide(wanted)
    assert (spec.unet_calls, spec.steps) == (STEPS + SECOND_STEPS,) * 2
    told: list[ImageProgress] = []
    await engine.generate(wanted, Listener(told.append, lambda _: True))
    assert [(one.unet_calls_done, one.unet_calls) for one in told] == [
        (done + 1, STEPS + SECOND_STEPS) for done in range(STEPS + SECOND_STEPS)
    ]
    has_preview = [one.preview is not None for one in told]
    assert has_preview == [True] * (STEPS + SECOND_STEPS - 1) + [False]


def test_its_cost_is_that_of_both_passes(engine: Engine) -> None:
    plain = engine.decide(request(hires=None))
    both = engine.decide(request(**FAMILIES["k_diffusion"]))
    larger = LARGER.height * LARGER.width * 2 * SECOND_STEPS / 1e6
    assert both.cost == pytest.approx(plain.cost + larger)


@pytest.mark.parametrize(
    ("hires", "enlargement"),
    [
        ({}, ((128, 192), (128, 192))),
        ({"scale": 1.3}, ((80, 120), (80, 120))),
        ({"width": 144}, ((96, 144), (96, 144))),
        ({"height": 128}, ((128, 192), (128, 192))),
        ({"width": 144, "height": 128}, ((128, 192), (128, 144))),
        ({"width": 240, "height": 128}, ((160, 240), (128, 240))),
    ],
)
def test_sizes_are_those_of_a1111(hires: dict[str, Any], enlargement: Any) -> None:
    second = GenerationRequest(prompt="", hires=hires).hires  # type: ignore[arg-type]
    assert second is not None
    assert enlarge(SIZE, second) == Enlargement(*(ImageSize(*size) for size in enlargement))


async def test_what_is_over_is_cut(engine: Engine) -> None:
    sizes = {"scale": None, "width": 96, "height": 128}
    for upscaler in (Upscaler.LATENT, Upscaler.LANCZOS):
        drawn = await engine.generate(request(hires=sizes | {"upscaler": upscaler}))
        assert drawn.size == ImageSize(128, 96)


LARGE = {"width": 512, "height": 512}
REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "too large": ({"scale": 8.0, "steps": 2}, "hires.scale", "at most"),
    "too wide": ({"scale": None, "width": 4096}, "hires.width", "at most"),
    "smaller": ({"scale": None, "width": 64}, "hires.width", "at least"),
    "two sizes": ({"width": 144}, "hires.scale", "one of the two"),
    "no strength": ({"strength": 0.0}, "hires.strength", "would be right"),
    "a bad tag": ({"prompt": "a <lora:none:1>"}, "hires.prompt", "none"),
    "a scheduler of the other family": ({"scheduler": "DPM2"}, "hires.scheduler", "k_diffusion"),
    "an unknown scheduler": ({"scheduler": "Eular"}, "hires.scheduler", "did you mean"),
    "an unknown schedule type": ({"schedule_type": "x"}, "hires.schedule_type", "known are"),
    "many steps": ({"steps": 999}, "hires.steps", "at most"),
}


@pytest.mark.parametrize(("hires", "field", "part"), REFUSED.values(), ids=REFUSED)
async def test_a_bad_second_pass_is_refused_by_its_field(
    engine: Engine, hires: dict[str, Any], field: str, part: str
) -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        await engine.generate(request(hires=hires, **LARGE if "steps" in hires else {}))
    assert refusal.value.field == field
    assert part in refusal.value.message


async def test_schedules_of_prompts_count_on(engine: Engine) -> None:
    """A number beyond the first pass's steps changes the second pass alone; so do shares over 1."""
    plain = request(prompt="a red ball", prompt_style="a1111", **FAMILIES["k_diffusion"])
    same = request(prompt="a [red:blue:99] ball", prompt_style="a1111", **FAMILIES["k_diffusion"])
    late = [
        request(prompt=f"a [red:blue:{when}] ball", prompt_style="a1111", **FAMILIES["k_diffusion"])
        for when in (STEPS + 2, "1.5")
    ]
    spec = engine.decide(late[0])
    assert [len(one.prompts.stages) for one in spec.passes] == [1, 2]
    # One after another: in company they may be rounded otherwise.
    first, second, *others = [await engine.generate(one) for one in (plain, same, *late)]
    assert np.array_equal(first.pixels, second.pixels)
    for one in others:
        assert not np.array_equal(first.pixels, one.pixels)


@pytest.mark.parametrize("leave_after", [1, STEPS, STEPS + 1])
async def test_a_client_that_leaves_frees_its_job(engine: Engine, leave_after: int) -> None:
    def cancel(progress: ImageProgress) -> None:
        if progress.unet_calls_done == leave_after:
            loop.call_soon_threadsafe(drawing.cancel)

    loop = asyncio.get_running_loop()
    drawing = asyncio.ensure_future(engine.generate(request(), Listener(cancel)))
    with pytest.raises(asyncio.CancelledError):
        await drawing
    await engine.generate(request(hires=None))
    assert engine.queued_jobs == 0
    assert not engine.is_busy


@pytest.mark.parametrize("name", SCALES)
@pytest.mark.parametrize("tile", [None, Tiling(48, 20)], ids=["one tile", "tiles"])
async def test_an_imported_upscaler_enlarges_the_first_pass(
    upscaling_engine: Engine,
    unet: Any,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    tile: Tiling | None,
) -> None:
    wanted = request(hires={"upscaler": name.upper()}, **FAMILIES["k_diffusion"])
    network = UpscalerNetwork(SCALES[name].tensors(), name, torch.device("cpu"), torch.float32)
    used = tile or usual_tiling(network.design)
    monkeypatch.setattr(engine_upscalers, "tiling_within", lambda *_: used)
    drawn = await upscaling_engine.generate(wanted)
    by_hand = ByHand(upscaling_engine, unet).draw(
        wanted, lambda pixels: upscale(network, pixels, used)
    )
    assert furthest(drawn.pixels, by_hand) <= 1
    assert f"Hires upscaler: {name.upper()}" in parameters_text(drawn.record)
    plain = await upscaling_engine.generate(
        request(hires={"upscaler": "lanczos"}, **FAMILIES["k_diffusion"])
    )
    assert furthest(drawn.pixels, plain.pixels) > 1


async def test_a_small_scale_is_applied_again(upscaling_engine: Engine, unet: Any) -> None:
    """Twice 2 is enough for 2.5 times the size."""
    hires = {"scale": 2.5, "upscaler": "two-times", "steps": 1}
    drawn = await upscaling_engine.generate(request(hires=hires, **FAMILIES["k_diffusion"]))
    assert drawn.size == ImageSize(160, 240)


@pytest.mark.parametrize(
    ("name", "part"),
    [("three-times", "near are 'two-times'"), ("zzz", "2 beside latent"), ("broken", "damaged")],
)
async def test_an_upscaler_that_is_not_there_is_refused(
    upscaling_engine: Engine, name: str, part: str
) -> None:
    with pytest.raises(InvalidRequestError, match=part) as refusal:
        await upscaling_engine.generate(request(hires={"upscaler": name}))
    assert refusal.value.field == "hires.upscaler"


async def test_upscaled_jobs_share_the_device_with_others(upscaling_engine: Engine) -> None:
    wanted = [
        request(hires={"upscaler": name}, seed=seed, **FAMILIES["k_diffusion"])
        for seed in range(3)
        for name in (*SCALES, "latent")
    ]
    together = await asyncio.gather(*map(upscaling_engine.generate, wanted))
    for one, alone in zip(together, wanted, strict=True):
        assert furthest(one.pixels, (await upscaling_engine.generate(alone)).pixels) <= 1


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("upscaler", ["latent", "lanczos"])
async def test_a_second_pass_that_lacks_memory_when_it_begins_begins_again(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, family: str, upscaler: str
) -> None:
    """The try that fails has drawn its noise already."""
    wanted = request(hires={"upscaler": upscaler}, **FAMILIES[family])
    expected = await engine.generate(wanted)
    begun = []

    def begin(**arguments: Any) -> Denoising:
        denoising = Denoising(**arguments)
        begun.append(denoising)
        if len(begun) == 2:
            raise torch.OutOfMemoryError
        return denoising

    monkeypatch.setattr(engine_stages, "Denoising", begin)
    drawn = await engine.generate(wanted)
    assert len(begun) == 3
    assert np.array_equal(drawn.pixels, expected.pixels)


@pytest.mark.parametrize(
    ("first", "hires", "expected"),
    [
        (("DPM++ 2M", "Karras"), {"scheduler": "Euler"}, "Karras"),
        (("DPM++ 2M Karras", None), {"scheduler": "Euler"}, "Karras"),
        (("DPM++ 2M", None), {"scheduler": "Euler"}, "Uniform"),
        (("DPM++ 2M", "Karras"), {"scheduler": "Euler", "schedule_type": "Beta"}, "Beta"),
        (("DPM++ 2M", "Karras"), {"scheduler": "DDIM"}, None),
        (("DPM++ 2M", "Karras"), {}, "Karras"),
    ],
)
def test_another_sampler_keeps_the_schedule_type_as_in_a1111(
    engine: Engine, first: tuple[str, str | None], hires: dict[str, Any], expected: str | None
) -> None:
    fields = {"sampler_implementation": "k_diffusion", "scheduler": first[0]}
    wanted = request(hires=hires | {"steps": 6}, schedule_type=first[1], **fields)
    own = request_of_second(wanted, wanted.hires)
    choice = engine._resolver.sampling.choose_second(own, LARGER, SEED, None)
    assert choice.schedule_type == expected


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"hires": {"strength": 1e-320}}, "hires.strength"),
        ({"hires": {"strength": 0.001}}, "hires.strength"),
        (
            {"scheduler": "LCM", "schedule_type": "DDIM", "hires": {"steps": 3, "strength": 0.05}},
            "hires.strength",
        ),
    ],
)
async def test_a_strength_without_a_step_is_refused(
    engine: Engine, fields: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        await engine.generate(request(**FAMILIES["k_diffusion"] | fields))
    assert refusal.value.field == field


async def test_long_prompts_of_a_second_pass_wait_among_the_long_ones(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    short, read = engine._intake._short_readers, []
    monkeypatch.setattr(short, "submit", lambda *work: read.append(work))
    drawn = await engine.generate(request(hires={"prompt": "a fox, " * 600, "steps": 2}))
    assert drawn.size == LARGER
    assert not read


def test_a_second_pass_that_no_call_has_memory_for_is_refused(engine: Engine) -> None:
    resolver = RequestResolver(
        engine.pipeline, Settings(device="cpu"), LARGER.height * LARGER.width
    )
    offer = engine._offers.current
    assert resolver.resolve(request(), offer).size == LARGER
    with pytest.raises(InvalidRequestError, match=r"has memory for 0\.01 megapixels") as refusal:
        resolver.resolve(request(hires={"scale": 1.6}), offer)
    assert refusal.value.field == "hires"

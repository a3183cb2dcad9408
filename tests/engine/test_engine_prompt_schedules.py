"""Prompts that change by step or stand side by side, against a loop that swaps texts by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel

from lpw_sdxl.conditioning.assembly import Conditioning
from lpw_sdxl.diffusion.latents import draw_noise, seeded_generator, size_embedding
from lpw_sdxl.diffusion.schedulers import make_scheduler
from lpw_sdxl.engine import Engine
from lpw_sdxl.engine.job_spec import PassSpec
from lpw_sdxl.errors import InvalidPromptError, InvalidRequestError
from lpw_sdxl.scheduler_table import SchedulerName
from lpw_sdxl.schema import GenerationRequest, ImageSize

SIZE = ImageSize(height=64, width=96)
STEPS = 6
Pixels = np.ndarray[Any, Any]
Weighted = Sequence[tuple[str, float]]  # parts and their weights
Texts = Callable[[int], tuple[Weighted, str]]  # parts and negative prompt of a UNet call


def request(**fields: Any) -> GenerationRequest:
    common = {"prompt": "a fox", "prompt_style": "a1111", "seed": 5, "guidance_scale": 4.0}
    return GenerationRequest.model_validate(
        common | {"num_inference_steps": STEPS, **SIZE._asdict()} | fields
    )


@pytest.fixture(scope="module")
def plain_unet(model_directory: Path) -> Any:
    return UNet2DConditionModel.from_pretrained(model_directory / "unet", local_files_only=True)


@torch.inference_mode()
def draw_by_hand(engine: Engine, unet: Any, wanted: GenerationRequest, texts: Texts) -> Pixels:
    """Draw with Diffusers' UNet and a plain loop; each call's texts are encoded for it alone."""
    pipeline = engine.pipeline
    name = wanted.scheduler or SchedulerName.EULER
    scheduler = make_scheduler(name, pipeline.scheduler_config, wanted.num_inference_steps)
    generator = seeded_generator(wanted.seed)
    latents = draw_noise(SIZE, generator) * scheduler.init_noise_sigma
    calls = len(scheduler.timesteps)
    for call, timestep in enumerate(scheduler.timesteps):
        parts, negative_prompt = texts(call)
        encoded = [encode(engine, part, negative_prompt) for part, _ in parts]
        longest = max(len(one.prompt_embeds) for one in encoded)
        scaled = scheduler.scale_model_input(latents, timestep)
        predictions = [
            predict(
                unet,
                scaled,
                timestep,
                lengthen(one.prompt_embeds, longest),
                one.pooled_prompt_embeds,
            )
            for one in encoded
        ]
        weights = [weight for _, weight in parts]
        first = encoded[0]
        negative = predict(
            unet,
            scaled,
            timestep,
            first.negative_prompt_embeds,
            first.negative_pooled_prompt_embeds,
        )
        start, stop = wanted.guidance_interval or (0.0, 1.0)
        is_plain = len(parts) == 1 and weights[0] == 1.0
        if not start <= call / calls < stop or (is_plain and wanted.guidance_scale <= 1):
            total = sum(weights)
            guided = sum(w * one for w, one in zip(weights, predictions, strict=True)) / total
        else:
            guided = negative + sum(
                w * wanted.guidance_scale * (one - negative)
                for w, one in zip(weights, predictions, strict=True)
            )
        latents = scheduler.step(guided, timestep, latents, return_dict=False)[0]
    decoded = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor).sample[0]
    return ((decoded / 2 + 0.5).clamp(0, 1) * 255).round().permute(1, 2, 0).numpy()


def encode(engine: Engine, prompt: str, negative_prompt: str) -> Conditioning:
    return engine.pipeline.prompt_encoder.encode(prompt, negative_prompt, "a1111")


def lengthen(embeds: torch.Tensor, tokens: int) -> torch.Tensor:
    return torch.cat([embeds, *[embeds[-1:]] * (tokens - len(embeds))])


def predict(unet: Any, scaled: Any, timestep: Any, embeds: Any, pooled: Any) -> torch.Tensor:
    added = {"text_embeds": pooled[None], "time_ids": size_embedding(SIZE)[None]}
    return unet(
        scaled,
        timestep,
        encoder_hidden_states=embeds[None],
        added_cond_kwargs=added,
        return_dict=False,
    )[0]


LONG = ", ".join(["a lighthouse in a stormy sea"] * 14)
CASES: dict[str, tuple[dict[str, Any], Texts]] = {
    "an edit at a share": (
        {"prompt": "a [red:blue:0.5] fox"},
        lambda call: ([("a red fox" if call < 3 else "a blue fox", 1)], ""),
    ),
    "an edit at a step": (
        {"prompt": "a [red:blue:2] fox", "negative_prompt": "blurry"},
        lambda call: ([("a red fox" if call < 2 else "a blue fox", 1)], "blurry"),
    ),
    "a text that is added": (
        {"prompt": "a fox[ in snow:4]"},
        lambda call: ([("a fox" if call < 4 else "a fox in snow", 1)], ""),
    ),
    "an alternation": (
        {"prompt": "a [red|blue|] fox"},
        lambda call: ([(("a red fox", "a blue fox", "a  fox")[call % 3], 1)], ""),
    ),
    "a negative prompt that changes": (
        {"prompt": "a [red|blue] fox", "negative_prompt": "[dull:bright:3] AND fog"},
        lambda call: (
            [(("a red fox", "a blue fox")[call % 2], 1)],
            f"{'dull' if call < 3 else 'bright'} AND fog",
        ),
    ),
    "a negative prompt that begins empty": (
        {"negative_prompt": "[:blurry:3]"},
        # Brackets without words are an empty text that is encoded, where nothing would be zeros.
        lambda call: ([("a fox", 1)], "()" if call < 3 else "blurry"),
    ),
    "two calls a step": (
        {"prompt": "a [red:blue:0.5] fox", "scheduler": "Heun"},
        lambda call: ([("a red fox" if call < STEPS else "a blue fox", 1)], ""),
    ),
    "three parts": (
        {"prompt": "a fox AND snow :0.7 AND night :-0.4", "negative_prompt": "blurry"},
        lambda _: ([("a fox", 1), ("snow", 0.7), ("night", -0.4)], "blurry"),
    ),
    "parts without guidance": (
        {"prompt": "a fox AND snow :0.7", "guidance_scale": 1.0},
        lambda _: ([("a fox", 1), ("snow", 0.7)], ""),
    ),
    "parts of unlike lengths": (
        {"prompt": f"a fox AND {LONG} :0.5"},
        lambda _: ([("a fox", 1), (LONG, 0.5)], ""),
    ),
    "parts that change": (
        {"prompt": "a [red:blue:0.5] fox AND [snow|rain] :0.6"},
        lambda call: (
            [("a red fox" if call < 3 else "a blue fox", 1), (("snow", "rain")[call % 2], 0.6)],
            "",
        ),
    ),
    "an interval": (
        {"guidance_interval": [0.2, 0.7], "negative_prompt": "blurry"},
        lambda _: ([("a fox", 1)], "blurry"),
    ),
    "an interval with parts": (
        {"prompt": "a fox AND snow :0.5", "guidance_interval": [0.5, 1.0]},
        lambda _: ([("a fox", 1), ("snow", 0.5)], ""),
    ),
    "a plain prompt": ({}, lambda _: ([("a fox", 1)], "")),
}


@pytest.mark.parametrize("case", CASES)
async def test_a_schedule_is_a_loop_that_swaps_texts_by_hand(
    engine: Engine, plain_unet: Any, case: str
) -> None:
    fields, texts = CASES[case]
    wanted = request(**fields)
    drawn = (await engine.generate(wanted)).pixels.astype(int)
    assert np.abs(drawn - draw_by_hand(engine, plain_unet, wanted, texts)).max() <= 1


async def test_schedules_share_calls_and_each_image_is_as_alone(engine: Engine) -> None:
    wanted = [
        request(**fields, seed=3) for fields, _ in CASES.values() if "scheduler" not in fields
    ]
    alone = [(await engine.generate(one)).pixels.astype(int) for one in wanted]
    calls = sum(engine.counters.unet_calls.values())
    together = await asyncio.gather(*map(engine.generate, wanted))
    assert sum(engine.counters.unet_calls.values()) - calls < STEPS * len(wanted) / 2
    for one, other in zip(alone, together, strict=True):
        assert np.abs(one - other.pixels).max() <= 1


async def test_a_schedule_changes_the_image(engine: Engine) -> None:
    plain, *others = [
        (await engine.generate(request(prompt=prompt, guidance_interval=interval))).pixels
        for prompt, interval in (
            ("a fox", None),
            ("a [fox:wolf:0.5]", None),
            ("a [fox|wolf]", None),
            ("a fox AND snow", None),
            ("a fox", [0.0, 0.5]),
        )
    ]
    assert len({one.tobytes() for one in (plain, *others)}) == 5


def test_one_part_of_weight_1_is_none(engine: Engine) -> None:
    spec = engine.decide(request(prompt="a fox :1.0"))
    plain = engine.decide(request())
    assert (spec.rows, spec.first.prompts) == (plain.rows, plain.first.prompts)


async def test_each_text_is_encoded_once(engine: Engine) -> None:
    counters = engine.pipeline.prompt_encoder.counters.windows
    encoders = len(engine.pipeline.prompt_encoder.models)
    await engine.generate(request(prompt="a hen"))  # with the empty negative prompt
    before = counters.misses
    await engine.generate(request(prompt="an [old|young] hen", num_inference_steps=30))
    assert counters.misses - before == 2 * encoders
    await engine.generate(request(prompt="an [old:young:1] hen AND an old hen"))
    assert counters.misses - before == 2 * encoders


def test_texts_of_too_many_chunks_together_are_refused(engine: Engine) -> None:
    words = "\U0001f98a" * 1500  # two tokens each
    with pytest.raises(InvalidPromptError, match=r"texts of \d+ chunks .* at most 256") as refusal:
        decide(
            engine, prompt=f"[{'|'.join('abcdefghijklmnopqrst')}] {words}", num_inference_steps=20
        )
    assert refusal.value.field == "prompt"


def decide(engine: Engine, **fields: Any) -> PassSpec:
    return engine.decide(request(**fields)).first


def test_rows_and_cost_are_those_that_are_run(engine: Engine) -> None:
    plain = decide(engine)
    assert (plain.rows, plain.rows_left(0)) == (2, 2 * STEPS)
    parts = decide(engine, prompt="a AND b AND c")
    assert (parts.rows, parts.rows_left(0)) == (4, 4 * STEPS)
    interval = decide(engine, guidance_interval=[0.5, 1.0])
    assert (interval.rows, interval.rows_left(0), interval.rows_left(3)) == (2, 9, 6)
    never = decide(engine, guidance_scale=1.0)
    assert (never.rows, never.rows_left(0)) == (1, STEPS)


def test_more_texts_than_the_limit_are_refused(engine: Engine) -> None:
    many = "[" + "|".join(f"fox {number}" for number in range(65)) + "]"
    with pytest.raises(InvalidPromptError, match="more than 64 different texts"):
        decide(engine, prompt=many, num_inference_steps=70)
    assert len(decide(engine, prompt=many, num_inference_steps=20).prompts.pairs) == 20


def test_more_parts_than_a_call_has_rows_are_refused(engine: Engine) -> None:
    with pytest.raises(InvalidPromptError, match="8 parts would fit"):
        decide(engine, prompt=" AND ".join("abcdefghi"))
    assert decide(engine, prompt=" AND ".join("abcdefgh")).rows == 9
    resolver: Any = engine._resolver
    few = resolver._settings.model_copy(update={"max_rows": 4})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resolver, "_settings", few)
        with pytest.raises(InvalidRequestError, match="5 rows of a UNet call; at most 4"):
            decide(engine, prompt="a AND b AND c AND d")

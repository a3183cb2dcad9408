"""Requests to specifications of jobs, and those that are refused, without a loop and a queue."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import pytest
from pydantic import ValidationError

from lpw_sdxl.addon.catalogue import Catalogue
from lpw_sdxl.conditioning import prompt_reader
from lpw_sdxl.conditioning.explain_schedule import PromptInspection
from lpw_sdxl.engine import Engine
from lpw_sdxl.engine.job_spec import JobSpec
from lpw_sdxl.engine.offer import Offer, Offers
from lpw_sdxl.engine.resolver import DRAWN_SEED_BITS, RequestResolver
from lpw_sdxl.errors import InvalidPromptError, InvalidRequestError
from lpw_sdxl.schedule_types import ScheduleType
from lpw_sdxl.scheduler_table import SchedulerName
from lpw_sdxl.schema import GenerationRequest, ImageSize, InspectionRequest
from lpw_sdxl.settings import Settings


@dataclass(frozen=True)
class Resolving:
    """A resolver with an offer without LoRAs and embeddings."""

    resolver: RequestResolver
    offer: Offer

    def resolve(self, request: GenerationRequest) -> JobSpec:
        return self.resolver.resolve(request, self.offer)

    def explain(self, request: InspectionRequest) -> PromptInspection:
        return self.resolver.explain(request, self.offer)


def make_resolver(engine: Engine, **settings: object) -> Resolving:
    some = Settings(device="cpu", **settings)
    offers = Offers(Catalogue(), engine.pipeline.prompt_encoder, some)
    return Resolving(RequestResolver(engine.pipeline, some), offers.current)


def test_what_is_left_open_is_decided(engine: Engine) -> None:
    spec = make_resolver(engine).resolve(GenerationRequest(prompt="a fox"))
    assert spec.record.size == ImageSize(128, 128)  # the tests' model's native
    assert spec.record.scheduler is SchedulerName.EULER
    assert spec.record.schedule_type is ScheduleType.LEADING
    assert 0 <= spec.record.seed < 2**DRAWN_SEED_BITS


@pytest.mark.parametrize(
    ("scheduler", "schedule_type", "used"),
    [
        ("Euler", "sgm_uniform", "trailing"),
        ("Euler", "linspace", "linspace"),
        ("DPM++ 2M Karras", None, None),
        ("LCM", None, None),
        ("LCM", "trailing", "trailing"),
    ],
)
def test_a_schedule_type_is_decided_with_the_scheduler(
    engine: Engine, scheduler: str, schedule_type: str | None, used: str | None
) -> None:
    wanted = GenerationRequest(prompt="a", scheduler=scheduler, schedule_type=schedule_type)
    assert make_resolver(engine).resolve(wanted).record.schedule_type == used


@pytest.mark.parametrize("schedule_type", [*ScheduleType, None])
@pytest.mark.parametrize("scheduler", ["Heun", "DPM++ SDE", "DPM++ SDE Karras"])
def test_second_order_schedulers_cost_the_same_with_every_schedule_type(
    engine: Engine, scheduler: str, schedule_type: ScheduleType | None
) -> None:
    resolver = make_resolver(engine)
    for steps in (1, 4, 61):
        wanted = GenerationRequest(
            prompt="a", scheduler=scheduler, schedule_type=schedule_type, num_inference_steps=steps
        )
        assert resolver.resolve(wanted).unet_calls == 2 * steps - 1


def test_a_seed_is_drawn_anew_and_one_that_is_told_stays(engine: Engine) -> None:
    resolver = make_resolver(engine)
    drawn = {resolver.resolve(GenerationRequest(prompt="a")).record.seed for _ in range(8)}
    assert len(drawn) == 8
    assert resolver.resolve(GenerationRequest(prompt="a", seed=0)).record.seed == 0


def test_a_seed_of_more_bits_than_are_drawn_is_taken(engine: Engine) -> None:
    spec = make_resolver(engine).resolve(GenerationRequest(prompt="a", seed=2**40))
    assert spec.record.seed == 2**40
    with pytest.raises(ValidationError):
        GenerationRequest(prompt="a", seed=2**64)


def test_one_side_that_is_told_leaves_the_other_native(engine: Engine) -> None:
    spec = make_resolver(engine).resolve(GenerationRequest(prompt="a", width=192))
    assert spec.record.size == ImageSize(height=128, width=192)


@pytest.mark.parametrize("side", ["width", "height"])
def test_a_native_size_over_the_limit_is_refused_where_none_is_told(
    engine: Engine, side: str
) -> None:
    resolver = make_resolver(engine, **{f"max_{side}": 64})
    with pytest.raises(InvalidRequestError, match=f"{side} is 128, the model's native; at most 64"):
        resolver.resolve(GenerationRequest(prompt="a"))
    resolver.resolve(GenerationRequest(prompt="a", **{side: 64}))


def test_an_image_that_no_queue_could_hold_is_refused_with_its_cost(engine: Engine) -> None:
    # 128 x 128 with guidance is 0.032768 megapixels a call: 30 calls just fit into one.
    resolver = make_resolver(engine, max_queued_cost=1.0)
    resolver.resolve(GenerationRequest(prompt="a", num_inference_steps=30))
    told = "an image of 128x128 in 100 steps is 3 megapixel steps; at most 1 are accepted"
    with pytest.raises(InvalidRequestError, match=told) as caught:
        resolver.resolve(GenerationRequest(prompt="a", num_inference_steps=100))
    assert caught.value.field == "num_inference_steps"


def test_clip_skip_beyond_the_models_layers_is_refused(engine: Engine) -> None:
    resolver = make_resolver(engine)
    deepest = engine.pipeline.prompt_encoder.reader.max_clip_skip
    assert resolver.resolve(GenerationRequest(prompt="a", clip_skip=deepest)).first.prompts.pairs[
        0
    ].clip_skip == (deepest)
    message = f"clip_skip is 32; this model takes 0 to {deepest}"
    with pytest.raises(InvalidRequestError, match=message) as caught:
        resolver.resolve(GenerationRequest(prompt="a", clip_skip=32))
    assert caught.value.field == "clip_skip"


@pytest.mark.parametrize(("clip_skip", "lines"), [(None, 0), (0, 0), (1, 1), (2, 1), (3, 0)])
def test_a_clip_skip_that_may_be_another_programs_is_logged(
    engine: Engine,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    clip_skip: int | None,
    lines: int,
) -> None:
    # A border that another test made in this process lets one such line a minute through.
    monkeypatch.setattr(logging.getLogger("lpw_sdxl.engine.resolver"), "filters", [])
    asked = GenerationRequest(prompt="secret", clip_skip=clip_skip)
    spec = make_resolver(engine).resolve(asked)
    assert spec.first.prompts.pairs[0].clip_skip == (clip_skip or 0)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == lines
    assert all(f"clip_skip {clip_skip}, which leaves out" in line for line in told)
    assert "secret" not in caplog.text


@pytest.mark.parametrize("field", ["prompt", "negative_prompt"])
def test_one_chunk_too_many_is_refused_by_its_field(engine: Engine, field: str) -> None:
    resolver = make_resolver(engine, max_prompt_chunks=1)
    texts = {"prompt": "a", field: "cat " * 75}
    spec = resolver.resolve(GenerationRequest(**texts))
    assert [text.chunk_count for text in spec.first.prompts.texts] == [1, 1]
    message = f"{field} fills 2 chunks of 75 tokens; at most 1 are accepted"
    with pytest.raises(InvalidPromptError, match=message) as caught:
        resolver.resolve(GenerationRequest(**texts | {field: "cat " * 76}))
    assert caught.value.field == field


async def test_prompts_are_chunked_once_from_the_request_to_its_image(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    chunk = prompt_reader.chunk_for_encoders
    monkeypatch.setattr(
        prompt_reader,
        "chunk_for_encoders",
        lambda *arguments: calls.append(arguments) or chunk(*arguments),
    )
    request = GenerationRequest(
        prompt="a fox " * 60, num_inference_steps=1, width=64, height=64, prompt_style="comfy"
    )
    await engine.generate(request)
    assert len(calls) == 1


def test_an_inspection_tells_what_would_be_refused(engine: Engine) -> None:
    asked = InspectionRequest(prompt="(a fox <lora:ink>", negative_prompt="b <lora:ink>")
    explained = make_resolver(engine).explain(asked)
    obstacle, unclosed = explained.prompt.warnings
    assert obstacle.startswith("no image is made of it: ")
    assert "'ink'" in obstacle
    assert not unclosed.startswith("no image")
    assert explained.prompt.token_count == 2
    assert explained.negative_prompt.warnings


def texts_by_step(explained: PromptInspection) -> list[tuple[int, list[str]]]:
    stages = explained.schedule.prompt
    return [(stage.until_step, [part.text for part in stage.parts]) for stage in stages]


@pytest.mark.parametrize(
    ("fields", "steps"),
    [
        ({}, 30),
        ({"num_inference_steps": 10}, 10),
        ({"num_inference_steps": 10, "scheduler": "Heun"}, 20),
    ],
    ids=["default", "own", "second order"],
)
def test_an_inspection_counts_the_steps_of_its_scheduler(
    engine: Engine, fields: dict[str, object], steps: int
) -> None:
    asked = InspectionRequest(prompt="a [cat:dog:0.4]", prompt_style="a1111", **fields)
    explained = make_resolver(engine).explain(asked)
    assert texts_by_step(explained) == [(steps * 2 // 5, ["a cat"]), (steps, ["a dog"])]


def test_the_default_steps_of_an_inspection_fit_the_server(engine: Engine) -> None:
    resolver = make_resolver(engine, max_steps=4)
    assert texts_by_step(resolver.explain(InspectionRequest(prompt="a"))) == [(4, ["a"])]
    with pytest.raises(InvalidRequestError, match="is 30; at most 4 is accepted here"):
        resolver.explain(InspectionRequest(prompt="a", num_inference_steps=30))


def test_an_inspection_has_each_text_once_and_the_prompt_is_the_first(engine: Engine) -> None:
    prompt, negative = "a [cat|(dog:1.2)|cat]<lora:ink> AND snow", "[b:c d:0.5]"
    asked = InspectionRequest(
        prompt=prompt, negative_prompt=negative, prompt_style="a1111", num_inference_steps=6
    )
    explained = make_resolver(engine).explain(asked)
    texts = explained.prompt.texts
    assert [one.text for one in texts] == ["a cat", "a (dog:1.2)", " snow"]
    assert ["".join(prompt[run.start : run.end] for run in one.runs) for one in texts] == [
        one.text for one in texts
    ]
    assert explained.prompt.spans == texts[0].explanation.spans
    assert [tag.name for tag in explained.prompt.lora_tags] == ["ink"]
    [obstacle] = explained.prompt.warnings
    assert "'ink'" in obstacle
    negatives = explained.negative_prompt.texts
    assert [one.explanation.token_count for one in negatives] == [1, 2]


def test_a_texts_warning_is_one_of_its_prompts_too(engine: Engine) -> None:
    asked = InspectionRequest(prompt="a [b:c ():0.5]", prompt_style="a1111")
    prompt = make_resolver(engine).explain(asked).prompt
    first, second = (one.explanation.warnings for one in prompt.texts)
    assert first == ()
    assert prompt.warnings == second != ()


def test_an_inspection_warns_of_more_parts_than_a_call_has_rows(engine: Engine) -> None:
    resolver = make_resolver(engine, max_rows=3)
    fits, refused = (
        resolver.explain(InspectionRequest(prompt=prompt, prompt_style="a1111")).prompt.warnings
        for prompt in ("a AND b", "a AND b AND c")
    )
    assert fits == ()
    assert "no image is made of it: prompt has 3 parts" in refused[0]
    assert "at most 3 are accepted" in refused[0]


def test_an_inspection_takes_no_more_texts_than_an_image(engine: Engine) -> None:
    resolver = make_resolver(engine, max_prompt_variants=2)
    asked = InspectionRequest(prompt="[a|b|c]", prompt_style="a1111")
    with pytest.raises(InvalidPromptError, match="2 would fit") as caught:
        resolver.explain(asked)
    assert caught.value.field == "prompt"


def test_a_long_text_that_is_written_at_each_of_many_steps_is_refused(engine: Engine) -> None:
    resolver = make_resolver(engine, max_steps=999)
    asked = InspectionRequest(
        prompt=" " * 5000 + "[a|b]", prompt_style="a1111", num_inference_steps=999
    )
    with pytest.raises(InvalidPromptError, match="with a shorter text or fewer steps"):
        resolver.explain(asked)
    resolver.explain(asked.model_copy(update={"num_inference_steps": 100}))

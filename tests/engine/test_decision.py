"""What a request becomes, and what of it is refused, without a loop and without a queue."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from lpw_sdxl.addon.registry import NO_ADDONS
from lpw_sdxl.engine import Engine
from lpw_sdxl.engine.decision import DRAWN_SEED_BITS, Decider
from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.scheduler_table import SchedulerName
from lpw_sdxl.schema import GenerationRequest, ImageSize, InspectionRequest
from lpw_sdxl.settings import Settings


def decider(engine: Engine, **settings: object) -> Decider:
    return Decider(engine.pipeline, NO_ADDONS, Settings(device="cpu", **settings))


def test_what_is_left_open_is_decided(engine: Engine) -> None:
    spec = decider(engine).decide(GenerationRequest(prompt="a fox"))
    assert spec.record.size == ImageSize(128, 128)  # the tests' model's native
    assert spec.record.scheduler is SchedulerName.EULER
    assert 0 <= spec.record.seed < 2**DRAWN_SEED_BITS


def test_a_seed_is_drawn_anew_and_one_that_is_told_stays(engine: Engine) -> None:
    one = decider(engine)
    drawn = {one.decide(GenerationRequest(prompt="a")).record.seed for _ in range(8)}
    assert len(drawn) == 8
    assert one.decide(GenerationRequest(prompt="a", seed=0)).record.seed == 0


def test_a_seed_of_more_bits_than_are_drawn_is_taken(engine: Engine) -> None:
    spec = decider(engine).decide(GenerationRequest(prompt="a", seed=2**40))
    assert spec.record.seed == 2**40
    with pytest.raises(ValidationError):
        GenerationRequest(prompt="a", seed=2**64)


def test_one_side_that_is_told_leaves_the_other_native(engine: Engine) -> None:
    spec = decider(engine).decide(GenerationRequest(prompt="a", width=192))
    assert spec.record.size == ImageSize(height=128, width=192)


@pytest.mark.parametrize("side", ["width", "height"])
def test_a_native_size_over_the_limit_is_refused_where_none_is_told(
    engine: Engine, side: str
) -> None:
    one = decider(engine, **{f"max_{side}": 64})
    with pytest.raises(InvalidRequestError, match=f"{side} is 128, the model's native; at most 64"):
        one.decide(GenerationRequest(prompt="a"))
    one.decide(GenerationRequest(prompt="a", **{side: 64}))


def test_an_image_that_no_queue_could_hold_is_refused_with_its_cost(engine: Engine) -> None:
    # 128 x 128 with guidance is 0.032768 megapixels a call: 30 calls just fit into one.
    one = decider(engine, max_queued_cost=1.0)
    one.decide(GenerationRequest(prompt="a", num_inference_steps=30))
    told = "an image of 128x128 in 100 steps is 3 megapixel steps; at most 1 are accepted"
    with pytest.raises(InvalidRequestError, match=told) as caught:
        one.decide(GenerationRequest(prompt="a", num_inference_steps=100))
    assert caught.value.field == "num_inference_steps"


def test_an_inspection_tells_what_would_be_refused(engine: Engine) -> None:
    asked = InspectionRequest(prompt="(a fox <lora:ink>", negative_prompt="b <lora:ink>")
    explained = decider(engine).explain(asked)
    obstacle, unclosed = explained.prompt.warnings
    assert obstacle.startswith("no image is made of it: ")
    assert "'ink'" in obstacle
    assert not unclosed.startswith("no image")
    assert explained.prompt.token_count == 2
    assert explained.negative_prompt.warnings

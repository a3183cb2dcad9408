"""Texts in the steps in which they are in force, read and encoded."""

import pytest
import torch

from lpw_sdxl.conditioning.assembly import Conditioning
from lpw_sdxl.conditioning.read_schedule import ReadPart
from lpw_sdxl.conditioning.scheduled import ScheduledConditioning
from lpw_sdxl.errors import InvalidPromptError
from lpw_sdxl.prompt import PromptStyle, Steps

STYLE = PromptStyle.A1111


def read(encoder, prompt, negative_prompt="", steps=10):
    schedules = encoder.reader.parse_schedules(prompt, negative_prompt, STYLE, Steps(steps))
    return encoder.reader.read_schedule(schedules, STYLE)


def test_a_stage_ends_where_either_prompt_changes(encoder):
    schedule = read(encoder, "[a:b:4]", "[c:d:6]")
    assert [(stage.until_call, stage.parts, stage.negative_index) for stage in schedule.stages] == [
        (4, (ReadPart(0),), 0),
        (6, (ReadPart(1),), 0),
        (10, (ReadPart(1),), 1),
    ]


def test_each_text_is_read_once_and_the_shorter_side_has_none(encoder):
    schedule = read(encoder, "[a|b|c] AND [b|d]", "[e|f]", steps=12)
    assert len(schedule.texts) == 5 + 2
    assert [pair.negative_prompt is None for pair in schedule.pairs] == [False] * 2 + [True] * 3
    assert schedule.part_count == 2


@pytest.mark.parametrize(
    ("prompt", "has_weights"), [("a", False), ("a :1", False), ("a :2", True), ("a AND b", True)]
)
def test_one_part_of_weight_1_has_no_weights(encoder, prompt, has_weights):
    assert read(encoder, prompt).has_weights is has_weights


@pytest.mark.parametrize("field", ["prompt", "negative_prompt"])
def test_a_refused_tag_is_refused_by_its_field(encoder, field):
    texts = {"prompt": "a", field: "[a|b] <hypernet:y>"}
    with pytest.raises(InvalidPromptError) as caught:
        read(encoder, *texts.values())
    assert caught.value.field == field


def conditioning(value, tokens):
    embeds, pooled = torch.full((tokens, 2), value), torch.full((3,), value)
    embeds[-1] += 0.5
    return Conditioning(embeds, -embeds, pooled, -pooled)


def test_a_call_has_the_texts_in_force_and_the_last_stage_goes_on(encoder):
    schedule = read(encoder, "[a:b:4]")
    encoded = [conditioning(1.0, 77), conditioning(2.0, 77)]
    scheduled = ScheduledConditioning.of(schedule, encoded)
    values = [scheduled.at(call).parts[0].pooled[0].item() for call in (1, 4, 5, 10, 11)]
    assert values == [1, 1, 2, 2, 2]
    assert {scheduled.at(call).negative.pooled[0].item() for call in (1, 10)} == {-1}


def test_parts_of_fewer_tokens_go_on_with_their_last_vector(encoder):
    schedule = read(encoder, "[a|b] AND c :0.5")
    encoded = [conditioning(float(index), 77 * (index + 1)) for index in range(3)]
    scheduled = ScheduledConditioning.of(schedule, encoded)
    first = scheduled.at(1)
    assert first.weights == (1.0, 0.5)
    rows = first.rows(is_guided=False)
    short, long = (row.text.lengthened(row.tokens).embeds for row in rows)
    assert short.shape == long.shape == (231, 2)
    assert (short[:76] == 0).all()
    assert (short[76:] == 0.5).all()
    assert scheduled.at(3).parts[0] is first.parts[0], "the same object wherever it is in force"


def test_a_text_beside_others_of_many_lengths_is_kept_once(encoder):
    schedule = read(encoder, "[a|b|c] AND d")
    encoded = [conditioning(float(index), 77 * (4 - index)) for index in range(4)]
    stages = ScheduledConditioning.of(schedule, encoded).stages
    assert {stage.rows(is_guided=False)[1].tokens for stage in stages} == {308, 231, 154}
    assert {id(stage.parts[1].embeds) for stage in stages} == {id(encoded[3].prompt_embeds)}

"""Agreement with the schedules and parts that A1111's own parser gave."""

import json
from pathlib import Path

import pytest

from lpw_sdxl.prompt import PromptField, PromptStyle, Steps, parse_schedule

GOLDEN = json.loads(
    (Path(__file__).parents[1] / "golden" / "a1111_schedules_public.json").read_text("utf-8")
)
STYLES = [PromptStyle.A1111, PromptStyle.A1111_ORIGINAL]


def named(cases):
    return pytest.mark.parametrize("case", cases, ids=lambda case: case["prompt"])


@pytest.mark.parametrize("style", STYLES)
@named(GOLDEN["schedules"])
def test_every_text_is_in_force_when_it_was_there(case, style):
    count, before = case["steps"], None
    if case["hires_steps"] is not None:
        count, before = case["hires_steps"], case["steps"]
    for field in PromptField:
        [part] = parse_schedule(
            case["prompt"], Steps(count, before), style=style, field=field
        ).parts
        texts = [[span.until_step, span.variant.text] for span in part.spans]
        assert texts == case["schedule"]


@pytest.mark.parametrize("style", STYLES)
@named(GOLDEN["composables"])
def test_every_part_has_its_text_and_weight(case, style):
    schedule = parse_schedule(case["prompt"], Steps(10), style=style)
    [stage] = schedule.stages()
    assert [[part.variant.text, part.weight] for part in stage.parts] == case["parts"]


def test_there_are_as_many_vectors_as_the_readme_s_file_had():
    assert (len(GOLDEN["schedules"]), len(GOLDEN["composables"])) == (36, 10)

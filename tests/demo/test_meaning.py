"""What pictures show, asked of the trained demo model: prompts mean what they say.

Bars are those of tests, well below what the model reaches (benchmarks/demo_pictures.py): seeds
differ, and a picture that is wrong now and then is no defect of the code.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from demo.looking import Seen, distance_to
from demo.scene import HELD_OUT, Scene

Looker = Callable[..., list[Seen]]

FILLER = (
    "an old lighthouse keeper remembers stormy nights, distant ships, quiet harbour, seagulls, "
    "wooden boats, nets drying, cobblestone streets after rain, warm lanterns, people talking, "
)
TOLD = "a {size} {colour} {shape} on a {background} background, {place}"


def scenes(count: int) -> list[Scene]:
    return random.Random(count).sample(HELD_OUT, count)


def told(scene: Scene) -> str:
    return TOLD.format(**scene._asdict())


def right(expected: Sequence[Scene], seen: Sequence[Seen], *names: str) -> float:
    """In what share of pictures these attributes are as told."""
    return float(
        np.mean(
            [
                one.scene is not None
                and all(getattr(one.scene, name) == getattr(scene, name) for name in names)
                for scene, one in zip(expected, seen, strict=True)
            ]
        )
    )


@pytest.mark.parametrize(
    ("before", "after"), [(0, 0), (0, 10), (5, 5), (10, 0)], ids=["alone", "first", "amid", "last"]
)
def test_words_count_wherever_they_stand_in_400_tokens(
    look_at: Looker, before: int, after: int
) -> None:
    expected = scenes(8)
    seen = look_at([FILLER * before + told(scene) + ", " + FILLER * after for scene in expected])
    assert right(expected, seen, "colour") >= 0.75
    assert right(expected, seen, "background") >= 0.75
    assert right(expected, seen, "place") >= 0.7


def test_another_prompt_gives_another_picture(look_at: Looker) -> None:
    """The eyes above would not pass a model that draws the same whatever it is told."""
    expected = scenes(8)
    seen = look_at([told(scene) for scene in expected[1:] + expected[:1]])
    assert right(expected, seen, "colour", "background", "place") <= 0.2


@pytest.mark.parametrize("style", ["lpw", "a1111"])
def test_a_weight_strengthens_and_weakens(look_at: Looker, style: str) -> None:
    distances = [
        [
            distance_to(one.colour, "red")
            for one in look_at(
                [f"a (red:{weight}) circle on a blue background, center"] * 8,
                {"prompt_style": style},
            )
        ]
        for weight in ("1.6", "0.4")
    ]
    assert np.mean(np.array(distances[0]) < np.array(distances[1])) >= 0.8


def test_a_negative_prompt_pushes_away(look_at: Looker) -> None:
    prompts = ["a large shape on a white background, center"] * 6
    plain = look_at(prompts, {"negative_prompt": ""})
    for colour in ("red", "green", "blue"):
        pushed = look_at(prompts, {"negative_prompt": f"{colour} shape"})
        assert distance(pushed, colour) > distance(plain, colour), colour


def distance(seen: Sequence[Seen], colour: str) -> float:
    return float(np.mean([distance_to(one.colour, colour) for one in seen]))


def test_break_separates_and_loses_nothing(look_at: Looker) -> None:
    expected = scenes(8)
    seen = look_at(
        [
            f"{scene.size} {scene.colour} {scene.shape} BREAK {scene.background} background "
            f"BREAK {scene.place}"
            for scene in expected
        ]
    )
    for name, bar in (("colour", 0.7), ("background", 0.7), ("place", 0.65)):
        assert right(expected, seen, name) >= bar, name

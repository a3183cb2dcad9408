"""Two thousand requests with loose scalars mean what the strict ones mean."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from a1111_orders import order_of
from lpw_sdxl.doors.a1111.known_fields import PICTURE_FIELDS, TEXT_FIELDS
from lpw_sdxl.doors.a1111.order import ImageOrder
from recordings import A1111, Recording, recordings

VARIANTS = 2000
PLAIN = [one for one in recordings(A1111) if "adetailer" not in one.name]
_TEXTS = ("prompt", "negative_prompt", "hr_prompt", "hr_negative_prompt")
_OLD = ("firstphase_width", "firstphase_height")


def _numbers(value: float, draw: random.Random) -> Any:
    ways: list[Callable[[], Any]] = [lambda: str(value), lambda: f" {value} "]
    if float(value).is_integer() and abs(value) < 2**53:
        ways += [lambda: float(value), lambda: f"{value:.1f}"]
        if isinstance(value, int) and value not in (0, 1):
            ways.append(lambda: value + 0.25 if value >= 0 else value - 0.25)  # it is cut off
    if value in (0, 1):
        ways.append(lambda: bool(value))
    return draw.choice(ways)()


def _flags(value: bool, draw: random.Random) -> Any:
    true = ["true", "True", "TRUE", "1", 1, 1.0, "yes", "on", "1.0"]
    false = ["false", "False", "0", 0, 0.0, "no", "off", "0.0"]
    return draw.choice(true if value else false)


def loosen(body: dict[str, Any], defaults: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    """Write some of a body's scalars otherwise, and add what means nothing."""
    loose = dict(body)
    for name, value in body.items():
        if draw.random() < 0.4:
            continue
        if name not in {**PICTURE_FIELDS, **TEXT_FIELDS}:
            continue  # it is ignored
        if isinstance(value, bool):
            loose[name] = _flags(value, draw)
        elif isinstance(value, int | float):
            whole = isinstance(defaults.get(name), int) and not isinstance(defaults[name], bool)
            loose[name] = _numbers(value if whole else float(value), draw)
        elif value is None:
            loose[name] = draw.choice(["", None])
    absent = [name for name, one in defaults.items() if name not in body and one is None]
    loose |= dict.fromkeys(draw.sample(absent, draw.randrange(len(absent))), None)
    texts = [name for name in _TEXTS if name not in body]
    loose |= dict.fromkeys(draw.sample(texts, draw.randrange(len(texts) + 1)), "")
    if draw.random() < 0.3:
        loose |= {"unheard_of": draw.choice([1, {"a": [1]}, "x"]), "save_images": "perhaps"}
    if settings := body.get("override_settings"):
        numbers = {name: one for name, one in settings.items() if isinstance(one, float | int)}
        loose["override_settings"] = settings | {
            name: _numbers(float(one), draw)
            for name, one in numbers.items()
            if not isinstance(one, bool)
        }
    return loose


def meaning(body: dict[str, Any], *, is_picture: bool) -> ImageOrder:
    order = order_of(body, is_picture=is_picture)
    return replace(order, echo={}, notes={}, unknown_fields=0)


@pytest.mark.parametrize("recording", PLAIN, ids=[one.name for one in PLAIN])
def test_loose_scalars_mean_what_strict_ones_mean(recording: Recording) -> None:
    draw = random.Random(recording.name)
    is_picture = "img2img" in recording.target
    defaults = dict(PICTURE_FIELDS if is_picture else TEXT_FIELDS)
    strict = meaning(recording.body, is_picture=is_picture)
    count = -(-VARIANTS // len(PLAIN))
    seen = set()
    for _ in range(count):
        loose = loosen(recording.body, defaults, draw)
        seen.add(json.dumps(loose, sort_keys=True))
        assert meaning(loose, is_picture=is_picture) == strict, loose
    assert len(seen) > count / 2

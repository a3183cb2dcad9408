"""Tags: where one begins, what its parts mean, why one is refused, and one written as text.

A tag is everything from `<lora:` to the next `>`, as in AUTOMATIC1111 (A1111, modules and
extensions-builtin/Lora: extra_networks*.py), and no part of it is ever text. Its parts are those of
A1111: `<lora:name>` with a weight of 1, `<lora:name:weight>`, `<lora:name:te:unet>` for the text
encoders and the UNet, and `te=` and `unet=`, which replace them. A UNet's weight that isn't written
is the text encoders'. White space may stand around each part. `lyco` is that program's older word
for LyCORIS' kinds, and means the same; both words may be in upper case.

A1111 ignores what it doesn't know of a tag. Here that is refused: the picture would be another one
than the tag's author saw.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple

from lpw_sdxl.prompt.syntax import LoraTag, RefusedTag

TAG_BEGINNING = re.compile("<(?i:lora|lyco|hypernet):")
TAG = re.compile(rf"{TAG_BEGINNING.pattern}[^>]*+>")
LONGEST_NAME = 128  # characters, without the white space around

_HYPERNET = "hypernet"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_POSITIONS = ("the text encoders' weight", "the UNet's weight")
_WEIGHTS = {"te": _POSITIONS[0], "unet": _POSITIONS[1]}
# Named parts of other programs and extensions that change the picture, and what they do there.
_FOREIGN: Mapping[str, str] = {
    "dyn": "a smaller rank",
    "lbw": "weights of single blocks",
    "lbwe": "weights of single blocks",
    "in": "a weight of the UNet's first half",
    "mid": "a weight of the UNet's middle",
    "out": "a weight of the UNet's second half",
    "start": "the step at which the LoRA begins",
    "stop": "the step at which the LoRA ends",
    "step": "the steps in which the LoRA works",
    "hr": "a weight of a second pass",
    "hrte": "a weight of a second pass",
    "hrunet": "a weight of a second pass",
}
# A part is quoted if it is one short word: one that runs on may be the prompt's text.
_QUOTABLE = re.compile(r"[\w.,+*/@~;|-]{1,24}")
_RIGHT = "as in <lora:name:0.8> or <lora:name:te=0.5:unet=0.8>"


def find_tags(text: str) -> Iterator[re.Match[str]]:
    """Find the tags of a text, in time linear in it."""
    # Behind the last `>` no tag ends: to look for the end of each would take quadratic time.
    return TAG.finditer(text, 0, text.rfind(">") + 1)


def read_tag(tag: str, start: int, end: int) -> LoraTag | RefusedTag:
    """Read a tag, in time linear in its length.

    Args:
        tag: from its `<` to its `>`.
        start: of the tag in the prompt, characters.
        end: one past its `>` there.
    """
    word, _, inside = tag[1:-1].partition(":")
    is_lora = word.lower() != _HYPERNET
    noun = "LoRA tag" if is_lora else "tag"
    try:
        if not is_lora:
            raise _TagError(f"names a hypernetwork; those are not served, LoRAs are, {_RIGHT}")
        name, weights = _read_parts(inside)
    except _TagError as error:
        return RefusedTag(f"the {noun} at character {start} {error}", is_lora, start, end)
    return LoraTag(name, weights.unet, weights.text_encoder, start, end)


def has_open_tag(text: str) -> bool:
    """Return whether a tag begins in a text and never ends: a `>` behind it would end it."""
    return TAG_BEGINNING.search(text, text.rfind(">") + 1) is not None


def write_tag(tag: LoraTag) -> str:
    """Write a tag with one number, or with two if the text encoders' differs from the UNet's."""
    numbers = dict.fromkeys(map(write_number, (tag.text_encoder_weight, tag.weight)))
    return f"<lora:{tag.name}:{':'.join(numbers)}>"


def write_number(number: float) -> str:
    """Write a number with every digit and no exponent, so that reading restores it exactly."""
    return f"{Decimal(repr(float(number))):f}"


class _TagError(Exception):
    """A reason to refuse a tag, as the rest of a sentence that begins with the tag."""


class _Weights(NamedTuple):
    """A tag's weights."""

    unet: float
    text_encoder: float


def _read_parts(inside: str) -> tuple[str, _Weights]:
    if "<" in inside:
        raise _TagError("has another < before its >; each tag needs a > of its own")
    name, *parts = (part.strip() for part in inside.split(":"))
    _check_name(name)
    positional = [part for part in parts if "=" not in part]
    named = _read_named([part for part in parts if "=" in part])
    numbers = [_read_number(*pair) for pair in zip(_POSITIONS, positional, strict=False)]
    if len(positional) > len(_POSITIONS):
        raise _TagError(
            f"has {len(positional)} parts behind its name; the third, dyn in A1111"
            f" ({_FOREIGN['dyn']}), is not done here; one weight or two would be right, {_RIGHT}"
        )
    text_encoder = named.get("te", numbers[0] if numbers else 1.0)
    unet = named.get("unet", numbers[1] if len(numbers) > 1 else text_encoder)
    return name, _Weights(unet=unet, text_encoder=text_encoder)


def _check_name(name: str) -> None:
    if not name:
        raise _TagError(f"has no name; the name of a LoRA would be right, {_RIGHT}")
    if len(name) > LONGEST_NAME:
        raise _TagError(
            f"has a name of {len(name)} characters; at most {LONGEST_NAME} would be right"
        )
    if _CONTROL.search(name):
        raise _TagError("has a line break or another control character in its name")


def _read_named(parts: Sequence[str]) -> Mapping[str, float]:
    numbers: dict[str, float] = {}
    for part in parts:
        key, _, value = (one.strip() for one in part.partition("="))
        if key not in _WEIGHTS:
            raise _TagError(_explain_key(key))
        number = _read_number(f"{key}=, {_WEIGHTS[key]}", value)
        if numbers.setdefault(key, number) != number:
            raise _TagError(f"has two different {key}=; one would be right")
    return numbers


def _explain_key(key: str) -> str:
    shown = f"the part {key}=" if _QUOTABLE.fullmatch(key) else "a named part"
    meaning = f" ({_FOREIGN[key]})" if key in _FOREIGN else ""
    return f"has {shown}{meaning}, which is not done here; te= and unet= would be right, {_RIGHT}"


def _read_number(noun: str, text: str) -> float:
    """Read a number as Python's float does, and A1111 with it."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        shown = f" ({text})" if _QUOTABLE.fullmatch(text) else "" if text else " (it is empty)"
        raise _TagError(f"has no finite number{shown} for {noun}; one would be right, {_RIGHT}")
    return number

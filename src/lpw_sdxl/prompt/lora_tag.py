r"""LoRA tags: their pattern, the parts of one, and one written as text.

The form is AUTOMATIC1111's: `<lora:name>` with a weight of 1, `<lora:name:weight>`,
`<lora:name:te:unet>` for the text encoders and the UNet, and `te=` and `unet=` behind those, which
replace them. A UNet's weight that isn't written is the text encoders'. White space may stand
around each part. `lyco` is that program's older word for LyCORIS' kinds, and means the same.

A fourth part and `dyn=`, which cut a LoRA's rank there, make a tag malformed: its effect here would
differ from its effect there.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import NamedTuple

from lpw_sdxl.prompt.syntax import LoraTag

LORA_BEGINNING = re.compile("<(?:lora|lyco):")
LONGEST_NAME = 128  # characters, with the white space around

_CONTROLS = r"\x00-\x1f\x7f-\x9f"
_WORD = rf"[^\s<>:{_CONTROLS}]++"
_BLANK = r"\s*+"
_NAME = rf"(?![^<>:]{{{LONGEST_NAME + 1}}}){_BLANK}{_WORD}(?:[^\S{_CONTROLS}]++{_WORD})*+{_BLANK}"
# `\d` is any decimal digit of Unicode, as in a bracket's weight; float() reads them all.
_NUMBER = rf"{_BLANK}[+-]?+(?:\d++\.?+\d*+|\.\d++){_BLANK}"
_TE = rf":{_BLANK}te{_BLANK}={_NUMBER}"
_UNET = rf":{_BLANK}unet{_BLANK}={_NUMBER}"
_NAMED = rf"(?:{_TE}(?:{_UNET})?+|{_UNET}(?:{_TE})?+)?+"
# Every part begins where the one before ended and never goes back: linear in the tag's length.
LORA_TAG = re.compile(rf"{LORA_BEGINNING.pattern}(?P<lora>{_NAME}(?::{_NUMBER}){{0,2}}+{_NAMED})>")


class TagWeights(NamedTuple):
    """A tag's weights."""

    unet: float
    text_encoder: float


class TagParts(NamedTuple):
    """The parts of a tag."""

    name: str
    weights: TagWeights


def read_tag(inside: str) -> TagParts:
    """Read the text that `LORA_TAG` found between a tag's beginning and its end."""
    name, *parts = (part.strip() for part in inside.split(":"))
    positional = [float(part) for part in parts if "=" not in part]
    named = {
        key.strip(): float(number)
        for key, equals, number in (part.partition("=") for part in parts)
        if equals
    }
    text_encoder = named.get("te", positional[0] if positional else 1.0)
    unet = named.get("unet", positional[1] if len(positional) > 1 else text_encoder)
    return TagParts(name, TagWeights(unet=unet, text_encoder=text_encoder))


def write_tag(tag: LoraTag) -> str:
    """Write a tag with one number, or with two if the text encoders' differs from the UNet's."""
    numbers = dict.fromkeys(map(write_number, (tag.text_encoder_weight, tag.weight)))
    return f"<lora:{tag.name}:{':'.join(numbers)}>"


def write_number(number: float) -> str:
    """Write a number with every digit and no exponent, so that reading restores it exactly."""
    return f"{Decimal(repr(float(number))):f}"

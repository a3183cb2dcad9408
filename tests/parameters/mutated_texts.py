"""Texts that are spoilt by chance: pieces lost, doubled, swapped, or put into another text."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

from tests.parameters import a1111_texts, fork_texts, odd_texts, page_texts

TEXTS = [
    *(
        case.text
        for module in (a1111_texts, fork_texts, page_texts, odd_texts)
        for case in module.CASES
    ),
    *(text for text, _ in odd_texts.REFUSED.values() if len(text) < 1000),
]
_MARKS = (
    ",", ":", '"', "\n", "\r\n", "\0", "{", "}", "[", "]", "<", ">", "\\", "\u2028", "\ud800", "*",
    "Steps: 20", "Negative prompt:", "<lora:a:1>", ", Size: 0x0", ", Seed: -5", ", CFG scale: nan",
    ", Variation seed strength: 1e999", "\u0663", "\ufeff", "Template:", ", Hires upscale: 2",
)  # fmt: skip


def mutated_texts(count: int, seed: int) -> Iterator[str]:
    """Yield texts, each spoilt in one to four ways; the same for the same seed."""
    chance = random.Random(seed)
    for _ in range(count):
        text = chance.choice(TEXTS)
        for _ in range(chance.randint(1, 4)):
            text = chance.choice(_WAYS)(text, chance)
        yield text


def _cut(text: str, chance: random.Random) -> str:
    start, end = _two(text, chance)
    return text[:start] + text[end:]


def _double(text: str, chance: random.Random) -> str:
    start, end = _two(text, chance)
    return text[:end] + text[start:]


def _put_mark(text: str, chance: random.Random) -> str:
    place, _ = _two(text, chance)
    return text[:place] + chance.choice(_MARKS) * chance.choice((1, 1, 1, 50)) + text[place:]


def _put_character(text: str, chance: random.Random) -> str:
    place, _ = _two(text, chance)
    return text[:place] + chr(chance.randrange(0x110000)) + text[place + 1 :]


def _swap(text: str, chance: random.Random) -> str:
    pieces = text.split(",")
    chance.shuffle(pieces)
    return ",".join(pieces)


def _graft(text: str, chance: random.Random) -> str:
    other = chance.choice(TEXTS)
    return text[: _two(text, chance)[0]] + other[_two(other, chance)[0] :]


def _two(text: str, chance: random.Random) -> Sequence[int]:
    return sorted(chance.randint(0, len(text)) for _ in range(2))


_WAYS: Sequence[Callable[[str, random.Random], str]] = (
    _cut, _double, _put_mark, _put_character, _swap, _graft,
)  # fmt: skip

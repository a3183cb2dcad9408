"""A `parameters` text taken apart, in the words of the program that wrote it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

# Other programs' names of A1111's keys.
_ALIASES: Mapping[str, str] = {
    "cfg": "cfg scale",
    "guidance scale": "cfg scale",
    "clipskip": "clip skip",
    "sampling method": "sampler",
    "scheduler": "schedule type",
}


class Pair(NamedTuple):
    """A key and its value.

    Attributes:
        key: as it is written.
        value: without the quotes that it may have.
    """

    key: str
    value: str


@dataclass(frozen=True)
class WrittenParameters:
    """A text's prompts and pairs.

    Attributes:
        prompt: without white space around it, unless it is a text of our own.
        negative_prompt: likewise.
        pairs: in their order; of two with one key the last one counts.
    """

    prompt: str
    negative_prompt: str = ""
    pairs: tuple[Pair, ...] = ()

    @cached_property
    def by_key(self) -> Mapping[str, Pair]:
        """Return the pairs by `plain_key`."""
        return {plain_key(pair.key): pair for pair in self.pairs}

    def value(self, key: str) -> str:
        """Return the value of a plain key; empty where there is none."""
        pair = self.by_key.get(key)
        return "" if pair is None else pair.value


def plain_key(key: str) -> str:
    """Reduce a key to the form that all its spellings share: A1111's in lower case."""
    plain = " ".join(key.casefold().replace("_", " ").split())
    return _ALIASES.get(plain, plain)

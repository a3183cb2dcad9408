"""Embeddings' names in texts; it knows nothing of their vectors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from enum import Enum
from string import ascii_lowercase, ascii_uppercase
from typing import NamedTuple

NAME = re.compile(r"[A-Za-z0-9._/-]+")
"""A whole name of an embedding: characters that any prompt can hold as one word.

The `/` is behind the folders of one that shares its name with another."""

_LOWER = str.maketrans(ascii_uppercase, ascii_lowercase)
# A name is a whole word: `-` joins as letters do, and a combining accent belongs to its letter.
_WORD = r"\w\-\u0300-\u036f"
# ComfyUI's users may write the file's ending too.
_ENDING = r"(?:\.(?:safetensors|pt|bin))?"

EMBEDDING_PREFIX = re.compile(rf"(?<![{_WORD}])embedding:(?=\S)", re.IGNORECASE)
"""The prefix that marks a name."""


class MentionForm(Enum):
    """The form in which a style names an embedding; the value is the pattern of its prefix."""

    BARE_OR_PREFIXED = "(embedding:)?"
    PREFIXED = "(embedding:)"


class Mention(NamedTuple):
    """An embedding's name in a text.

    Attributes:
        name: as it was imported, whatever its case in the text.
        start: where it begins, `embedding:` included, characters.
        end: one past its last character.
    """

    name: str
    start: int
    end: int


class MentionFinder:
    """A search for names in texts, in one pass."""

    def __init__(self, names: Iterable[str], form: MentionForm) -> None:
        """Build the pattern of all names.

        Args:
            names: at least one, each as `NAME`; they differ by more than their case.
            form: how texts write them.
        """
        self._names = {name.lower(): name for name in names}
        # Longest first, so that `hand.v2` is not found as `hand`. Plain literals side by side: a
        # place where none begins costs one comparison for each.
        known = "|".join(map(re.escape, sorted(self._names, key=len, reverse=True)))
        self._pattern = re.compile(
            rf"(?<![{_WORD}]){form.value}({known})(?(1){_ENDING})(?![{_WORD}])"
        )

    def find(self, text: str) -> Iterator[Mention]:
        """Yield the names in a text, from left to right; of two at one place the longer."""
        # Only ASCII letters are lowered: no place moves, and no other letter becomes one of a name.
        for match in self._pattern.finditer(text.translate(_LOWER)):
            yield Mention(self._names[match[2]], *match.span())

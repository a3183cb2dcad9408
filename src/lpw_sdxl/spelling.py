"""Names that are understood in any spelling: of an enumeration, and other programs' for the same.

It knows nothing of what the names stand for.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from enum import StrEnum
from typing import Generic, TypeVar

from pydantic_core import PydanticCustomError

LONGEST_NAME = 64  # characters; a longer text is compared with no name

NameT = TypeVar("NameT", bound=StrEnum)


class Spellings(Generic[NameT]):
    """The names of an enumeration in every spelling.

    Case, blanks, hyphens, underscores, `pp` for `++` and a leading `k_` don't matter, so that
    `dpmpp_2m_sde`, `uni_pc`, `k_euler_a` and `SGM Uniform` are known without being listed.

    Args:
        noun: what a name is of, such as `scheduler`.
        names: the enumeration.
        aliases: other names that are no mere spelling of these.
    """

    def __init__(self, noun: str, names: type[NameT], aliases: Mapping[str, NameT]) -> None:
        self._noun = noun
        self._names = names
        self._by_spelling = {
            **{_spelling(alias): name for alias, name in aliases.items()},
            **{_spelling(name): name for name in names},
        }

    def find(self, text: str) -> NameT | None:
        """Find a name by any of its spellings; None where there is none."""
        return self._by_spelling.get(_spelling(text))

    def read(self, value: object) -> object:
        """Convert a name in any spelling to ours; return other values, for pydantic.

        Raises:
            PydanticCustomError: there is no such name; the error lists near and known names.
        """
        if not isinstance(value, str):
            return value
        found = self.find(value)
        if found is None:
            near = difflib.get_close_matches(_spelling(value), self._by_spelling, n=1)
            raise PydanticCustomError(
                "unknown_name",
                "not {noun}; {hint}known are {known}",
                {
                    "noun": f"{'an' if self._noun[0] in 'aeiou' else 'a'} {self._noun}",
                    "hint": f"did you mean '{self._by_spelling[near[0]]}'? " if near else "",
                    "known": ", ".join(f"'{name}'" for name in self._names),
                },
            )
        return found


def _spelling(name: str) -> str:
    """Reduce a name to the form that all its spellings share."""
    if len(name) > LONGEST_NAME:
        return ""
    lowered = name.casefold().removeprefix("k_").replace("++", "pp")
    return "".join(lowered.replace("_", " ").replace("-", " ").split())

"""Warnings of text that is allowed and seldom meant; they never hold any of the prompt's text."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class WarningKind(StrEnum):
    """A kind of text that is allowed and seldom meant; the value is the warning's sentence."""

    UNCLOSED_BRACKET = "an opening bracket is never closed and counts to the end of the prompt"
    UNMATCHED_BRACKET = "a closing bracket has no opening one and is read as text"
    NUMBER_IS_TEXT = (
        "a number before a closing bracket is read as text; "
        "a weight is one number in round brackets, (text:1.2), and has no spaces in the lpw style"
    )
    WEIGHT_WITHOUT_TEXT = "a bracket's weight stands around no text and has no effect"
    WEIGHT_CHANGES_NOTHING = "a weight is the one that its text has without it, and has no effect"
    LONE_BACKSLASH = "a backslash that escapes no bracket is left out"
    UNCLOSED_TAG = "a tag that begins with <lora: or its like has no > and is read as text"
    UNKNOWN_TAG = "a tag is read as text; only <lora:name:weight>, so spelled, is known"
    UNKNOWN_EMBEDDING = (
        "what follows embedding: is no embedding that is known here, and is read as text; "
        "/info lists the known ones"
    )
    BREAK_IS_TEXT = (
        "the word BREAK is read as text; a chunk ends at BREAK in capitals, in the styles that "
        "know it (lpw and a1111)"
    )
    WEIGHED_BREAK = (
        "BREAK in brackets that change its weight starts no chunk in the a1111 styles: as there, "
        "it is read as the word, at minus the brackets' weight; outside of them it starts one"
    )
    SCHEDULE_IS_TEXT = (
        "[a:b:when] or [a|b] is read as text, with the weight of its brackets; the a1111 styles "
        "change the text by step"
    )
    SCHEDULE_IS_PLAIN = (
        "[a:b:when] or [a|b] is read as text because of a | outside of such brackets, or a "
        "backslash at the end of a line: as in A1111 these make the whole text plain"
    )
    AND_IS_TEXT = (
        "the word AND is read as text; it stands between the parts of a prompt in the a1111 "
        "styles, and there too it is a word of a negative prompt"
    )
    WEIGHT_OF_ALL = (
        "a colon and a number end the prompt and are the weight of all of it, as in A1111; they "
        "are no text"
    )
    COMMENT = "a # begins a comment, also before a number: it is not read, to the end of its line"
    SPLIT_WORD = "a word is split over the boundary of two chunks"


@dataclass(frozen=True, slots=True)
class PromptWarning:
    """One kind of warning; a prompt has at most one of each kind, so a report stays short.

    Attributes:
        kind: of the text.
        position: of its first occurrence, characters.
        count: of its occurrences.
    """

    kind: WarningKind
    position: int
    count: int = 1

    def __str__(self) -> str:
        """Write the warning as one sentence, without any text of the prompt."""
        times = "" if self.count == 1 else f" ({self.count} times)"
        return f"character {self.position}: {self.kind.value}{times}"


class WarningTally:
    """The warnings of one prompt, counted while it is parsed."""

    def __init__(self) -> None:
        self._seen: dict[WarningKind, tuple[int, int]] = {}  # first position and count

    def add(self, kind: WarningKind, position: int) -> None:
        """Count one more of a kind; the positions may come in any order."""
        first, count = self._seen.get(kind, (position, 0))
        self._seen[kind] = min(first, position), count + 1

    def warnings(self) -> tuple[PromptWarning, ...]:
        """Return the warnings that were counted, in the order of `WarningKind`."""
        return tuple(
            PromptWarning(kind, *self._seen[kind]) for kind in WarningKind if kind in self._seen
        )

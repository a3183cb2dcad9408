"""The tree that a prompt's text is parsed into; it knows nothing of tokens or tensors.

Positions are indexes into the text, in characters; `end` is one past the last.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of text with one weight, brackets and escapes taken out.

    Neighbours of exactly equal weight are one span: `(a)(b)` is `ab`, and is tokenised as one
    word. The positions then reach from the first piece to the last.
    """

    text: str
    weight: float
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Break:
    """The word BREAK: what follows starts a new chunk. It has no weight."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class LoraTag:
    """A `<lora:name:weight>`; the text encoders never see it. Brackets don't change its weight."""

    name: str
    weight: float
    start: int
    end: int


Node = Span | Break | LoraTag


class WarningKind(StrEnum):
    """What a prompt may hold that is allowed and seldom meant; the value is the sentence."""

    UNCLOSED_BRACKET = "an opening bracket is never closed and counts to the end of the prompt"
    UNMATCHED_BRACKET = "a closing bracket has no opening one and is read as text"
    NUMBER_IS_TEXT = (
        "a number before a closing bracket is read as text; "
        "a weight is written (text:1.2), in round brackets and without spaces"
    )
    WEIGHT_WITHOUT_TEXT = "a weight stands around no text and has no effect"
    LONE_BACKSLASH = "a backslash that escapes no bracket is left out"
    MALFORMED_LORA_TAG = "a LoRA tag is not of the form <lora:name:weight> and is read as text"


@dataclass(frozen=True, slots=True)
class PromptWarning:
    """One kind of warning; a prompt has at most one of each kind, so a report stays short.

    Attributes:
        kind: what was seen.
        position: where it was seen first.
        count: how often it was seen.
    """

    kind: WarningKind
    position: int
    count: int = 1

    def __str__(self) -> str:
        """Write the warning as one sentence, without any text of the prompt."""
        times = "" if self.count == 1 else f" ({self.count} times)"
        return f"character {self.position}: {self.kind.value}{times}"


@dataclass(frozen=True, slots=True)
class Prompt:
    """A parsed prompt.

    Attributes:
        text: the text as it was given.
        nodes: in the order of the text; no span is empty.
        warnings: in the order of `WarningKind`.
    """

    text: str
    nodes: tuple[Node, ...]
    warnings: tuple[PromptWarning, ...] = ()

    @property
    def spans(self) -> tuple[Span, ...]:
        """The weighted text."""
        return tuple(node for node in self.nodes if isinstance(node, Span))

    @property
    def breaks(self) -> tuple[Break, ...]:
        """The chunk borders that the text asks for."""
        return tuple(node for node in self.nodes if isinstance(node, Break))

    @property
    def lora_tags(self) -> tuple[LoraTag, ...]:
        """The LoRA tags, repeated names included."""
        return tuple(node for node in self.nodes if isinstance(node, LoraTag))

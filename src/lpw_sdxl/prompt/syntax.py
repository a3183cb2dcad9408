"""The tree of a parsed prompt; it knows nothing of tokens or tensors.

Positions are indexes into the text, in characters; `end` is one past the last. In the tree of one
of the texts that a prompt becomes by step they are indexes into the prompt as it was written. Two
trees are equal when they mean the same: positions, source text and warnings don't count.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from lpw_sdxl.prompt.warning import PromptWarning


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of text with one weight, brackets and escapes taken out.

    Neighbours of exactly equal weight are one span: `(a)(b)` is `ab`, and is tokenised as one
    word. The positions then reach from the first piece to the last.
    """

    text: str
    weight: float
    start: int = field(default=0, compare=False)
    end: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Break:
    """The word BREAK: the text behind it starts a new chunk. It has no weight."""

    start: int = field(default=0, compare=False)
    end: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class LoraTag:
    """A `<lora:name:weight>`; the text encoders never read it. Brackets don't change its weights.

    Attributes:
        name: as it is written, without the white space around it.
        weight: of its changes to the UNet.
        text_encoder_weight: of its changes to the text encoders.
    """

    name: str
    weight: float
    text_encoder_weight: float
    start: int = field(default=0, compare=False)
    end: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class RefusedTag:
    """A tag that no image is made of; the text encoders never read it.

    Attributes:
        reason: what is wrong with it, where, and what would be right, in one sentence.
        is_lora: whether it is a LoRA's.
    """

    reason: str
    is_lora: bool
    start: int = field(default=0, compare=False)
    end: int = field(default=0, compare=False)


Node = Span | Break | LoraTag | RefusedTag


@dataclass(frozen=True, slots=True)
class Prompt:
    """A parsed prompt; equal to another that has equal nodes.

    Attributes:
        text: as it was parsed.
        nodes: in the order of the text; no span is empty.
        warnings: in the order of `WarningKind`.
        pieces: the nodes before neighbouring spans were joined: each span's text stands in the
            source as it is, but for an escape, which is a span of its own.
    """

    text: str = field(compare=False)
    nodes: tuple[Node, ...]
    warnings: tuple[PromptWarning, ...] = field(default=(), compare=False)
    pieces: tuple[Node, ...] = field(default=(), compare=False, repr=False)

    @property
    def spans(self) -> tuple[Span, ...]:
        """Return the weighted text."""
        return tuple(node for node in self.nodes if isinstance(node, Span))

    @property
    def breaks(self) -> tuple[Break, ...]:
        """Return the breaks, each a border of chunks."""
        return tuple(node for node in self.nodes if isinstance(node, Break))

    @property
    def lora_tags(self) -> tuple[LoraTag, ...]:
        """Return the LoRA tags, repeated names included."""
        return tuple(node for node in self.nodes if isinstance(node, LoraTag))

    @property
    def refused_tags(self) -> tuple[RefusedTag, ...]:
        """Return the tags for which the prompt is refused."""
        return tuple(node for node in self.nodes if isinstance(node, RefusedTag))

    def extents(self) -> list[tuple[int, int]]:
        """Return start and end in the source of each character of the spans, end to end."""
        extents: list[tuple[int, int]] = []
        for piece in self.pieces:
            if not isinstance(piece, Span) or not piece.text:
                continue
            if len(piece.text) < piece.end - piece.start:  # an escape
                extents.append((piece.start, piece.end))
            else:
                extents += zip(
                    range(piece.start, piece.end),
                    range(piece.start + 1, piece.end + 1),
                    strict=True,
                )
        return extents

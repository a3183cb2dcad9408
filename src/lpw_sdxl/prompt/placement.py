"""A tree whose positions are in a text that is left of a prompt, moved to the prompt as written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lpw_sdxl.prompt.excerpt import Excerpt
from lpw_sdxl.prompt.syntax import Node, Prompt, Span


def place(prompt: Prompt, excerpt: Excerpt) -> Prompt:
    """Move a tree's positions, and its warnings', to the prompt as it was written.

    Args:
        prompt: the tree of the excerpt's text.
        excerpt: of the prompt as it was written.
    """
    if not excerpt.runs or excerpt.runs == ((0, len(excerpt.text)),):
        return prompt
    nodes = tuple(_place_node(node, excerpt) for node in prompt.nodes)
    pieces = tuple(one for piece in prompt.pieces for one in _place_piece(piece, excerpt))
    warnings = tuple(
        replace(warning, position=excerpt.place(warning.position)) for warning in prompt.warnings
    )
    return Prompt(prompt.text, nodes, warnings, pieces)


def _place_node(node: Node, excerpt: Excerpt) -> Node:
    end = excerpt.place(node.end - 1) + 1 if node.end > node.start else excerpt.place(node.end)
    return replace(node, start=excerpt.place(node.start), end=end)


def _place_piece(piece: Node, excerpt: Excerpt) -> Iterator[Node]:
    """Split a text where a run of the prompt ends: its characters stand there side by side."""
    if not isinstance(piece, Span) or len(piece.text) != piece.end - piece.start or not piece.text:
        yield _place_node(piece, excerpt)  # an escape is one character, wherever its two stand
        return
    offset = 0
    for run in excerpt.between(piece.start, piece.end):
        length = run.end - run.start
        yield Span(piece.text[offset : offset + length], piece.weight, run.start, run.end)
        offset += length

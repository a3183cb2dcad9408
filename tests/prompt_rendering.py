r"""A tree back to text: what a style parses into an equal tree, to the last bit of each weight.

A weight is written out as the one number of one pair of brackets, in full (`repr` without its
exponent), because 1.0 times it is itself. Two things have no spelling of their own and are written
with the grammar's empty constructs: `()` parts what would be read as a tag or as BREAK, and, where
a lone backslash stands for no text, `(\:2)` parts two spans of equal weight.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from lpw_sdxl.errors import InvalidPromptError
from lpw_sdxl.prompt.grammar import GRAMMARS, Grammar, PromptStyle
from lpw_sdxl.prompt.limits import SURROGATE
from lpw_sdxl.prompt.lora_tag import TAG_BEGINNING, read_tag, write_number, write_tag
from lpw_sdxl.prompt.syntax import Break, LoraTag, Node, Prompt, RefusedTag, Span

_JOINT = "()"  # ends a run of text and adds nothing to it
_BEFORE_TAG = re.compile(rf"(?={TAG_BEGINNING.pattern})<")
_BREAK_BEGINNING = re.compile(r"\bB(?=REAK\b)")


def render(prompt: Prompt, style: PromptStyle = PromptStyle.LPW) -> str:
    """Write a tree as a style's text: `parse(render(prompt, style), style=style) == prompt`.

    Whatever `parse` gave can be written in the style that it was parsed in. The text may be longer
    than its source and than the limit. A tree of another style, or made by hand, may hold what a
    style has no words for:

    * every style: a refused tag, a span without text, half of a surrogate pair, a weight that is
      not finite, a LoRA name that is empty, longer than 128 characters, has white space at an end,
      or holds `<`, `>`, `:` or a control character;
    * comfy: a break; two neighbouring spans of equal weight;
    * plain: anything but a single span of weight 1.

    Raises:
        InvalidPromptError: naming the first node that can't be written, by its index, and why.
    """
    grammar = GRAMMARS[style]
    nodes: list[Node | None] = [None, *prompt.nodes, None]
    written = []
    for index, (before, node, after) in enumerate(zip(nodes, nodes[1:], nodes[2:], strict=False)):
        assert node is not None
        for obstacle in _obstacles(before, node, grammar):
            raise InvalidPromptError(
                f"node {index} of the prompt can't be written in the {style} style: {obstacle}"
            )
        written.append(_write(before, node, after, grammar))
    return "".join(written)


def _obstacles(before: Node | None, node: Node, grammar: Grammar) -> Iterator[str]:
    match node:
        case Span(text, weight):
            if not text:
                yield "it has no text"
            if SURROGATE.search(text):
                yield "it holds half of a surrogate pair"
            if not math.isfinite(weight):
                yield "its weight is not finite"
            if weight != 1.0 and not grammar.factors:
                yield "there are no weights"
            if _is_of_equal_weight(before, node) and not grammar.drops_backslash:
                yield "nothing parts it from the span before, which has the same weight"
        case LoraTag(name, weight, text_encoder_weight):
            if not grammar.has_lora_tags:
                yield "there are no LoRA tags"
            if SURROGATE.search(name):
                yield "its name holds half of a surrogate pair"
            if not (math.isfinite(weight) and math.isfinite(text_encoder_weight)):
                yield "its weight is not finite"
            elif not _is_readable(node):
                yield "its name has no place in a tag"
        case Break() if not grammar.has_breaks:
            yield "there are no breaks"
        case RefusedTag():
            yield "it is a refused tag"


def _write(before: Node | None, node: Node, after: Node | None, grammar: Grammar) -> str:
    match node:
        case Span():
            parting = _part(node) if _is_of_equal_weight(before, node) else ""
            return parting + _write_span(before, node, after, grammar)
        case LoraTag():
            return write_tag(node)
        case RefusedTag():
            raise AssertionError("refused above")
        case Break():
            return " BREAK "  # which eats the white space, and no bracket, around it


def _write_span(before: Node | None, span: Span, after: Node | None, grammar: Grammar) -> str:
    text = span.text
    if grammar.escapable:
        text = re.sub(f"[{re.escape(grammar.escapable)}]", r"\\\g<0>", text)
    if grammar.has_lora_tags:
        text = _BEFORE_TAG.sub(rf"\g<0>{_JOINT}", text)
    if grammar.has_breaks:
        text = _BREAK_BEGINNING.sub(rf"\g<0>{_JOINT}", text)
    # A break would eat the text's own white space; a bare backslash takes the next bracket.
    needs_brackets = (
        (isinstance(before, Break) and span.text[0].isspace())
        or (isinstance(after, Break) and span.text[-1].isspace())
        or ("(" in grammar.escapable and text.endswith("\\") and "\\" not in grammar.escapable)
    )
    if span.weight == 1.0 and not needs_brackets:
        return text
    return f"({text}:{write_number(span.weight)})"


def _is_of_equal_weight(before: Node | None, span: Span) -> bool:
    return isinstance(before, Span) and before.weight == span.weight


def _part(span: Span) -> str:
    return rf"(\:{3 if span.weight == 2.0 else 2})"


def _is_readable(tag: LoraTag) -> bool:
    text = write_tag(tag)
    return text.index(">") == len(text) - 1 and read_tag(text, 0, len(text)) == tag

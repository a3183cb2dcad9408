"""The styles that a prompt can be written in, and the syntax of each, in one table.

Lexer and parser read by it; `conditioning.styles` declares how each style chunks and weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.prompt.brackets import AbsoluteWeights, MultipliedWeights, Nesting

ROUND_FACTOR = 1.1
SQUARE_FACTOR = 1 / 1.1


class PromptStyle(StrEnum):
    """A dialect: grammar, chunking, emphasis and pooled choice together."""

    LPW = "lpw"
    A1111 = "a1111"
    A1111_ORIGINAL = "a1111-original"
    COMFY = "comfy"
    PLAIN = "plain"

    @classmethod
    def named(cls, name: str) -> PromptStyle:
        """Find a style by its name.

        Raises:
            InvalidRequestError: there is no such style.
        """
        try:
            return cls(name)
        except ValueError as cause:
            names = ", ".join(cls)
            raise InvalidRequestError(
                f"prompt_style is unknown; it must be one of: {names}", field="prompt_style"
            ) from cause


@dataclass(frozen=True, slots=True)
class Grammar:
    r"""A style's syntax.

    Attributes:
        factors: of a pair without a number, by its opening bracket, `(` or `[`; brackets that are
            not here are text.
        nesting: how weights of nested brackets are combined.
        escapable: characters that are text behind a backslash.
        drops_backslash: whether any other backslash is left out, or is text.
        allows_blanks: whether white space may stand around a weight's number.
        has_breaks: whether BREAK is a node, or a word like others.
        weighs_breaks: whether BREAK inside brackets that change its weight is a word of the
            opposite weight, which is what AUTOMATIC1111 makes of it.
        has_lora_tags: whether a tag such as `<lora:name:weight>` is a node, or text.
        has_schedules: whether a text can change by step, have parts side by side and comments;
            `parse` knows nothing of these, `parse_schedule` does.
        warns: whether text that looks like syntax is worth a warning.
    """

    factors: Mapping[str, float]
    nesting: Callable[[], Nesting]
    escapable: str = ""
    drops_backslash: bool = False
    allows_blanks: bool = False
    has_breaks: bool = False
    weighs_breaks: bool = False
    has_lora_tags: bool = False
    has_schedules: bool = False
    warns: bool = True


_LPW = Grammar(
    factors={"(": ROUND_FACTOR, "[": SQUARE_FACTOR},
    nesting=MultipliedWeights,
    escapable=r"\()[]",
    drops_backslash=True,
    has_breaks=True,
    has_lora_tags=True,
)
_A1111 = replace(_LPW, allows_blanks=True, weighs_breaks=True, has_schedules=True)
_COMFY = Grammar(
    factors={"(": ROUND_FACTOR},
    nesting=AbsoluteWeights,
    escapable="()",
    allows_blanks=True,
    has_lora_tags=True,
)
_PLAIN = Grammar(factors={}, nesting=MultipliedWeights, warns=False)

GRAMMARS: Mapping[PromptStyle, Grammar] = {
    PromptStyle.LPW: _LPW,
    PromptStyle.A1111: _A1111,
    PromptStyle.A1111_ORIGINAL: _A1111,
    PromptStyle.COMFY: _COMFY,
    PromptStyle.PLAIN: _PLAIN,
}

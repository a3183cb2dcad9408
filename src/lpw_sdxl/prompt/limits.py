"""Limits on the cost of a prompt, the checks against them and the errors that name them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lpw_sdxl.errors import InvalidPromptError

TEXT_SHARE = 2
"""The different texts of a prompt may together be so many times as long as one prompt may be.

Each is parsed and tokenised: without this, 64 texts of the largest length would take 64 times as
long to read as the largest plain prompt.
"""
SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class PromptLimits:
    """Limits of one prompt; the defaults are those of `settings.Settings`.

    Attributes:
        max_characters: length of the text, characters.
        max_depth: brackets open at the same time, round and square together.
        max_weight: absolute value of a weight, after brackets have multiplied.
        max_variants: different texts that the prompt becomes over its steps.
        max_parts: of one prompt, side by side.
    """

    max_characters: int = 32_768
    max_depth: int = 64
    max_weight: float = 100.0
    max_variants: int = 64
    max_parts: int = 8

    def check_text(self, text: str, field: str | None) -> None:
        """Refuse a text that is too long or can't be written as Unicode.

        Raises:
            InvalidPromptError: the text is over `max_characters`, or holds half of a surrogate
                pair (no tokenizer, PNG chunk or JSON reader takes one).
        """
        if len(text) > self.max_characters:
            raise InvalidPromptError(
                f"the prompt has {len(text)} characters; the limit is {self.max_characters}",
                field=field,
            )
        if (surrogate := SURROGATE.search(text)) is not None:
            raise InvalidPromptError(
                f"character {surrogate.start()} is half of a surrogate pair, which is no "
                "character; send the pair or leave it out",
                field=field,
            )

    def check_depth(self, depth: int, position: int, field: str | None) -> None:
        """Refuse a bracket that opens too deep.

        Raises:
            InvalidPromptError: `depth` is over `max_depth`.
        """
        if depth > self.max_depth:
            raise InvalidPromptError(
                f"brackets nest deeper than the limit of {self.max_depth} at character {position}",
                field=field,
            )

    def check_weight(self, weight: float, position: int, field: str | None) -> None:
        """Refuse a weight that is too large, infinite or not a number.

        Raises:
            InvalidPromptError: the absolute value of `weight` is not within `max_weight`.
        """
        if not abs(weight) <= self.max_weight:  # written so that NaN is refused too
            raise InvalidPromptError(
                f"the weight at character {position} is outside the limit of "
                f"-{self.max_weight:g} to {self.max_weight:g}",
                field=field,
            )

    def check_variants(self, count: int, characters: int, field: str | None) -> None:
        """Refuse texts that change too often for their length.

        Args:
            count: of the different texts.
            characters: of all of them.
            field: that the error names.

        Raises:
            InvalidPromptError: `count` is over `max_variants`, or the texts together are over
                `TEXT_SHARE` times `max_characters`.
        """
        if count > self.max_variants:
            raise InvalidPromptError(
                f"over its steps the prompt becomes more than {self.max_variants} different texts, "
                f"each of which is encoded; {self.max_variants} would fit, with fewer [a|b] and "
                "[a:b:when] or fewer steps",
                field=field,
            )
        limit = TEXT_SHARE * self.max_characters
        if count > 1 and characters > limit:
            raise InvalidPromptError(
                "over its steps the prompt becomes different texts of more than "
                f"{limit} characters together; {limit} would fit, with a shorter prompt or fewer "
                "[a|b] and [a:b:when]",
                field=field,
            )

    def check_parts(self, count: int, field: str | None) -> None:
        """Refuse a prompt of too many parts.

        Raises:
            InvalidPromptError: `count` is over `max_parts`.
        """
        if count > self.max_parts:
            raise InvalidPromptError(
                f"AND divides the prompt into {count} parts, each of which is a row of every UNet "
                f"call; {self.max_parts} parts would fit",
                field=field,
            )


DEFAULT_LIMITS = PromptLimits()

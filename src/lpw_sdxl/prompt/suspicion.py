"""Text that looks like syntax and is none; each check has a bound, so that reading stays linear."""

from __future__ import annotations

import re
from collections.abc import Iterator

_REACH = 32  # characters checked before or behind a place
_NUMBER_AT_END = re.compile(r":\s*[+-]?[.\d][.,\deE+-]*\s*\Z")
# LoRA or LyCORIS, however it goes on, and tags of kinds that only other programs have.
_TAG = re.compile(r"<\s*+(?:(?i:lora|lyco)|\w++\s*+:[^<>]*+>)")
# [a:b:when] or [a|b], whole or not.
_DIVIDED = re.compile(r"\[[^\[\]:|]*+[:|][^\[\]]*+\]")
# A number sign that may have been meant: #1 girl.
_NUMBER_SIGN = re.compile(r"#\d")
_ANY_BREAK = re.compile(r"\bbreak\b", re.IGNORECASE)


def ends_in_number(text: str, end: int) -> bool:
    """Return whether a number such as `:1.2` ends here, as before a bracket that closes."""
    return _NUMBER_AT_END.search(text, max(0, end - _REACH), end) is not None


def is_tag(text: str, start: int) -> bool:
    """Return whether a tag such as `< lora:name:1>` or `<style:name:1>` begins here."""
    return _TAG.match(text, start) is not None


def divided_brackets(text: str) -> Iterator[int]:
    """Find brackets such as `[a:b:0.5]` or `[a|b]`: their first characters."""
    return (match.start() for match in _DIVIDED.finditer(text))


def is_number_sign(comment: str) -> bool:
    """Return whether a comment begins as `#1` does, which may be meant as text."""
    return _NUMBER_SIGN.match(comment) is not None


def breaks_in_vain(text: str, *, has_breaks: bool) -> Iterator[int]:
    """Find words that may have been meant to end a chunk, and don't: their first characters.

    Args:
        text: a prompt's source.
        has_breaks: whether BREAK in capitals ends a chunk. Then only `break` or `Break` that
            stands alone between commas or line ends is one; else BREAK anywhere.
    """
    for match in _ANY_BREAK.finditer(text):
        is_exact = match.group() == "BREAK"
        if is_exact != has_breaks and (is_exact or _stands_alone(text, *match.span())):
            yield match.start()


def _stands_alone(text: str, start: int, end: int) -> bool:
    before = text[max(0, start - _REACH) : start].rstrip(" \t")
    after = text[end : end + _REACH].lstrip(" \t")
    return before[-1:] in {"", ",", "\n"} and after[:1] in {"", ",", "\n"}

"""A `parameters` text to its parts: prompt, negative prompt, pairs.

A1111 writes each on lines of their own, the pairs last. Pages show the text without its line ends,
or with other ones, so the block of pairs is looked for from the end, and the negative prompt's mark
in the middle of lines too. It knows nothing of what a pair means.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.parameters.foreign import refuse_foreign_text
from lpw_sdxl.parameters.known_keys import is_known
from lpw_sdxl.parameters.pair_scanner import KEY, scan_pairs
from lpw_sdxl.parameters.program import OWN_NAME
from lpw_sdxl.parameters.written import WrittenParameters, plain_key

LONGEST_BLOCK = 2**16  # characters at the end of a text in which the pairs are looked for
MOST_CANDIDATES = 16  # for the beginning of the block
KEYS_OF_A_LINE = 2  # known ones, of a block that begins a line
KEYS_OF_A_MIDDLE = 3  # of one that begins within a line, as A1111 asks for

_OWN_MARK = "\nNegative prompt: "
_STEPS = re.compile(r"(?<![\w-])steps\**\s*:\**\s*\d", re.IGNORECASE)
# Words before `steps` in the keys of other passes.
_OTHER_PASSES = re.compile(r"\b(?:adetailer|ddetailer|highres|hires|hr|refiner)\s+$", re.IGNORECASE)
_TEMPLATE = re.compile(r"(?:^|\n)[ \t]*(?:Negative )?Template:")
_TEMPLATE_IN_LINE = re.compile(r"\s(?:Negative )?Template:")
_KEY_OF_PIECE = re.compile(r"(?:^|(?<=[,\n]))[ \t*]*+(\w[\w \t/-]{1,63}+)\**\s*+:")
_NEGATIVE_LINE = re.compile(r"^[ \t]*\**negative prompt\**[ \t]*:\**", re.IGNORECASE | re.MULTILINE)
_NEGATIVE = re.compile(r"(?<![\w*])\**+negative prompt\**\s*:\**", re.IGNORECASE)
_HEADING = re.compile(r"\s*parameters[ \t]*:?[ \t]*\n", re.IGNORECASE)
_PROMPT = re.compile(r"\s*\**(?:positive )?prompt\**[ \t]*:\**", re.IGNORECASE)


def read_text(text: str, field: str = "parameters") -> WrittenParameters:
    """Take a text apart, in time linear in it.

    Args:
        text: as a program wrote it, or as a page shows it.
        field: of the request, for refusals.

    Raises:
        InvalidRequestError: it is empty, or JSON of another program.
    """
    text = text.replace("\0", "")
    if not text.strip():
        raise InvalidRequestError(
            f"{field} is empty; a text such as 'a cat', and on the last line 'Steps: 20, Sampler:"
            " Euler a, CFG scale: 7, Seed: 1, Size: 1024x1024', would be right",
            field=field,
        )
    own = _read_own(text)
    if own is not None:
        return own
    text = text.removeprefix("\ufeff")  # of a file; a text of ours may have it in its prompt
    refuse_foreign_text(text, field)
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    block = _find_block(text)
    prompt, negative_prompt = _split_prompts(_without(_HEADING, text[: block.start]))
    pairs = scan_pairs(_join_lines(text[block.start : block.end]))
    return WrittenParameters(prompt.strip(), negative_prompt.strip(), pairs)


class _Block(NamedTuple):
    start: int
    end: int


def _read_own(text: str) -> WrittenParameters | None:
    """Read a text of our own, to the last blank; None for others.

    Its last line is the pairs, whose line breaks are escaped. If all its line ends are those of
    Windows, a page or a program has changed them.
    """
    text = text.rstrip()
    if "\r\n" in text and text.count("\n") == text.count("\r\n"):
        text = text.replace("\r\n", "\n")
    words, _, line = text.rpartition("\n")
    if not line.startswith("Steps: "):
        return None
    pairs = scan_pairs(line)
    if not any(key == "Version" and value.startswith(OWN_NAME) for key, value in pairs):
        return None
    prompt, _, negative_prompt = words.partition(_OWN_MARK)
    if not negative_prompt:  # an empty one is not written
        prompt = words
    return WrittenParameters(prompt, negative_prompt, pairs)


def _find_block(text: str) -> _Block:
    """Find the block of pairs; an empty one at the end where there is none."""
    start = _find_start(text)
    if start is None:
        return _Block(len(text), len(text))
    template = _TEMPLATE.search(text, start)
    if template is None and "\n" not in text[start:]:
        template = _TEMPLATE_IN_LINE.search(text, start)
    return _Block(start, len(text) if template is None else template.start())


def _find_start(text: str) -> int | None:
    """Find the first character of the block; None where there is none."""
    candidates = [*_steps_from_the_end(text)]
    for place in candidates:
        line = _line_start(text, place)
        if not text[line:place].strip(" \t*") and _count_keys(text, place) >= KEYS_OF_A_LINE:
            is_alone = _count_keys(text, place, _line_end(text, place)) == 1
            return _first_of_lines(text, line) if is_alone else line
    capitals = [place for place in candidates if text[place].isupper()]
    for place in (*capitals, *candidates):
        if _count_keys(text, place) >= KEYS_OF_A_MIDDLE:
            return _first_of_line(text, place)
    return _last_line_of_pairs(text)


def _steps_from_the_end(text: str) -> Iterator[int]:
    """Yield where the key `Steps` stands, the last one first."""
    found = [match.start() for match in _STEPS.finditer(text, max(0, len(text) - LONGEST_BLOCK))]
    for place in found[-MOST_CANDIDATES:][::-1]:
        if not _OTHER_PASSES.search(text, max(0, place - 16), place):
            yield place


def _first_of_line(text: str, place: int) -> int:
    """Return the beginning of a line that is pairs up to a place, else the place."""
    line = max(_line_start(text, place), place - LONGEST_BLOCK)
    pieces = text[line:place].split(",")
    if len(pieces) > 1 and all(map(_has_known_key, pieces[:-1])) and not pieces[-1].strip():
        return line
    return place


def _first_of_lines(text: str, line: int) -> int:
    """Return the first of the lines of one pair each that end before a line."""
    while line:
        before = _line_start(text, line - 1)
        if not _has_known_key(text[before:line]):
            return line
        line = before
    return line


def _last_line_of_pairs(text: str) -> int | None:
    """Find a last line of pairs without steps, as A1111 recognises it."""
    template = _TEMPLATE.search(text, max(0, len(text) - LONGEST_BLOCK))
    body = text[: template.start() if template else None].rstrip()
    line = _line_start(body, len(body))
    is_block = _has_known_key(body[line : line + LONGEST_BLOCK]) and (
        _count_keys(body, line) >= KEYS_OF_A_MIDDLE
    )
    return line if is_block else None


def _line_start(text: str, place: int) -> int:
    return text.rfind("\n", 0, place) + 1


def _line_end(text: str, place: int) -> int:
    end = text.find("\n", place)
    return len(text) if end < 0 else end


def _has_known_key(piece: str) -> bool:
    found = KEY.match(piece)
    return found is not None and is_known(plain_key(found[1]))


def _count_keys(text: str, start: int, end: int | None = None) -> int:
    """Count the known keys of a part of a text that begins with one."""
    part = text[start : min(len(text) if end is None else end, start + LONGEST_BLOCK)]
    keys = {plain_key(match[1]) for match in _KEY_OF_PIECE.finditer(part)}
    return sum(map(is_known, keys))


def _join_lines(block: str) -> str:
    """Write a block as one line: a break between two pairs is a comma, any other a blank."""
    first, *others = block.strip().split("\n")
    joined = [first]
    for line in others:
        last_piece = joined[-1].rpartition(",")[2]
        is_pair = _has_known_key(line) and (not last_piece.strip() or ":" in last_piece)
        joined += [", " if is_pair else " ", line]
    return "".join(joined)


def _split_prompts(head: str) -> tuple[str, str]:
    mark = _NEGATIVE_LINE.search(head) or _NEGATIVE.search(head)
    if mark is None:
        return head, ""
    return _without(_PROMPT, head[: mark.start()]), head[mark.end() :]


def _without(heading: re.Pattern[str], text: str) -> str:
    """Return a text without the heading that it may begin with."""
    found = heading.match(text)
    return text if found is None else text[found.end() :]

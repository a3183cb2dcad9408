"""JSON whose pictures are cut out before it is parsed is read as a parser reads it."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from lpw_sdxl.doors.json_text import parse_json
from lpw_sdxl.doors.openai.json_pictures import CutText, parse_with_pictures
from lpw_sdxl.errors import BodyTooLargeError, InvalidRequestError

NAMES = ("image", "mask")
KEYS = ("image", "mask", "im\u0061ge", "a", '"', "")
TEXTS = ("", "AAAA", 'a "b"', "image", "\\", "\u00e9", "0")


def value(chance: random.Random, depth: int = 0) -> Any:
    """Make up a value of JSON."""
    kind = chance.randrange(3 if depth > 3 else 5)
    if kind == 3:
        return [value(chance, depth + 1) for _ in range(chance.randrange(4))]
    if kind == 4:
        return {key: value(chance, depth + 1) for key in chance.sample(KEYS, 3)}
    return chance.choice(TEXTS) if kind else chance.choice((None, 1, 0.5, True))


def whole(value: Any) -> Any:
    """Put the cut texts back, as a parser would have read them."""
    if isinstance(value, CutText):
        return json.loads(b'"%b"' % bytes(value.content))
    if isinstance(value, list):
        return [whole(inner) for inner in value]
    if isinstance(value, dict):
        return {key: whole(inner) for key, inner in value.items()}
    return value


def test_texts_are_cut_out_however_deep() -> None:
    body = {"image": ["AA", {"image_url": "BB", "n": 1}, ""], "prompt": "image", "mask": None}
    fields = parse_with_pictures(json.dumps(body).encode(), NAMES, 200)
    assert whole(fields) == body
    assert isinstance(fields["image"][0], CutText)
    assert isinstance(fields["image"][1]["image_url"], CutText)
    assert fields["image"][2] == ""


def test_what_is_beside_pictures_is_bounded() -> None:
    large = "A" * 100_000
    assert parse_with_pictures(json.dumps({"image": large}).encode(), NAMES, 100)
    with pytest.raises(BodyTooLargeError, match="100 bytes that are accepted here beside pictures"):
        parse_with_pictures(json.dumps({"image": large, "prompt": large}).encode(), NAMES, 100)


def test_any_text_is_read_as_a_parser_reads_it_or_refused() -> None:
    chance = random.Random(20261201)
    read = refused = 0
    for _ in range(4000):
        made = {key: value(chance) for key in chance.sample(KEYS, 4)}
        text = json.dumps(made, ensure_ascii=chance.random() < 0.5).encode()
        if chance.random() < 0.5:
            at = chance.randrange(len(text))
            text = text[:at] + chance.choice((b"", b'"', b",", b"{")) + text[at + 1 :]
        try:
            expected = parse_json(text)
        except InvalidRequestError:
            expected = None
        if expected is None:
            # What is wrong within a picture's text is found when that is decoded.
            with pytest.raises((InvalidRequestError, ValueError)):
                whole(parse_with_pictures(text, NAMES, 10_000))
            refused += 1
        else:
            assert whole(parse_with_pictures(text, NAMES, 10_000)) == expected
            read += 1
    assert min(read, refused) > 500

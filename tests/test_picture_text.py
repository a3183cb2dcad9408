from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpw_sdxl import picture_text
from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.picture_text import SLICE_BYTES, decode_json_picture, decode_picture_text

# Its base64 has 62 and 63, which the two alphabets write differently, and needs padding.
CONTENT = b"\x89PNG\xfb\xff\xfe" + bytes(range(256)) + b"\xff"
PLAIN = base64.b64encode(CONTENT).decode()
FOR_URLS = base64.urlsafe_b64encode(CONTENT).decode()

FORMS = {
    "plain": PLAIN,
    "without padding": PLAIN.rstrip("="),
    "for URLs": FOR_URLS,
    "for URLs without padding": FOR_URLS.rstrip("="),
    "in lines": base64.encodebytes(CONTENT).decode().replace("\n", "\r\n"),
    "a space after each letter": " ".join(PLAIN),
    "data URL": f"data:image/png;base64,{PLAIN}",
    "data URL of another type": f"data:text/html;charset=utf-8;base64,{PLAIN}",
    "data URL without a type": f"data:;base64,{PLAIN}",
    "data URL in capitals": f"DATA:IMAGE/PNG;BASE64,{PLAIN}",
    "data URL in lines": f"\n data:image/png;base64,\n{PLAIN}\n",
}


@pytest.mark.parametrize("text", FORMS.values(), ids=FORMS.keys())
def test_every_form_of_base64_is_decoded(text: str) -> None:
    assert decode_picture_text(text, "image", len(CONTENT)) == CONTENT


NEITHER = "is no base64 and no data URL of base64"
REFUSED = {
    "a URL": ("https://example.com/a.png", "is a URL, and this server fetches none"),
    "a file's URL": (" file:///etc/passwd", "is a URL, and this server fetches none"),
    "a data URL of text": ("data:image/svg+xml,%3Csvg/%3E", "is a data URL without ;base64"),
    "a path": ("/home/user/a.png", NEITHER),
    "both alphabets": ("ab-_cd+/", NEITHER),
    "padding inside": ("QUJD=QUJD", NEITHER),
    "a text behind the padding": ("QQ==;base64", NEITHER),
    "one letter too many": ("QUJDR", NEITHER),
    "a letter beyond ASCII": ("QUJ\u00e4", NEITHER),
    "a lone surrogate": ("QUJD\ud800", NEITHER),
    "a NUL": ("QUJD\0QUJ", NEITHER),
}


@pytest.mark.parametrize(("text", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_not_base64_is_refused_by_its_field(text: str, reason: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"^mask_image {reason}") as refusal:
        decode_picture_text(text, "mask_image", 1000)
    assert refusal.value.field == "mask_image"


@pytest.mark.parametrize("size", range(264, 268))
def test_a_file_of_the_limit_is_decoded_and_a_larger_one_is_not(size: int) -> None:
    content = (CONTENT * 2)[:size]
    text = base64.b64encode(content).decode()
    assert decode_picture_text(text, "image", size) == content
    with pytest.raises(InvalidRequestError, match=f"image has more than {size - 1} bytes"):
        decode_picture_text(text, "image", size - 1)


def test_the_interpreter_is_left_to_others_after_each_slice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses: list[None] = []
    monkeypatch.setattr(picture_text, "let_others_run", lambda: pauses.append(None))
    decode_json_picture(b"QUJD" * (3 * SLICE_BYTES // 4), "image")
    assert len(pauses) >= 3


@given(st.binary(max_size=60), st.integers(0, 100), st.sampled_from(["", " ", "\r\n", "\t "]))
def test_slices_join_without_a_seam(content: bytes, shift: int, space: str) -> None:
    """White space moves the seam between two slices to any place of a group of four letters."""
    text = base64.b64encode(content).decode()
    lead = " " * (SLICE_BYTES - shift)
    assert decode_picture_text(lead + space.join(text), "image", 1000) == content


@given(st.text(max_size=200))
def test_any_text_is_decoded_or_refused(text: str) -> None:
    try:
        decode_picture_text(text, "image", 1000)
    except InvalidRequestError as error:
        assert error.field == "image"  # noqa: PT017 - it may be base64, too


@pytest.mark.parametrize("text", FORMS.values(), ids=FORMS.keys())
def test_every_form_is_decoded_as_it_stands_in_json(text: str) -> None:
    written = json.dumps(text)[1:-1].encode()
    assert decode_json_picture(written, "image", len(CONTENT)) == CONTENT
    assert decode_json_picture(memoryview(written), "image", len(CONTENT)) == CONTENT


def in_unicode_escapes(text: str) -> bytes:
    return "".join(f"\\u{ord(letter):04X}" for letter in text).encode()


ESCAPED = {
    "slashes": PLAIN.replace("/", "\\/").encode(),
    "plus signs": PLAIN.replace("+", "\\u002B").replace("/", "\\u002f").encode(),
    "lines": PLAIN.replace("A", "A\\r\\n").encode(),
    "all of it": in_unicode_escapes(PLAIN),
    "a data URL": b"data:image\\/png;base64," + PLAIN.replace("/", "\\/").encode(),
}


@pytest.mark.parametrize("text", ESCAPED.values(), ids=ESCAPED.keys())
def test_escapes_of_json_are_undone(text: bytes) -> None:
    assert b"\\" in text
    assert decode_json_picture(text, "image", len(CONTENT)) == CONTENT


@pytest.mark.parametrize("escape", [b"\\/", b"\\u002F", b"\\n", b"\\u002B", b"\\r\\n\\t"])
def test_an_escape_across_two_slices_is_one(escape: bytes) -> None:
    """It lies at every place about the seam, before a second slice and before a third."""
    symbol = json.loads(b'"%b"' % escape).encode()
    for shift in range(len(escape) + 8):
        lead = b" " * (SLICE_BYTES - shift)
        text = lead + b"QUJD" + escape + b"A" * SLICE_BYTES + escape + b"A" * 8
        plain = (b"QUJD" + symbol + b"A" * SLICE_BYTES + symbol + b"A" * 8).decode()
        expected = decode_picture_text(plain, "image")
        assert decode_json_picture(text, "image") == expected


@pytest.mark.parametrize(
    "text",
    [b"QUJD\\", b"QUJD\\u00", b"QUJD\\x", b"QUJD\\\\", b"QUJD\\u0000", b"QUJD\\ud800", b"QU\xff"],
    ids=["cut off", "a cut off code", "unknown", "a backslash", "NUL", "surrogate", "no UTF-8"],
)
def test_what_escapes_make_is_no_less_checked(text: bytes) -> None:
    for lead in (b"", b" " * (SLICE_BYTES - 5)):
        with pytest.raises(InvalidRequestError, match=f"^mask_image {NEITHER}"):
            decode_json_picture(lead + text, "mask_image", 1000)


def test_in_json_too_no_more_than_the_limit_is_decoded() -> None:
    written = PLAIN.encode()
    assert decode_json_picture(written, "image", len(CONTENT)) == CONTENT
    with pytest.raises(InvalidRequestError, match=r"image has more than \d+ bytes"):
        decode_json_picture(written, "image", len(CONTENT) - 1)


@given(st.binary(max_size=60), st.integers(0, 80), st.data())
def test_any_picture_comes_back_however_json_writes_it(
    content: bytes, shift: int, data: st.DataObject
) -> None:
    letters = base64.b64encode(content).decode()
    escaped = data.draw(st.lists(st.booleans(), min_size=len(letters), max_size=len(letters)))
    text = b"".join(
        in_unicode_escapes(letter) if is_escaped else letter.encode()
        for letter, is_escaped in zip(letters, escaped, strict=True)
    )
    assert decode_json_picture(b" " * (SLICE_BYTES - shift) + text, "image") == content

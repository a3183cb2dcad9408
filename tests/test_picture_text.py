from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.picture_text import SLICE_BYTES, decode_picture_text

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


def test_a_file_of_the_limit_is_decoded_and_a_larger_one_is_not() -> None:
    assert decode_picture_text(PLAIN, "image", len(CONTENT)) == CONTENT
    with pytest.raises(InvalidRequestError, match=r"image has more than \d+ bytes"):
        decode_picture_text(PLAIN, "image", len(CONTENT) - 1)


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

"""Requests with odd pictures, and what is right to answer: the picture itself, or its refusal.

A picture is seen in the answer bit for bit where only its corner is painted over: everything else
is pasted back (`only_masked`).
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from tests.forge.bad_pictures import REFUSED, SMALL
from tests.forge.pictures import GREY, KINDS, ForgedPicture, Samples, write_png

Size = tuple[int, int]

# Height and width: single rows and columns, sides that fill no byte, block or band of rows.
SIZES: Sequence[Size] = (
    *((1, 1), (1, 9), (7, 1), (3, 5), (17, 33), (64, 64), (65, 63), (96, 130), (520, 600)),
)
CUT_EVERY = 64  # bytes
CUT_OFF = "cut off|is empty|no known"
FEW: Mapping[str, object] = {
    "prompt": "a red circle",
    "num_inference_steps": 1,
    "strength": 1.0,
    "width": 64,
    "height": 64,
    "seed": 1,
}


class OddRequest(NamedTuple):
    """A request with a picture, and the right answer.

    Attributes:
        name: of the picture, for reports.
        fields: of the request.
        picture: that the answer shows, but for its corner; None if the request is refused.
        field: that a refusal names.
        reason: a pattern that a refusal's sentence holds.
    """

    name: str
    fields: Mapping[str, object]
    picture: ForgedPicture | None = None
    field: str = "image"
    reason: str = ""

    def fault(self, status: int, content: bytes, error: Mapping[str, object] | None) -> str | None:
        """Compare an answer with the right one; return what is wrong with it, or None.

        Args:
            status: HTTP's.
            content: of the answer.
            error: of the answer, if it is one.
        """
        if self.picture is not None:
            return _compare(content, self.picture) if status == 200 else f"{status}: {error}"
        if status != 400 or error is None:
            return f"answered {status}, not 400"
        if error["field"] != self.field or not re.search(self.reason, str(error["message"])):
            return f"refused otherwise: {error}"
        return None


def right_pictures(
    sizes: Sequence[Size] = SIZES, kinds: Sequence[str] = (*KINDS,)
) -> Iterator[OddRequest]:
    """Make requests with pictures of all kinds, each of which is read."""
    for kind in kinds:
        for height, width in sizes:
            forged = KINDS[kind](height, width)
            fields = {
                **FEW,
                "image": _text(forged.content),
                "mask_image": _text(_corner(height, width)),
                "only_masked": True,
                "only_masked_padding": 0,
            }
            yield OddRequest(f"{kind} of {width}x{height}", fields, forged)


def refused_pictures(most_bytes: int = 2**24) -> Iterator[OddRequest]:
    """Make requests with files of other kinds, damaged ones and bombs, as picture and as mask.

    Args:
        most_bytes: of a file; larger ones are left out.
    """
    good = _text(SMALL["png-grey"])
    for name, (content, reason) in REFUSED.items():
        if len(content) <= most_bytes:
            yield OddRequest(name, {**FEW, "image": _text(content)}, None, "image", reason)
            both = {**FEW, "image": good, "mask_image": _text(content)}
            yield OddRequest(f"{name}, as a mask", both, None, "mask_image", reason)


def cut_pictures(every: int = CUT_EVERY, kinds: Sequence[str] = (*KINDS,)) -> Iterator[OddRequest]:
    """Make requests with pictures that are cut off, at each multiple of so many bytes."""
    for kind in kinds:
        content = SMALL[kind]
        for end in range(0, len(content), every):
            fields = {**FEW, "image": _text(content[:end])}
            yield OddRequest(f"{kind}, {end} bytes of it", fields, None, "image", CUT_OFF)


def _corner(height: int, width: int) -> bytes:
    """Mask the first pixel; where that is all, by the least share, which moves it by a level."""
    mask: Samples = np.zeros((height, width, 1), int)
    mask[0, 0] = 255 if mask.size > 1 else 1
    return write_png(mask, GREY)


def _compare(content: bytes, forged: ForgedPicture) -> str | None:
    answer = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)
    if answer.shape != forged.pixels.shape:
        return f"has the shape {answer.shape}, not {forged.pixels.shape}"
    difference = np.abs(answer - forged.pixels).max(axis=2)
    if difference.size > 1:
        difference[0, 0] = 0
    allowed = forged.tolerance + (difference.size == 1)
    return f"differs by {difference.max()} levels" if difference.max() > allowed else None


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()

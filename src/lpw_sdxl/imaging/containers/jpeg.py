"""The segments and scans of a JPEG.

Format: ITU-T T.81, annex B. ICC profiles: ICC.1, annex B.4. Phones append more to a JPEG, such as a
second picture or a film: all that stands behind the first picture's end is left out.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

from lpw_sdxl.imaging.containers.container import (
    MAX_PARTS,
    MAX_PROFILE_BYTES,
    Container,
    PictureKind,
    cut_off,
    damaged,
)
from lpw_sdxl.schema import ImageSize

START_OF_IMAGE = b"\xff\xd8"
END_OF_IMAGE = 0xD9
START_OF_SCAN = 0xDA
START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
EXIF, PROFILE = 0xE1, 0xE2  # APP1, APP2
# APP1 to APP13, APP15 and comments change no pixel; APP0 and APP14 state the colour space.
NO_PIXELS = frozenset({*range(0xE1, 0xEE), 0xEF, 0xFE})
WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})
EXIF_MARK, PROFILE_MARK = b"Exif\0\0", b"ICC_PROFILE\0"
# A scan of a large picture may be a few bytes and takes the decoder a second: a file of 16 MB could
# hold it for hours. Encoders write about 10.
MAX_SCANS = 64
_MARKER_AMONG_DATA = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")


class _Segment(NamedTuple):
    marker: int
    start: int  # of the marker
    end: int


def read_jpeg(content: bytes, field: str) -> Container:
    """Take a JPEG apart.

    Raises:
        InvalidRequestError: if it is cut off or damaged, or has more than 64 scans.
    """
    kept, exif, profile = [START_OF_IMAGE], b"", dict[int, bytes]()
    size: ImageSize | None = None
    scans = 0
    for segment in _walk(content, field):
        marker = segment.marker
        data = memoryview(content)[segment.start + 4 : segment.end]
        if marker in START_OF_FRAME and size is None and len(data) >= 5:
            size = ImageSize(*struct.unpack_from(">HH", data, 1))
        elif marker == EXIF and data[:6] == EXIF_MARK and not exif:
            exif = bytes(data)
        elif marker == PROFILE and data[:12] == PROFILE_MARK and len(data) > 14:
            profile.setdefault(data[12], bytes(data[14:]))
        scans += marker == START_OF_SCAN
        if marker not in NO_PIXELS:
            kept.append(content[segment.start : segment.end])
    if size is None or not all(size) or not 0 < scans <= MAX_SCANS:
        raise damaged(field, PictureKind.JPEG)
    icc_profile = b"".join(part for _, part in sorted(profile.items()))
    return Container(
        PictureKind.JPEG,
        size,
        b"".join(kept),
        exif=exif,
        icc_profile=icc_profile if len(icc_profile) <= MAX_PROFILE_BYTES else b"",
    )


def _walk(content: bytes, field: str) -> Iterator[_Segment]:
    """Yield all segments up to the end of the image; a scan has its compressed data with it."""
    place = len(START_OF_IMAGE)
    for _ in range(MAX_PARTS):
        if place + 2 > len(content):
            raise cut_off(field, PictureKind.JPEG)
        if content[place] != 0xFF:
            raise damaged(field, PictureKind.JPEG)
        marker = content[place + 1]
        if marker == 0xFF:  # a fill byte
            place += 1
            continue
        end = place + 2
        if marker not in WITHOUT_LENGTH and marker != END_OF_IMAGE:
            end += max(2, int.from_bytes(content[end : end + 2]))
        if marker == START_OF_SCAN:
            found = _MARKER_AMONG_DATA.search(content, end)
            end = found.start() if found else len(content) + 1
        if end > len(content):
            raise cut_off(field, PictureKind.JPEG)
        yield _Segment(marker, place, end)
        if marker == END_OF_IMAGE:
            return
        place = end
    raise damaged(field, PictureKind.JPEG)

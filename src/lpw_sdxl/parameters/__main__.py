"""`python -m lpw_sdxl.parameters FILE`: a text, or a picture that holds one, as a request.

No server is needed: names of models, LoRAs and embeddings are not looked up, and no server's limits
hold.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.parameters.picture_reader import read_picture
from lpw_sdxl.parameters.text_reader import read_text
from lpw_sdxl.parameters.translation import to_request

MOST_BYTES = 64 * 2**20
_PICTURE_BEGINNINGS = (b"\x89PNG", b"\xff\xd8\xff", b"RIFF")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the request of the file that the arguments name, as JSON.

    Returns:
        0, or 1 if there is none, with one sentence on standard error.
    """
    parser = argparse.ArgumentParser(
        prog="python -m lpw_sdxl.parameters",
        description="Read a parameters text, or a picture's, as the request that makes it again.",
    )
    parser.add_argument("file", help='a text, PNG, JPEG or WebP; "-" is standard input')
    file = parser.parse_args(arguments).file
    try:
        content = _read(file)
    except OSError as error:
        sys.stderr.write(f"{file}: {error.strerror or error}\n")
        return 1
    try:
        translation = to_request(read_text(_find_text(content)))
    except InvalidRequestError as error:
        sys.stderr.write(f"{error.message}\n")
        return 1
    notes = [dataclasses.asdict(note) for note in translation.not_honoured]
    written = json.dumps({"request": translation.fields, "not_honoured": notes}, indent=2)
    sys.stdout.write(f"{written}\n")
    return 0


def _read(file: str) -> bytes:
    """Read the bytes of a file, or of standard input.

    Raises:
        OSError: it can't be read, or has more than 64 MiB.
    """
    if file == "-":
        content = sys.stdin.buffer.read(MOST_BYTES + 1)
    else:
        with Path(file).open("rb") as opened:
            content = opened.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise OSError(f"it has more than {MOST_BYTES} bytes")
    return content


def _find_text(content: bytes) -> str:
    if content.startswith(_PICTURE_BEGINNINGS):
        return read_picture(content, "the file")
    return content.decode("utf-8", "replace")


if __name__ == "__main__":
    sys.exit(main())

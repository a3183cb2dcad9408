"""Requests of real clients, as tests/doors/recorded has them, and their bodies as bytes."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lpw_sdxl.doors.openai.translation import ImageOrder

OF_ANSWERS = ("has_links", "is_streamed", "partial_images", "compression")
FOLDER = Path(__file__).parent / "doors" / "recorded"  # of OpenAI's door
A1111 = FOLDER / "a1111"
BOUNDARY = "a-boundary-of-this-test"


@dataclass(frozen=True)
class Recording:
    """One request.

    Attributes:
        name: client and call.
        method: of HTTP.
        target: path and query.
        content_type: empty where there was none.
        body: of JSON, or the parts of a form.
    """

    name: str
    method: str
    target: str
    content_type: str
    body: Any

    @property
    def content(self) -> bytes:
        """The body as bytes."""
        if self.body is None:
            return b""
        if self.content_type.startswith("multipart/"):
            return write_form(self.body)
        return json.dumps(self.body).encode()


def recordings(folder: Path = FOLDER) -> list[Recording]:
    return [read(path.stem, folder) for path in sorted(folder.glob("*.json"))]


def read(name: str, folder: Path = FOLDER) -> Recording:
    held = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    content_type = held["headers"].get("content-type", "")
    if content_type.startswith("multipart/"):
        content_type = f"multipart/form-data; boundary={BOUNDARY}"
    return Recording(name, held["method"], held["target"], content_type, held["body"])


def write_form(parts: list[dict[str, Any]], boundary: str = BOUNDARY) -> bytes:
    """Write the parts of a form, with names, file names and types as they were sent."""
    lines = []
    for part in parts:
        head = f'content-disposition: form-data; name="{part["name"]}"'
        if "filename" in part:
            head += f'; filename="{part["filename"]}"'
        if "content_type" in part:
            head += f"\r\ncontent-type: {part['content_type']}"
        content = base64.b64decode(part["base64"]) if "base64" in part else part["text"].encode()
        lines.append(f"--{boundary}\r\n{head}\r\n\r\n".encode() + content + b"\r\n")
    return b"".join(lines) + f"--{boundary}--\r\n".encode()


def outline(order: ImageOrder) -> dict[str, Any]:
    """What an order has beyond a prompt and a picture."""
    left_out = {"prompt", "image", "mask_image", "resize_mode"}
    found = order.requests[0].model_dump(exclude_defaults=True, exclude=left_out)
    found |= {name: getattr(order, name) for name in OF_ANSWERS if getattr(order, name)}
    found |= {"count": len(order.requests)} if len(order.requests) > 1 else {}
    found |= {"notes": len(order.notes)} if order.notes else {}
    return found | ({"invert": True} if order.is_mask_raw else {})

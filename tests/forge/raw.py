"""Safetensors files made by hand, right or wrong."""

from __future__ import annotations

import json


def safetensors_bytes(header: object, data: bytes = b"") -> bytes:
    """A file with this header (an object, or bytes as they are) and these bytes of tensors."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data

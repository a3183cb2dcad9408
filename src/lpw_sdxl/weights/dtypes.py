"""Number formats: what safetensors calls them, how many bytes they take, which ones we serve.

Knows nothing about torch; `tensors.py` maps the same codes to torch's types.
"""

from __future__ import annotations

from enum import StrEnum

DTYPE_BYTES = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "F8_E4M3FNUZ": 1,
    "F8_E5M2FNUZ": 1,
    "F8_E8M0": 1,
    "U16": 2,
    "I16": 2,
    "F16": 2,
    "BF16": 2,
    "U32": 4,
    "I32": 4,
    "F32": 4,
    "U64": 8,
    "I64": 8,
    "F64": 8,
    "C64": 8,
}
"""Bytes of one number for each safetensors code that a checkpoint may hold."""


class CheckpointDtype(StrEnum):
    """A dtype that weights are kept and run in; the value is torch's name for it."""

    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"
    FLOAT32 = "float32"

    @property
    def code(self) -> str:
        """Return safetensors' code for it."""
        return {"float16": "F16", "bfloat16": "BF16", "float32": "F32"}[self.value]

    @property
    def size(self) -> int:
        """Return the bytes of one number."""
        return DTYPE_BYTES[self.code]

    @property
    def flag(self) -> str:
        """Return its short name on the command line."""
        return {"float16": "fp16", "bfloat16": "bf16", "float32": "fp32"}[self.value]

"""Number formats: what safetensors calls them, how many bytes they take, which ones we serve.

Knows nothing about torch; `tensors.py` maps the same codes to torch's types.
"""

from __future__ import annotations

from enum import StrEnum

_CODES = {
    1: ("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F8_E8M0"),
    2: ("U16", "I16", "F16", "BF16"),
    4: ("U32", "I32", "F32"),
    8: ("U64", "I64", "F64", "C64"),
}
DTYPE_BYTES = {code: size for size, codes in _CODES.items() for code in codes}
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

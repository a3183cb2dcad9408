"""Single numbers of a safetensors file, read without torch; an alpha is one."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence

from lpw_sdxl.weights.header import TensorInfo

_MANTISSA_BITS = 3
_EXPONENT_BIAS = 7


def read_numbers(tensors: Sequence[TensorInfo]) -> Mapping[str, float]:
    """Read tensors of one number each, all of one file, by their names.

    Returns:
        The numbers; empty if the file is not there or not whole, as during its download.
    """
    if not tensors:
        return {}
    numbers = {}
    try:
        with tensors[0].path.open("rb") as file:
            for tensor in tensors:
                file.seek(tensor.start)
                content = file.read(tensor.end - tensor.start)
                if len(content) < tensor.end - tensor.start:
                    return {}
                numbers[tensor.name] = _DECODERS[tensor.dtype](content)
    except OSError:
        return {}
    return numbers


def _unpacked(code: str) -> Callable[[bytes], float]:
    return lambda content: float(struct.unpack(f"<{code}", content)[0])


def _decode_bfloat16(content: bytes) -> float:
    """Read the upper half of a float32."""
    return float(struct.unpack("<f", bytes(2) + content)[0])


def _decode_e5m2(content: bytes) -> float:
    """Read the upper half of a float16."""
    return float(struct.unpack("<e", bytes(1) + content)[0])


def _decode_e4m3(content: bytes) -> float:
    """Read a float8 without infinities (Micikevicius et al., arXiv 2209.05433, section 3)."""
    (byte,) = content
    sign, exponent, mantissa = -1 if byte & 0x80 else 1, (byte >> _MANTISSA_BITS) & 15, byte & 7
    if (exponent, mantissa) == (15, 7):
        return math.nan
    fraction = mantissa / 8 + (exponent > 0)
    return math.ldexp(sign * fraction, max(exponent, 1) - _EXPONENT_BIAS)


_DECODERS: Mapping[str, Callable[[bytes], float]] = {
    "F16": _unpacked("e"),
    "F32": _unpacked("f"),
    "F64": _unpacked("d"),
    "I32": _unpacked("i"),
    "I64": _unpacked("q"),
    "BF16": _decode_bfloat16,
    "F8_E5M2": _decode_e5m2,
    "F8_E4M3": _decode_e4m3,
}

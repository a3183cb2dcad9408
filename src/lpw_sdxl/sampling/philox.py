"""What CUDA's random generator would draw, computed on the CPU: the noise source `nv`.

Philox 4x32 with 10 rounds (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", 2011),
then Box and Muller's transform. A picture made on anybody's NVIDIA card can so be made again on any
machine.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch

Words: TypeAlias = npt.NDArray[np.uint64]
"""32-bit words, each in 64 bits, so that a product of two is whole."""

_ROUNDS = 10
_AT_ONCE = 8192  # blocks, whose words stay in the processor's cache
_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_KEY_STEPS = 0x9E3779B9, 0xBB67AE85
_WORD, _MASK = np.uint64(32), np.uint64(0xFFFFFFFF)
# The constants are CUDA's float32 ones, and all else is float64, rounded at the end: in float32
# throughout, two numbers of three would differ in their last bits.
_UNIT = float(np.float32(2.3283064e-10))  # 2^-32
_TURN = float(np.float32(2.3283064e-10 * 6.2831855))  # 2^-32 of a full turn


def draw_normal(seed: int, draw: int, count: int) -> torch.Tensor:
    """Draw normal numbers of mean 0 and variance 1.

    Args:
        seed: 64 bits, the key.
        draw: how many times the generator has drawn before.
        count: of numbers.

    Returns:
        float32, `[count]`.
    """
    first, second = _philox(seed, draw, count)
    # torch takes half of numpy's time for logarithms and sines.
    share = torch.from_numpy(first * _UNIT + _UNIT / 2)
    angle = torch.from_numpy(second * _TURN + _TURN / 2)
    return share.log_().mul_(-2.0).sqrt_().mul_(angle.sin_()).float()


def _philox(seed: int, draw: int, count: int) -> tuple[Words, Words]:
    """Compute the first two words of each block; a block is counted by draw and index."""
    first, second = np.empty(count, np.uint64), np.empty(count, np.uint64)
    buffers = np.empty((6, min(count, _AT_ONCE)), np.uint64)
    for start in range(0, count, _AT_ONCE):
        end = min(count, start + _AT_ONCE)
        word, other, index, last, left, right = buffers[:, : end - start]
        word[:], other[:], last[:] = draw, 0, 0
        index[:] = np.arange(start, end, dtype=np.uint64)
        for low, high in _round_keys(seed):
            np.multiply(word, _MULTIPLIERS[0], out=left)
            np.multiply(index, _MULTIPLIERS[1], out=right)
            _mix(right, other, low, out=word)
            _mix(left, last, high, out=index)
            np.bitwise_and(right, _MASK, out=other)
            np.bitwise_and(left, _MASK, out=last)
        first[start:end], second[start:end] = word, other
    return first, second


def _mix(product: Words, word: Words, key: np.uint64, out: Words) -> None:
    """Combine a product's upper word with another word and a key."""
    np.right_shift(product, _WORD, out=out)
    np.bitwise_xor(out, word, out=out)
    np.bitwise_xor(out, key, out=out)


def _round_keys(seed: int) -> list[tuple[np.uint64, np.uint64]]:
    """List both halves of the key for each round."""
    keys = seed & int(_MASK), seed >> 32 & int(_MASK)
    low, high = (
        [np.uint64(key + number * step & int(_MASK)) for number in range(_ROUNDS)]
        for key, step in zip(keys, _KEY_STEPS, strict=True)
    )
    return [*zip(low, high, strict=True)]

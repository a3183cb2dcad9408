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
    keys = seed & int(_MASK), seed >> 32 & int(_MASK)
    zeros = np.zeros(count, np.uint64)
    block = np.full(count, draw, np.uint64), zeros, np.arange(count, dtype=np.uint64), zeros
    for number in range(_ROUNDS):
        low, high = (
            np.uint64(key + number * step & int(_MASK))
            for key, step in zip(keys, _KEY_STEPS, strict=True)
        )
        left, right = block[0] * _MULTIPLIERS[0], block[2] * _MULTIPLIERS[1]
        block = (
            right >> _WORD ^ block[1] ^ low,
            right & _MASK,
            left >> _WORD ^ block[3] ^ high,
            left & _MASK,
        )
    return block[0], block[1]

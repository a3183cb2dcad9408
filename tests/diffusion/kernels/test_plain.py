"""The plain operations: the formulas, rounded once, and each row by itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lpw_sdxl.diffusion.kernels.operations import Activation
from lpw_sdxl.diffusion.kernels.plain import PlainOperations
from lpw_sdxl.weights.float8 import Quantised, quantise_rows

PLAIN = PlainOperations()
ROWS = 16
NORM = nn.GroupNorm(8, 32)
TOKEN_NORM = nn.LayerNorm(80)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 2 + 1


for _norm in (NORM, TOKEN_NORM):
    _norm.requires_grad_(False)
    _norm.weight.copy_(drawn(*_norm.weight.shape, seed=1))
    _norm.bias.copy_(drawn(*_norm.bias.shape, seed=2))

FEATURES = drawn(ROWS, 32, 9, 20)
SHIFT = drawn(ROWS, 32, seed=3)
TOKENS = drawn(ROWS, 6, 80, seed=4)
ADDED = drawn(ROWS, 6, 80, seed=5)
WIDE = drawn(ROWS, 6, 160, seed=6)

Run = Callable[[PlainOperations, slice], Activation]
RUNS: dict[str, Run] = {
    "group norm": lambda ops, rows: ops.group_norm(
        FEATURES[rows], NORM, has_silu=True, shift=SHIFT[rows]
    ),
    "sum": lambda ops, rows: ops.add_residual(FEATURES[rows], FEATURES[rows], NORM.bias),
    "layer norm": lambda ops, rows: (
        ops.add_layer_norm(ADDED[rows], TOKENS[rows], TOKEN_NORM, quantises=False).normalised
    ),
    "layer norm in fp8": lambda ops, rows: (
        ops.add_layer_norm(ADDED[rows], TOKENS[rows], TOKEN_NORM, quantises=True).normalised
    ),
    "gate": lambda ops, rows: ops.gate(WIDE[rows], quantises=False),
    "gate in fp8": lambda ops, rows: ops.gate(WIDE[rows], quantises=True),
    "fp8": lambda ops, rows: ops.quantise(TOKENS[rows]),
}
"""Each operation on some rows of a call."""


def values(activation: Activation) -> Tensor:
    return activation.restored() if isinstance(activation, Quantised) else activation


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS.keys())
@pytest.mark.parametrize("threads", [1, 3])
@torch.inference_mode()
def test_a_row_alone_has_the_bits_that_it_has_among_fifteen(run: Run, threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        together = values(run(PLAIN, slice(0, ROWS)))
        for row in (0, 7, ROWS - 1):
            alone = values(run(PLAIN, slice(row, row + 1)))
            assert torch.equal(alone, together[row : row + 1])
    finally:
        torch.set_num_threads(before)


def test_they_are_the_formulas() -> None:
    wide = FEATURES.double() + SHIFT.double()[:, :, None, None]
    norm = F.group_norm(wide, 8, NORM.weight.double(), NORM.bias.double(), NORM.eps)
    found = PLAIN.group_norm(FEATURES, NORM, has_silu=True, shift=SHIFT)
    torch.testing.assert_close(found.double(), F.silu(norm), rtol=1e-5, atol=1e-5)
    assert found.is_contiguous(memory_format=torch.channels_last)

    summed = PLAIN.add_layer_norm(ADDED, TOKENS, TOKEN_NORM, quantises=False)
    assert torch.equal(summed.total, ADDED + TOKENS)
    assert torch.equal(
        values(summed.normalised),
        F.layer_norm(ADDED + TOKENS, (80,), TOKEN_NORM.weight, TOKEN_NORM.bias),
    )
    alone = PLAIN.add_layer_norm(None, TOKENS, TOKEN_NORM, quantises=False)
    assert alone.total is TOKENS

    value, gate = WIDE.chunk(2, dim=-1)
    assert torch.equal(values(PLAIN.gate(WIDE, quantises=False)), value * F.gelu(gate))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_rounded_once(dtype: torch.dtype) -> None:
    norm = nn.GroupNorm(8, 32).to(dtype).requires_grad_(False)
    states = FEATURES.to(dtype)
    wide = F.silu(F.group_norm(states.double(), 8, None, None, norm.eps))
    expected = wide.to(dtype)
    found = PLAIN.group_norm(states, norm, has_silu=True)
    assert found.dtype == dtype
    # Where float32's own error crosses the middle between two numbers, the next one is found.
    assert (found != expected).float().mean() < 1e-3
    twice = F.silu(F.group_norm(states, 8, norm.weight, norm.bias, norm.eps))
    assert (twice != expected).float().mean() > 0.05  # rounded between the two, as without us


def test_fp8_keeps_each_rows_largest_number_and_zeros() -> None:
    rows = torch.tensor([[0.0, 0.0, 0.0], [3e4, -1.0, 0.0], [1e-6, 2e-6, -4e-6]])
    quantised = quantise_rows(rows)
    restored = quantised.restored()
    assert quantised.values.dtype == torch.float8_e4m3fn
    assert torch.equal(restored[0], rows[0])
    largest = rows.abs().argmax(-1)
    for row in (1, 2):
        torch.testing.assert_close(restored[row, largest[row]], rows[row, largest[row]])
    drawn_rows = drawn(64, 256)
    error = (quantise_rows(drawn_rows).restored() - drawn_rows).norm() / drawn_rows.norm()
    assert 0.02 < error < 0.028  # e4m3 has three bits after the point
    assert quantised.size == rows.numel() + 4 * len(rows)

"""A trial of the operations on the device: each at the widths of the networks, beside plain torch.

It compiles every kernel before the first request, and finds one that a GPU computes wrongly before
it draws a picture.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lpw_sdxl.diffusion.kernels.operations import Activation, Operations
from lpw_sdxl.diffusion.kernels.plain import PlainOperations
from lpw_sdxl.weights.float8 import Quantised

logger = logging.getLogger(__name__)

ROWS = 2
SIZE = (17, 24)  # latent pixels, more than three of the kernels' parts, the last one cut short
TOKENS = 9
WIDENED = 8  # a gated layer's product is as many times as wide as its input
BARS = {torch.float16: 2e-3, torch.bfloat16: 1.6e-2, torch.float32: 1e-5}
"""Largest relative error, by dtype: two roundings of the dtype, or of float32's sums."""
FLOAT8_BAR = 4e-2  # of results in fp8, whose rounding alone is 2.6e-2


class _Comparison(NamedTuple):
    """One operation's results, and the plain ones."""

    name: str
    result: Activation
    expected: Activation


def find_wrong_kernel(
    operations: Operations, networks: Sequence[nn.Module], device: torch.device, *, quantises: bool
) -> str | None:
    """Return what is wrong with the operations on a device, None if nothing is.

    Args:
        operations: to try.
        networks: whose widths and dtypes are tried.
        device: where.
        quantises: whether results in fp8 are tried too.
    """
    started = time.monotonic()
    try:
        with torch.inference_mode():
            for one in _compare_all(operations, networks, device, quantises=quantises):
                is_float8 = isinstance(one.expected, Quantised)
                error = relative_error(_numbers(one.result), _numbers(one.expected))
                bar = FLOAT8_BAR if is_float8 else BARS[_numbers(one.expected).dtype]
                if not error <= bar:  # NaN is wrong too
                    return f"{one.name} has an error of {error:.1e} on this device"
    except Exception as error:  # noqa: BLE001 - compilers and drivers raise what they like
        text = (str(error).strip() or "no message").splitlines()[0]
        return f"one can't be compiled or run ({type(error).__name__}: {text})"
    logger.info("fused kernels were compiled and tried in %.1f s", time.monotonic() - started)
    return None


def relative_error(result: Tensor, expected: Tensor) -> float:
    """Compute the distance of two tensors as a share of the second one's length."""
    distance = (result.double() - expected.double()).norm()
    return (distance / expected.double().norm()).item()


def _numbers(activation: Activation) -> Tensor:
    return activation.restored() if isinstance(activation, Quantised) else activation


def _compare_all(
    operations: Operations, networks: Sequence[nn.Module], device: torch.device, *, quantises: bool
) -> Iterator[_Comparison]:
    plain = PlainOperations()
    drawn = torch.Generator().manual_seed(0)
    forms = (False, True) if quantises else (False,)
    for network in networks:
        dtype = next(network.parameters()).dtype

        def draw(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
            return (torch.randn(shape, generator=drawn) * 2 + 1).to(device, dtype)

        for width, groups in sorted(_group_norms(network)):
            norm = nn.GroupNorm(groups, width, eps=1e-6).to(device, dtype)
            norm.weight.data, norm.bias.data = draw(width), draw(width)
            states = draw(ROWS, width, *SIZE).contiguous(memory_format=torch.channels_last)
            shift = draw(ROWS, width).float()
            for has_silu in (False, True):
                for moved in (None, shift):
                    yield _Comparison(
                        f"group norm of {width} channels in {dtype}",
                        operations.group_norm(states, norm, has_silu=has_silu, shift=moved),
                        plain.group_norm(states, norm, has_silu=has_silu, shift=moved),
                    )
            # A sum with a convolved residual has two biases, added up in float32.
            for bias in (None, norm.bias, norm.bias.float()):
                yield _Comparison(
                    f"a sum of {width} channels in {dtype}",
                    operations.add_residual(states, states, bias),
                    plain.add_residual(states, states, bias),
                )
        for width in sorted(_layer_norms(network)):
            token_norm = nn.LayerNorm(width).to(device, dtype)
            token_norm.weight.data, token_norm.bias.data = draw(width), draw(width)
            tokens, wide = draw(ROWS, TOKENS, width), draw(ROWS, TOKENS, WIDENED * width)
            for is_float8 in forms:
                for added in (None, draw(ROWS, TOKENS, width)):
                    ours = operations.add_layer_norm(added, tokens, token_norm, quantises=is_float8)
                    theirs = plain.add_layer_norm(added, tokens, token_norm, quantises=is_float8)
                    name = f"layer norm of {width} channels in {dtype}"
                    yield _Comparison(name, ours.total, theirs.total)
                    yield _Comparison(name, ours.normalised, theirs.normalised)
                yield _Comparison(
                    f"a gate of {WIDENED * width // 2} channels in {dtype}",
                    operations.gate(wide, quantises=is_float8),
                    plain.gate(wide, quantises=is_float8),
                )
            if quantises:
                yield _Comparison(
                    f"fp8 of {width} channels", operations.quantise(tokens), plain.quantise(tokens)
                )


def _group_norms(network: nn.Module) -> set[tuple[int, int]]:
    norms = (one for one in network.modules() if isinstance(one, nn.GroupNorm))
    return {(norm.num_channels, norm.num_groups) for norm in norms}


def _layer_norms(network: nn.Module) -> set[int]:
    norms = (one for one in network.modules() if isinstance(one, nn.LayerNorm))
    return {norm.normalized_shape[0] for norm in norms}

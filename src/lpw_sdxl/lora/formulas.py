"""Formulas of a layer's change of weight from its factors; it knows nothing of files or models.

The factors carry LyCORIS' names. In the formulas below W is the layer's weight, D the plain change,
r a rank, s = alpha / r. The plain kinds:

    LoRA   D = s up down                       Hu et al., arXiv 2106.09685, section 4.1
    LoHa   D = s (w1_a w1_b) o (w2_a w2_b)     Hyeon-Woo et al., arXiv 2108.06098, section 2.1
    LoKr   D = s w1 (x) w2                     Yeh et al., arXiv 2309.14859, section 3.2
    full   D = diff

o is the element-wise product, (x) Kronecker's product. A convolution's kernel is a matrix here too,
of one row per output channel: [out, in * height * width] (LoCon; 2309.14859, section 3.1). Kernels
may instead be kept in Tucker's form (2108.06098, proposition 2; LyCORIS' `rebuild_tucker`): a core
[p, q, height, width] between a matrix for the output channels and one for the input channels.

On top of any of them comes DoRA (Liu et al., arXiv 2402.09353, section 4), a magnitude m per row or
column, which makes the change m (W + D) / ||W + D|| - W.

Everything is computed in float32, or in float64 where the weight is that, on the weight's device.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from lpw_sdxl.errors import AddonError

FactorTensors = Mapping[str, Tensor]
"""One module's factors by name, as the canonical file has them."""

_ALPHA = "alpha"
_BIAS = "diff_b"
_MAGNITUDE = "dora_scale"
_SMALLEST_NORM = 1e-30
"""A row's norm that counts as 0; magnitudes over it stay far below float32's end."""


def compute_weight_change(weight: Tensor, factors: FactorTensors) -> Tensor:
    """Compute the change that a module's factors make to its weight, at strength 1.

    Args:
        weight: of the layer, `[out, in]`, `[out, in, height, width]` or, of a norm, `[channels]`;
            of any floating dtype and device.
        factors: of the module, of any floating dtype and device.

    Returns:
        The change, in the weight's shape and on its device; float64 if the weight is, else float32.
        It shares no memory with the factors.

    Raises:
        AddonError: no formula takes these factors, or their product's shape is not the weight's.
    """
    dtype = torch.promote_types(weight.dtype, torch.float32)
    if set(factors) == {_BIAS}:
        return torch.zeros_like(weight, dtype=dtype)
    # First to the device, then to the wider dtype: half the bytes to transfer.
    ready = {name: factor.to(weight.device).to(dtype) for name, factor in factors.items()}
    plain = compute_product(ready)
    if plain.shape[0] != weight.shape[0] or plain.numel() != weight.numel():
        raise AddonError(
            f"A LoRA's factors make a change of shape {list(plain.shape)}, but its layer's weight "
            f"is {list(weight.shape)}."
        )
    plain = plain.reshape(weight.shape)
    magnitude = ready.get(_MAGNITUDE)
    return plain if magnitude is None else _apply_magnitude(weight.to(dtype), plain, magnitude)


def compute_product(factors: FactorTensors) -> Tensor:
    """Compute the plain change that factors make, without DoRA's magnitude and without a bias.

    Args:
        factors: of one module, all of the dtype of the result.

    Returns:
        `[out, in * height * width]`; of a full difference, its own shape.

    Raises:
        AddonError: no formula takes these factors.
    """
    formula = _FORMULAS.get(frozenset(factors) - {_MAGNITUDE, _BIAS})
    if formula is None:
        raise AddonError(
            f"No formula takes the factors {', '.join(sorted(factors)) or '(none)'} together; one "
            "is unknown, missing or too many."
        )
    return formula(factors)


def compute_bias_change(factors: FactorTensors) -> Tensor | None:
    """Return the change that a module's factors make to its bias, `[out]` at strength 1, or None.

    It is float64 if the factor is, else float32, and on the factor's device.
    """
    bias = factors.get(_BIAS)
    if bias is None:
        return None
    return bias.to(torch.promote_types(bias.dtype, torch.float32), copy=True)


def _low_rank(factors: FactorTensors) -> Tensor:
    """Compute LoRA and LoCon: down `[r, in, ...]`, up `[out, r, ...]`.

    In Tucker's form both have 1x1 kernels, and mid is `[r, r, height, width]`.
    """
    down, up = _matrix(factors["lora_down"]), _matrix(factors["lora_up"])
    # The small factor is scaled, so that only the product is as large as the weight.
    up = up * _scale(factors, down.shape[0])
    core = factors.get("lora_mid")
    return up @ down if core is None else _tucker(core, up, down)


def _hadamard(factors: FactorTensors) -> Tensor:
    """Compute LoHa: the element-wise product of two products, of the factors w1 and w2."""
    scale = _scale(factors, factors["hada_w1_b"].shape[0])
    left = _product(factors["hada_w1_a"] * scale, factors["hada_w1_b"], factors.get("hada_t1"))
    right = _product(factors["hada_w2_a"], factors["hada_w2_b"], factors.get("hada_t2"))
    if left.shape != right.shape:
        raise AddonError(
            f"A LoHa's two products have the shapes {list(left.shape)} and {list(right.shape)}; "
            "they must be the same."
        )
    return left.mul_(right)


def _kronecker(factors: FactorTensors) -> Tensor:
    """Compute LoKr: w1 `[out1, in1]`, w2 `[out2, in2 * height * width]`.

    out1 * out2 is out, in1 * in2 is in.
    """
    left, right = _side(factors, "lokr_w1") * _kronecker_scale(factors), _side(factors, "lokr_w2")
    # [out1, out2, in1, in2 * height * width]
    blocks = left[:, None, :, None] * right[None, :, None, :]
    return blocks.reshape(left.shape[0] * right.shape[0], -1)


def _kronecker_scale(factors: FactorTensors) -> Tensor | float:
    """Return alpha over the rank of the sides that are products, or 1 if neither is.

    Where both sides are whole, LyCORIS ignores alpha; it writes the requested rank there.
    """
    names = ("lokr_w1_b", "lokr_w2_b")
    ranks = {factors[name].shape[0] for name in names if name in factors}
    if len(ranks) > 1:
        raise AddonError(
            f"A LoKr's two sides have the ranks {' and '.join(map(str, sorted(ranks)))}; its scale "
            "is defined only where they are the same."
        )
    return _scale(factors, ranks.pop()) if ranks else 1.0


def _side(factors: FactorTensors, name: str) -> Tensor:
    """Return a side of LoKr's product, which is stored whole or as a product itself."""
    if name in factors:
        return _matrix(factors[name])
    core = factors.get("lokr_t2") if name == "lokr_w2" else None
    return _product(factors[f"{name}_a"], factors[f"{name}_b"], core)


def _whole(factors: FactorTensors) -> Tensor:
    return factors["diff"].clone()


def _apply_magnitude(weight: Tensor, plain: Tensor, magnitude: Tensor) -> Tensor:
    """Compute the change by DoRA, which gives the changed weight the norms `magnitude`.

    Args:
        weight: of the layer.
        plain: the change without the magnitude.
        magnitude: `[out, 1, ...]`, the norm of each output's row, or `[1, in, ...]`, of each
            input's column. The paper's is the latter, PEFT's and LyCORIS' default the former.
    """
    ones = (1,) * (weight.ndim - 2)
    shapes = [(weight.shape[0], 1, *ones), (1, *weight.shape[1:2], *ones)]
    if tuple(magnitude.shape) not in shapes:
        raise AddonError(
            f"A DoRA's magnitude has shape {list(magnitude.shape)}; for a weight of "
            f"{list(weight.shape)} it must be {list(shapes[0])} or {list(shapes[1])}."
        )
    others = [axis for axis, length in enumerate(magnitude.shape) if length == 1]
    # Summed in float64: gain - 1 is small, and its error is multiplied by the whole weight.
    norm = torch.linalg.vector_norm(weight + plain, dim=others, keepdim=True, dtype=torch.float64)
    # A row of zeros stays zero: with a gain beyond float32 it would be NaN.
    gain = magnitude / norm.clamp_min(_SMALLEST_NORM)
    # gain (W + D) - W, without a difference of two large numbers.
    return torch.addcmul(plain * gain.to(plain.dtype), weight, (gain - 1).to(plain.dtype))


def _scale(factors: FactorTensors, rank: int) -> Tensor:
    """Return alpha / rank as a scalar tensor; reading the number would wait for the device."""
    return factors[_ALPHA].reshape(()) / rank


def _matrix(factor: Tensor) -> Tensor:
    return factor.reshape(factor.shape[0], -1)


def _tucker(core: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return rows `[out, p]` core `[p, q, ...]` columns `[q, in]` as a matrix `[out, in ...]`."""
    inner = torch.einsum("pq...,qi->pi...", core, columns)
    return rows @ _matrix(inner)


def _product(a: Tensor, b: Tensor, core: Tensor | None) -> Tensor:
    """Multiply a `[out, r]` and b `[r, in * height * width]`.

    In Tucker's form a is `[r, out]`, b `[r, in]`, and the core `[r, r, height, width]`.
    """
    return _matrix(a) @ _matrix(b) if core is None else _tucker(core, a.T, b)


_LOHA = {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", _ALPHA}
_W1_CHOICES = ({"lokr_w1"}, {"lokr_w1_a", "lokr_w1_b"})
_W2_CHOICES = (
    {"lokr_w2"},
    {"lokr_w2_a", "lokr_w2_b"},
    {"lokr_t2", "lokr_w2_a", "lokr_w2_b"},
)
_ROWS: Sequence[tuple[set[str], Callable[[FactorTensors], Tensor]]] = (
    ({"lora_down", "lora_up", _ALPHA}, _low_rank),
    ({"lora_down", "lora_mid", "lora_up", _ALPHA}, _low_rank),
    (_LOHA, _hadamard),
    (_LOHA | {"hada_t1", "hada_t2"}, _hadamard),
    *((first | second | {_ALPHA}, _kronecker) for first in _W1_CHOICES for second in _W2_CHOICES),
    ({"lokr_w1", "lokr_w2"}, _kronecker),
    ({"diff"}, _whole),
)
_FORMULAS = {frozenset(names): formula for names, formula in _ROWS}
"""The formula of each set of factors, without magnitude and bias, which any set may have."""

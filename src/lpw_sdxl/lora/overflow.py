"""Products of a LoRA's factors that overflow although every factor is finite; refused at import.

A change is computed in float32 and added to weights in the served dtype, of which float16 has the
smallest range. One entry serves any model of its modules' shapes, so float16's range counts for
all. The largest numbers of the factors bound a product in almost every file; only where they don't
is the product computed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import NamedTuple, NoReturn

import torch
from torch import Tensor

from lpw_sdxl.errors import AddonError
from lpw_sdxl.lora.forms import Factor
from lpw_sdxl.lora.formulas import compute_product
from lpw_sdxl.lora.plan import LoraPlan, TensorPlan
from lpw_sdxl.weights.component import Component

LARGEST_CHANGE = 65_504.0
"""float16's largest number, which a change may reach at weight 1; real ones stay below 10."""

_LARGEST_FLOAT32 = torch.finfo(torch.float32).max
_ROUNDING = 1.001  # of sums in float32, against which a bound is taken larger
_BESIDE = (Factor.DORA_SCALE, Factor.DIFF_B)


class _Bound(NamedTuple):
    """An upper bound of a product's numbers, and of those on the way to it."""

    result: float
    on_the_way: float


class _Sizes(NamedTuple):
    """The ranks of one module's products and the largest absolute number of each factor."""

    peaks: Mapping[Factor, float]
    shapes: Mapping[Factor, tuple[int, ...]]


def refuse_overflow(
    file: str,
    plan: LoraPlan,
    peaks: Mapping[str, float],
    read: Callable[[TensorPlan], Tensor],
) -> None:
    """Refuse a LoRA with a module whose change is beyond float16's range at weight 1.

    With DoRA's magnitude, the norm of the changed weight, the plain product has float32's range,
    and the magnitude float16's.

    Args:
        file: its name, for messages.
        plan: of its conversion.
        peaks: largest absolute number of each tensor, by its canonical name.
        read: reads a tensor as the canonical file has it; it may be overwritten by a later read.

    Raises:
        AddonError: there is such a module; the message names it.
    """
    modules: dict[tuple[Component, str], list[TensorPlan]] = defaultdict(list)
    for item in (*plan.factors, *plan.alphas):
        modules[item.component, item.path].append(item)
    for items in modules.values():
        _check_module(file, items, peaks, read)


def _check_module(
    file: str,
    items: Sequence[TensorPlan],
    peaks: Mapping[str, float],
    read: Callable[[TensorPlan], Tensor],
) -> None:
    sizes = _Sizes(
        {item.factor: peaks[item.name] for item in items},
        {item.factor: item.shape for item in items},
    )
    for factor in _BESIDE:
        if sizes.peaks.get(factor, 0.0) > LARGEST_CHANGE:
            what = "bias" if factor is Factor.DIFF_B else "DoRA magnitude"
            _refuse(file, items[0], f"the {what}", sizes.peaks[factor], LARGEST_CHANGE)
    plain = [item for item in items if item.factor not in _BESIDE]
    if not plain:
        return
    limit = _LARGEST_FLOAT32 if Factor.DORA_SCALE in sizes.peaks else LARGEST_CHANGE
    bound = _bound(sizes)
    if bound.result * _ROUNDING <= limit and bound.on_the_way * _ROUNDING <= _LARGEST_FLOAT32:
        return
    product = compute_product({item.factor.value: read(item).float().clone() for item in plain})
    found = find_peak(product)
    if not found <= limit:  # a NaN is neither
        _refuse(file, items[0], "the product of its factors", found, limit)


def find_peak(tensor: Tensor) -> float:
    """Return the largest absolute number of a tensor; NaN where it holds one, 0 where it is empty.

    The two extremes show it, without a copy.
    """
    if not tensor.numel():
        return 0.0
    lowest, highest = torch.aminmax(tensor)
    return max(abs(float(lowest)), abs(float(highest)))


def _bound(sizes: _Sizes) -> _Bound:
    """Bound a module's product by its factors' peaks, in any form that has a formula."""
    peaks, shapes = sizes
    if Factor.DIFF in peaks:
        return _Bound(peaks[Factor.DIFF], 0.0)
    if Factor.DOWN in peaks:
        rank = shapes[Factor.DOWN][0]
        up = peaks[Factor.UP] * peaks[Factor.ALPHA] / rank
        return _product(up, peaks[Factor.DOWN], peaks.get(Factor.MID), rank)
    if Factor.HADA_W1_A in peaks:
        rank = shapes[Factor.HADA_W1_B][0]
        scaled = peaks[Factor.HADA_W1_A] * peaks[Factor.ALPHA] / rank
        left = _product(scaled, peaks[Factor.HADA_W1_B], peaks.get(Factor.HADA_T1), rank)
        right = _product(
            peaks[Factor.HADA_W2_A], peaks[Factor.HADA_W2_B], peaks.get(Factor.HADA_T2), rank
        )
    else:
        left, right = _lokr_sides(sizes)
    return _Bound(left.result * right.result, max(*left, *right))


def _lokr_sides(sizes: _Sizes) -> tuple[_Bound, _Bound]:
    """Bound both sides of a LoKr; the first one has the scale."""
    peaks, shapes = sizes
    ranks = [shapes[b][0] for b in (Factor.LOKR_W1_B, Factor.LOKR_W2_B) if b in shapes]
    scale = peaks[Factor.ALPHA] / ranks[0] if ranks and Factor.ALPHA in peaks else 1.0
    sides = []
    for whole, a, b, core in (
        (Factor.LOKR_W1, Factor.LOKR_W1_A, Factor.LOKR_W1_B, None),
        (Factor.LOKR_W2, Factor.LOKR_W2_A, Factor.LOKR_W2_B, Factor.LOKR_T2),
    ):
        if whole in peaks:
            sides.append(_Bound(peaks[whole], peaks[whole]))
        else:
            middle = None if core is None else peaks.get(core)
            sides.append(_product(peaks[a], peaks[b], middle, shapes[b][0]))
    first, second = sides
    return _Bound(first.result * scale, max(first)), second


def _product(a: float, b: float, core: float | None, rank: int) -> _Bound:
    """Bound the product of two factors of one rank, with or without a Tucker core between them."""
    inner = b if core is None else rank * core * b
    return _Bound(rank * a * inner, max(a, inner))


def _refuse(file: str, item: TensorPlan, what: str, found: float, limit: float) -> NoReturn:
    reached = f"reaches {found:.3g}" if isfinite(found) else "is not finite"
    largest = f"at most {limit:.6g}" if limit == LARGEST_CHANGE else "a finite one"
    raise AddonError(
        f"{file}: {what} of the module {item.component.value}/{item.path} {reached}, which"
        f" overflows in use; {largest} would be right: get another copy, or train it again."
    )

"""The registry of a LoRA's forms: the factors of each and the shapes that they need.

Pure, no torch; `module_form.py` finds a module's form in this registry. Letters are those of
LyCORIS: a weight is [out, in] or [out, in, k, k], and r is the rank (Yeh et al., "Navigating
Text-To-Image Customization", 2023).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

from lpw_sdxl.lora.module_tensors import ModuleTensors, refuse_shape, size_of
from lpw_sdxl.lora.names import Factor
from lpw_sdxl.lora.targets import Shape

Factors = tuple[Factor, ...]


@dataclass(frozen=True)
class Form:
    """A way to compute the change of a weight from factors.

    Attributes:
        title: the usual name.
        marks: the factors that only this form has.
        choices: alternative sets of factors, once for each part; a module has exactly one complete
            set of each part, and nothing of the other sets.
        read_shapes: returns the rank and the shapes of the marks.
        pair: factors of which a module has all or none.
        may_have_dora: whether it may have a `dora_scale`.
    """

    title: str
    marks: Factors
    choices: tuple[tuple[Factors, ...], ...]
    read_shapes: Callable[[ModuleTensors, Shape], tuple[int | None, dict[Factor, Shape]]]
    pair: Factors = ()
    may_have_dora: bool = True


def _read_lora(tensors: ModuleTensors, weight: Shape) -> tuple[int, dict[Factor, Shape]]:
    rank = size_of(tensors[Factor.DOWN], 0)
    pointwise = (1,) * len(weight[2:])
    shapes = {Factor.DOWN: (rank, *weight[1:]), Factor.UP: (weight[0], rank, *pointwise)}
    if Factor.MID in tensors:  # Tucker form: the kernel is in the middle
        shapes[Factor.DOWN] = (rank, weight[1], *pointwise) if len(weight) > 1 else weight
        shapes[Factor.MID] = (rank, rank, *weight[2:])
    return rank, shapes


def _read_loha(tensors: ModuleTensors, weight: Shape) -> tuple[int, dict[Factor, Shape]]:
    rank = size_of(tensors[Factor.HADA_W1_B], 0)
    shapes: dict[Factor, Shape] = {}
    for a, b, core in (
        (Factor.HADA_W1_A, Factor.HADA_W1_B, Factor.HADA_T1),
        (Factor.HADA_W2_A, Factor.HADA_W2_B, Factor.HADA_T2),
    ):
        shapes |= _product(tensors, (a, b, core), weight, rank)
    return rank, shapes


def _read_lokr(tensors: ModuleTensors, weight: Shape) -> tuple[int | None, dict[Factor, Shape]]:
    """Read the shapes of kron(w1, w2): w1 [a, c], w2 [b, d, k, k], the weight [ab, cd, k, k]."""
    rows, columns = (tensors.get(Factor.LOKR_W1) or tensors[half] for half in _W1)
    a, c = size_of(rows, 0), size_of(columns, 1)
    if weight[0] % a or weight[1] % c:
        refuse_shape(rows, f"divisors of its module's {list(weight[:2])} would fit")
    ranks = [size_of(tensors[b], 0) for b in (_W1[1], _W2[1]) if b in tensors]
    if len(set(ranks)) > 1:
        refuse_shape(tensors[_W2[1]], f"the first half's rank {ranks[0]} would be right")
    rank = ranks[0] if ranks else None
    shapes: dict[Factor, Shape] = {}
    for whole, product, side in (
        (Factor.LOKR_W1, _W1, (a, c)),
        (Factor.LOKR_W2, (*_W2, Factor.LOKR_T2), (weight[0] // a, weight[1] // c, *weight[2:])),
    ):
        if whole in tensors:
            shapes[whole] = side
        else:
            assert rank is not None
            shapes |= _product(tensors, product, side, rank)
    return rank, shapes


def _product(
    tensors: ModuleTensors, names: Factors, weight: Shape, rank: int
) -> dict[Factor, Shape]:
    """Return the shapes of a product: [out, r] times [r, in k k], or those with a Tucker core."""
    a, b, *cores = names
    if not tensors.keys().isdisjoint(cores):
        return {a: (rank, weight[0]), b: (rank, weight[1]), cores[0]: (rank, rank, *weight[2:])}
    return {a: (weight[0], rank), b: (rank, prod(weight[1:]))}


def _read_full(tensors: ModuleTensors, weight: Shape) -> tuple[None, dict[Factor, Shape]]:
    return None, ({Factor.DIFF: weight} if Factor.DIFF in tensors else {})


_W1 = (Factor.LOKR_W1_A, Factor.LOKR_W1_B)
_W2 = (Factor.LOKR_W2_A, Factor.LOKR_W2_B)
_HALVES = (Factor.HADA_W1_A, Factor.HADA_W1_B, Factor.HADA_W2_A, Factor.HADA_W2_B)
_CORES = (Factor.HADA_T1, Factor.HADA_T2)
FULL = Form(
    "full",
    (Factor.DIFF, Factor.DIFF_B),
    (((Factor.DIFF,),),),
    _read_full,
    # Tools disagree on a full difference with DoRA's scale, and none is known to write it.
    may_have_dora=False,
)
FORMS = (
    Form(
        "LoRA",
        (Factor.DOWN, Factor.UP, Factor.MID),
        (((Factor.DOWN, Factor.UP),),),
        _read_lora,
    ),
    Form("LoHa", (*_HALVES, *_CORES), ((_HALVES,),), _read_loha, pair=_CORES),
    Form(
        "LoKr",
        (Factor.LOKR_W1, *_W1, Factor.LOKR_W2, *_W2, Factor.LOKR_T2),
        (((Factor.LOKR_W1,), _W1), ((Factor.LOKR_W2,), _W2)),
        _read_lokr,
    ),
    FULL,
)

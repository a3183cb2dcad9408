"""The factors of one module: which kind they make, and what shapes they need; pure, no torch.

The letters of LyCORIS: a weight is [out, in] or [out, in, k, k] and r is the rank (Yeh et al.,
"Navigating Text-To-Image Customization", 2023).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import NoReturn

from lpw_sdxl.checkpoint.plan import WEIGHT_DTYPES
from lpw_sdxl.errors import AddonError
from lpw_sdxl.lora.names import Factor
from lpw_sdxl.lora.targets import Shape, Target
from lpw_sdxl.weights.header import TensorInfo
from lpw_sdxl.weights.text import clean_text

Tensors = Mapping[Factor, TensorInfo]
"""One module's tensors."""

ALPHA_DTYPES = (*WEIGHT_DTYPES, "I64", "I32")
_LONGEST_NAME = 200


@dataclass(frozen=True)
class ModuleShapes:
    """What one module's factors are.

    Attributes:
        kinds: what people call them, such as `LoCon` and `DoRA`.
        rank: that alpha is divided by; None where the formula has no scale.
        shapes: the canonical shape of each factor, by its name in the file; none for alpha.
    """

    kinds: tuple[str, ...]
    rank: int | None
    shapes: Mapping[Factor, Shape]


def read_module(tensors: Tensors, target: Target) -> ModuleShapes:
    """Tell the kind of a module's factors and check that they fit it.

    Raises:
        AddonError: a factor is missing, too many, of a wrong shape or dtype; it is named.
    """
    kind = _kind(tensors)
    _check_complete(tensors, kind)
    if len(target.weight) < 2 and kind is not _FULL:
        _wrong(tensors[min(tensors)], f"its module has a vector {list(target.weight)}, for a diff")
    rank, shapes = kind.read(tensors, target.weight)
    shapes |= _bias(tensors, target) | _scales(tensors, target.weight)
    for factor in sorted(tensors.keys() - shapes.keys() - {Factor.ALPHA}):
        raise AddonError(f"{_named(tensors[factor])} has no meaning beside the others.")
    for factor, shape in shapes.items():
        tensor = tensors[factor]
        if factor is not Factor.MAGNITUDE and not _holds(tensor.shape, shape):
            _wrong(tensor, f"{list(shape)} would fit its module's {list(target.weight)}")
        if tensor.dtype not in WEIGHT_DTYPES:
            _wrong(tensor, f"{', '.join(WEIGHT_DTYPES)} can be imported", has_dtype=True)
    _check_alpha(tensors)
    titles = _titles(kind, tensors, has_kernel=len(target.weight) > 2)
    return ModuleShapes(titles, rank, shapes)


def kinds_of(tensors: Tensors) -> tuple[str, ...]:
    """Say what people call a module's factors, without the module to hold them against."""
    kind = next((kind for kind in _KINDS if not kind.marks.isdisjoint(tensors)), None)
    if kind is None:
        return ()
    down = tensors.get(Factor.DOWN)
    is_kernel = Factor.MID in tensors or (down is not None and len(_trimmed(down.shape)) > 2)
    return _titles(kind, tensors, has_kernel=is_kernel)


def rank_of(tensors: Tensors) -> int | None:
    """Return the rank of a module's factors as their shapes tell it; None for none."""
    by_rank = (Factor.DOWN, Factor.HADA_W1_B, Factor.LOKR_W1_B, Factor.LOKR_W2_B)
    shapes = (tensors[factor].shape for factor in by_rank if factor in tensors)
    return next((shape[0] for shape in shapes if shape), None)


@dataclass(frozen=True)
class _Kind:
    """A way to make a change of a weight from factors.

    Attributes:
        title: what people call it.
        marks: the factors that only this kind has.
        choices: sets of factors, one of which must be there in full and no part of the others.
        read: returns the rank and the shapes of the marks.
        pairs: sets of factors that are there in full or not at all.
        may_have_dora: it may have a `dora_scale`.
    """

    title: str
    marks: frozenset[Factor]
    choices: tuple[tuple[frozenset[Factor], ...], ...]
    read: Callable[[Tensors, Shape], tuple[int | None, dict[Factor, Shape]]]
    pairs: tuple[frozenset[Factor], ...] = ()
    may_have_dora: bool = True


def _kind(tensors: Tensors) -> _Kind:
    kinds = [kind for kind in _KINDS if not kind.marks.isdisjoint(tensors)]
    if len(kinds) > 1 and Factor.DIFF not in tensors:
        kinds = [kind for kind in kinds if kind is not _FULL]  # a bias goes with any kind
    first = next(iter(tensors.values()))
    if not kinds:
        raise AddonError(
            f"{_named(first)} stands alone; the factors that it belongs to are needed."
        )
    if len(kinds) > 1:
        raise AddonError(
            f"{_named(first)}: its module is changed as {kinds[0].title} and as {kinds[1].title}; "
            "one of them is needed."
        )
    return kinds[0]


def _check_complete(tensors: Tensors, kind: _Kind) -> None:
    """Refuse a module that has a part of a set of factors, or two sets where one is right.

    A bias alone is complete: some tools save the changes of weights and biases as they find them.
    """
    if tensors.keys() == {Factor.DIFF_B}:
        return
    for choices in kind.choices:
        begun = [choice for choice in choices if not choice.isdisjoint(tensors)]
        wanted = begun[0] if begun else choices[0]
        if len(begun) > 1:
            other = next(tensors[factor] for factor in sorted(begun[1]) if factor in tensors)
            raise AddonError(f"{_named(other)}: its module has the same part in another form.")
        _check_present(tensors, wanted)
    for pair in kind.pairs:
        if not pair.isdisjoint(tensors):
            _check_present(tensors, pair)
    allowed = kind.marks | {Factor.ALPHA, Factor.DIFF_B}
    if kind.may_have_dora:
        allowed |= {Factor.DORA_SCALE, Factor.MAGNITUDE}
    for factor in sorted(tensors.keys() - allowed):
        raise AddonError(f"{_named(tensors[factor])} has no meaning beside {kind.title}.")


def _check_present(tensors: Tensors, wanted: frozenset[Factor]) -> None:
    missing = sorted(wanted - tensors.keys())
    if missing:
        present = tensors[min(tensors.keys() & wanted or tensors)]
        raise AddonError(f"{_named(present)} has no {missing[0].value} beside it; both are needed.")


def _titles(kind: _Kind, tensors: Tensors, *, has_kernel: bool) -> tuple[str, ...]:
    title = "LoCon" if kind.title == "LoRA" and has_kernel else kind.title
    has_dora = Factor.DORA_SCALE in tensors or Factor.MAGNITUDE in tensors
    if not has_dora:
        return (title,)
    return ("DoRA",) if title == "LoRA" else (title, "DoRA")


def _read_lora(tensors: Tensors, weight: Shape) -> tuple[int, dict[Factor, Shape]]:
    rank = _size(tensors[Factor.DOWN], 0)
    pointwise = (1,) * len(weight[2:])
    shapes = {Factor.DOWN: (rank, *weight[1:]), Factor.UP: (weight[0], rank, *pointwise)}
    if Factor.MID in tensors:  # Tucker: the kernel is in the middle
        shapes[Factor.DOWN] = (rank, weight[1], *pointwise) if len(weight) > 1 else weight
        shapes[Factor.MID] = (rank, rank, *weight[2:])
    return rank, shapes


def _read_loha(tensors: Tensors, weight: Shape) -> tuple[int, dict[Factor, Shape]]:
    rank = _size(tensors[Factor.HADA_W1_B], 0)
    shapes: dict[Factor, Shape] = {}
    for a, b, core in (
        (Factor.HADA_W1_A, Factor.HADA_W1_B, Factor.HADA_T1),
        (Factor.HADA_W2_A, Factor.HADA_W2_B, Factor.HADA_T2),
    ):
        shapes |= _product(tensors, (a, b, core), weight, rank)
    return rank, shapes


def _read_lokr(tensors: Tensors, weight: Shape) -> tuple[int | None, dict[Factor, Shape]]:
    """Read kron(w1, w2): w1 is [a, c], w2 [b, d, k, k], the weight [ab, cd, k, k]."""
    first = (Factor.LOKR_W1_A, Factor.LOKR_W1_B)
    second = (Factor.LOKR_W2_A, Factor.LOKR_W2_B, Factor.LOKR_T2)
    if Factor.LOKR_W1 in tensors:
        a, c = (_size(tensors[Factor.LOKR_W1], dimension) for dimension in (0, 1))
    else:
        a, c = _size(tensors[first[0]], 0), _size(tensors[first[1]], 1)
    if weight[0] % a or weight[1] % c:
        tensor = tensors.get(Factor.LOKR_W1, tensors.get(first[0]))
        assert tensor is not None
        _wrong(tensor, f"divisors of its module's {list(weight[:2])} would fit")
    ranks = [_size(tensors[b], 0) for b in (first[1], second[1]) if b in tensors]
    if len(set(ranks)) > 1:
        _wrong(tensors[second[1]], f"the first half's rank {ranks[0]} would be right")
    rank = ranks[0] if ranks else None
    shapes: dict[Factor, Shape] = {}
    rest = (weight[0] // a, weight[1] // c, *weight[2:])
    if Factor.LOKR_W1 in tensors:
        shapes[Factor.LOKR_W1] = (a, c)
    else:
        assert rank is not None
        shapes |= {first[0]: (a, rank), first[1]: (rank, c)}
    if Factor.LOKR_W2 in tensors:
        shapes[Factor.LOKR_W2] = rest
    else:
        assert rank is not None
        shapes |= _product(tensors, second, rest, rank)
    return rank, shapes


def _product(
    tensors: Tensors, names: tuple[Factor, Factor, Factor], weight: Shape, rank: int
) -> dict[Factor, Shape]:
    """Return the shapes of a product: [out, r] times [r, in k k], or with a Tucker core."""
    a, b, core = names
    if core in tensors:
        return {a: (rank, weight[0]), b: (rank, weight[1]), core: (rank, rank, *weight[2:])}
    return {a: (weight[0], rank), b: (rank, prod(weight[1:]))}


def _read_full(tensors: Tensors, weight: Shape) -> tuple[None, dict[Factor, Shape]]:
    return None, ({Factor.DIFF: weight} if Factor.DIFF in tensors else {})


def _bias(tensors: Tensors, target: Target) -> dict[Factor, Shape]:
    if Factor.DIFF_B not in tensors:
        return {}
    if target.bias is None:
        _wrong(tensors[Factor.DIFF_B], "its module has no bias")
    return {Factor.DIFF_B: target.bias}


def _scales(tensors: Tensors, weight: Shape) -> dict[Factor, Shape]:
    """Return the shape of DoRA's scale: a number for each row, or for each column."""
    shapes: dict[Factor, Shape] = {}
    row = (weight[0], *(1,) * len(weight[1:]))
    if Factor.MAGNITUDE in tensors:
        tensor = tensors[Factor.MAGNITUDE]
        shapes[Factor.MAGNITUDE] = row
        # PEFT has [out] for a linear layer and [1, out, 1, 1] for a convolution; both are by rows.
        peft = weight[:1] if len(weight) == 2 else (1, *row[:1], *row[2:])
        if tensor.shape not in (peft, row):
            _wrong(tensor, f"{list(peft)} would be right")
    if Factor.DORA_SCALE in tensors:
        tensor = tensors[Factor.DORA_SCALE]
        column = (1, *weight[1:2], *row[2:])
        fits_row = _holds(tensor.shape, row)
        shapes[Factor.DORA_SCALE] = row if fits_row else column
    return shapes


def _check_alpha(tensors: Tensors) -> None:
    alpha = tensors.get(Factor.ALPHA)
    if alpha is None:
        return
    if prod(alpha.shape) != 1:
        _wrong(alpha, "one number would be right")
    if alpha.dtype not in ALPHA_DTYPES:
        _wrong(alpha, f"{', '.join(ALPHA_DTYPES)} can be imported", has_dtype=True)


def _holds(shape: Shape, canonical: Shape) -> bool:
    """Tell whether a tensor of this shape has the canonical shape's numbers in the same order.

    The same matrix is a linear layer's in one tool and a pointwise convolution's in another, and
    some tools save a convolution's kernel as a matrix.
    """
    flat = (canonical[0], prod(canonical[1:])) if len(canonical) > 1 else canonical
    return shape == canonical or _trimmed(shape) in (_trimmed(canonical), flat)


def _trimmed(shape: Shape) -> Shape:
    while len(shape) > 2 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def _size(tensor: TensorInfo, dimension: int) -> int:
    if len(tensor.shape) <= dimension or 0 in tensor.shape:
        _wrong(tensor, "it needs two dimensions and more, none of them 0")
    return tensor.shape[dimension]


def _wrong(tensor: TensorInfo, right: str, *, has_dtype: bool = False) -> NoReturn:
    what = f"dtype {tensor.dtype}" if has_dtype else f"shape {list(tensor.shape)}"
    raise AddonError(f"{_named(tensor)} has the {what}; {right}.")


def _named(tensor: TensorInfo) -> str:
    name = clean_text(tensor.path.name.removesuffix(".part"))
    return f"{name}: tensor {clean_text(tensor.name)[:_LONGEST_NAME]}"


def _set(*factors: Factor) -> frozenset[Factor]:
    return frozenset(factors)


_W1 = (Factor.LOKR_W1_A, Factor.LOKR_W1_B)
_W2 = (Factor.LOKR_W2_A, Factor.LOKR_W2_B)
_HALVES = (Factor.HADA_W1_A, Factor.HADA_W1_B, Factor.HADA_W2_A, Factor.HADA_W2_B)
_CORES = (Factor.HADA_T1, Factor.HADA_T2)
_FULL = _Kind(
    "full",
    _set(Factor.DIFF, Factor.DIFF_B),
    ((_set(Factor.DIFF),),),
    _read_full,
    # Tools disagree on a full difference with DoRA's scale, and none is known to write it.
    may_have_dora=False,
)
_KINDS = (
    _Kind(
        "LoRA",
        _set(Factor.DOWN, Factor.UP, Factor.MID),
        ((_set(Factor.DOWN, Factor.UP),),),
        _read_lora,
    ),
    _Kind(
        "LoHa",
        _set(*_HALVES, *_CORES),
        ((_set(*_HALVES),),),
        _read_loha,
        pairs=(_set(*_CORES),),
    ),
    _Kind(
        "LoKr",
        _set(Factor.LOKR_W1, *_W1, Factor.LOKR_W2, *_W2, Factor.LOKR_T2),
        ((_set(Factor.LOKR_W1), _set(*_W1)), (_set(Factor.LOKR_W2), _set(*_W2))),
        _read_lokr,
    ),
    _FULL,
)

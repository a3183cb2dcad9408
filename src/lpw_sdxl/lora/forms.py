"""The registry of a LoRA's forms: the factors of each and the shapes that they need.

Pure, no torch; `module_form.py` finds a module's form in this registry. Letters are those of
LyCORIS: a weight is [out, in] or [out, in, k, k], and r is the rank (Yeh et al., "Navigating
Text-To-Image Customization", 2023).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import prod

from lpw_sdxl.lora.file_tensor import refuse_shape, size_of
from lpw_sdxl.lora.targets import Shape
from lpw_sdxl.weights.header import TensorInfo


class Factor(StrEnum):
    """A tensor's role in the change of one module; the value is its name in the canonical file."""

    DOWN = "lora_down"
    UP = "lora_up"
    MID = "lora_mid"
    HADA_W1_A = "hada_w1_a"
    HADA_W1_B = "hada_w1_b"
    HADA_W2_A = "hada_w2_a"
    HADA_W2_B = "hada_w2_b"
    HADA_T1 = "hada_t1"
    HADA_T2 = "hada_t2"
    LOKR_W1 = "lokr_w1"
    LOKR_W1_A = "lokr_w1_a"
    LOKR_W1_B = "lokr_w1_b"
    LOKR_W2 = "lokr_w2"
    LOKR_W2_A = "lokr_w2_a"
    LOKR_W2_B = "lokr_w2_b"
    LOKR_T2 = "lokr_t2"
    DORA_SCALE = "dora_scale"
    DIFF = "diff"
    DIFF_B = "diff_b"
    ALPHA = "alpha"
    MAGNITUDE = "lora_magnitude_vector"
    """PEFT's `dora_scale`: always one number for each row. The canonical file has none."""


Factors = tuple[Factor, ...]
ModuleTensors = Mapping[Factor, TensorInfo]
"""The tensors of one module, by what each is to the module."""


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

_VARIANTS = {"LoRA": ("LoCon", "DoRA")}
"""A LoRA with kernels is called LoCon, and any form with a magnitude DoRA."""
KIND_ORDER = tuple(kind for form in FORMS for kind in (form.title, *_VARIANTS.get(form.title, ())))
"""The order in which a file's kinds are listed."""

UNSERVED_FORMS = {
    r"\.(oft_|boft_)\w+": "OFT or BOFT, which turns the weights and adds nothing to them",
    r"\.(a1|a2|b1|b2|bm)\.weight$": "GLoRA, which few tools read",
    r"\.on_input$": "IA3, which few tools read",
    r"\.(lora_E|ranknum)\b": "AdaLoRA, which belongs into training",
    r"\.vera_lambda_": "VeRA, whose random matrices are not in the file",
    r"\.lora_embedding_[AB]\b": "PEFT's LoRA of an embedding table",
    r"\.lora_(A|B|up|down)(\.\w+)?\.bias$": "a LoRA with biases of its own",
    r"\.bias_(indices|values|size)$": "a LoRA with sparse biases",
    r"\.lokr_t1$": "LoKr with a Tucker core in its first half, which no tool writes",
    r"\.(scale|scalar)$": "a module with a scale beside its alpha, which tools read differently",
    r"\.(set|reshape)_weight$": "a change that replaces weights instead of adding to them",
    r"\bmodules_to_save\.": "PEFT's copy of whole modules",
    r"\bresblocks[._]|_resblocks_": (
        "a text encoder in OpenCLIP's names, which hold three matrices in one"
    ),
}
"""By tensor names: forms that are not served."""

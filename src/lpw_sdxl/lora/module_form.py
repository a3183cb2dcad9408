"""The form of one module's factors: found in `forms.py`, checked to fit the module; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from lpw_sdxl.checkpoint.plan import WEIGHT_DTYPES
from lpw_sdxl.errors import AddonError
from lpw_sdxl.lora.file_tensor import describe_tensor, refuse_dtype, refuse_shape
from lpw_sdxl.lora.forms import FORMS, FULL, Factor, Factors, Form, ModuleTensors
from lpw_sdxl.lora.targets import Shape, TargetModule

ALPHA_DTYPES = (*WEIGHT_DTYPES, "I64", "I32")


@dataclass(frozen=True)
class ModuleForm:
    """The form of one module's factors.

    Attributes:
        kinds: the usual names, such as `LoCon` and `DoRA`.
        rank: divides alpha; None if the formula has no scale.
        shapes: the canonical shape of each factor but alpha, by its name in the file.
    """

    kinds: tuple[str, ...]
    rank: int | None
    shapes: Mapping[Factor, Shape]


def find_form(tensors: ModuleTensors, target: TargetModule) -> ModuleForm:
    """Find the form of a module's factors and check that they fit the module.

    Raises:
        AddonError: a factor is missing, superfluous, or of a wrong shape or dtype; the message
            names it.
    """
    form = _choose_form(tensors)
    _check_complete(tensors, form)
    if len(target.weight) < 2 and form is not FULL:
        refuse_shape(
            tensors[min(tensors)], f"its module has a vector {list(target.weight)}, for a diff"
        )
    rank, shapes = form.read_shapes(tensors, target.weight)
    shapes |= _bias_shape(tensors, target) | _magnitude_shapes(tensors, target.weight)
    for factor in sorted(tensors.keys() - shapes.keys() - {Factor.ALPHA}):
        raise AddonError(f"{describe_tensor(tensors[factor])} has no meaning beside the others.")
    for factor, shape in shapes.items():
        tensor = tensors[factor]
        if factor is not Factor.MAGNITUDE and not _fits(tensor.shape, shape):
            refuse_shape(tensor, f"{list(shape)} would fit its module's {list(target.weight)}")
        if tensor.dtype not in WEIGHT_DTYPES:
            refuse_dtype(tensor, f"{', '.join(WEIGHT_DTYPES)} can be imported")
    _check_alpha(tensors)
    titles = _titles(form, tensors, has_kernel=len(target.weight) > 2)
    return ModuleForm(titles, rank, shapes)


def kinds_of(tensors: ModuleTensors) -> tuple[str, ...]:
    """Return the usual names of a module's factors, without the module to check them with."""
    form = next((form for form in FORMS if not tensors.keys().isdisjoint(form.marks)), None)
    if form is None:
        return ()
    down = tensors.get(Factor.DOWN)
    is_kernel = Factor.MID in tensors or (down is not None and len(_trim_ones(down.shape)) > 2)
    return _titles(form, tensors, has_kernel=is_kernel)


def rank_of(tensors: ModuleTensors) -> int | None:
    """Return the rank of a module's factors, read from their shapes; None if they have none."""
    by_rank = (Factor.DOWN, Factor.HADA_W1_B, Factor.LOKR_W1_B, Factor.LOKR_W2_B)
    shapes = (tensors[factor].shape for factor in by_rank if factor in tensors)
    return next((shape[0] for shape in shapes if shape), None)


def _choose_form(tensors: ModuleTensors) -> Form:
    forms = [form for form in FORMS if not tensors.keys().isdisjoint(form.marks)]
    if len(forms) > 1 and Factor.DIFF not in tensors:
        forms = [form for form in forms if form is not FULL]  # a bias goes with any form
    first = next(iter(tensors.values()))
    if not forms:
        raise AddonError(
            f"{describe_tensor(first)} stands alone; the factors that it belongs to are needed."
        )
    if len(forms) > 1:
        raise AddonError(
            f"{describe_tensor(first)}: its module is changed as {forms[0].title} and as "
            f"{forms[1].title}; one of them is needed."
        )
    return forms[0]


def _check_complete(tensors: ModuleTensors, form: Form) -> None:
    """Refuse a module whose set of factors is incomplete, or that has two sets for one part.

    A bias alone is complete: some tools save changes of weights and of biases independently.
    """
    if tensors.keys() == {Factor.DIFF_B}:
        return
    for choices in form.choices:
        begun = [choice for choice in choices if not tensors.keys().isdisjoint(choice)]
        wanted = begun[0] if begun else choices[0]
        if len(begun) > 1:
            other = next(tensors[factor] for factor in sorted(begun[1]) if factor in tensors)
            raise AddonError(
                f"{describe_tensor(other)}: its module has the same part in another form."
            )
        _check_present(tensors, wanted)
    if not tensors.keys().isdisjoint(form.pair):
        _check_present(tensors, form.pair)
    allowed = {*form.marks, Factor.ALPHA, Factor.DIFF_B}
    if form.may_have_dora:
        allowed |= {Factor.DORA_SCALE, Factor.MAGNITUDE}
    for factor in sorted(tensors.keys() - allowed):
        raise AddonError(f"{describe_tensor(tensors[factor])} has no meaning beside {form.title}.")


def _check_present(tensors: ModuleTensors, wanted: Factors) -> None:
    missing = sorted(set(wanted) - tensors.keys())
    if missing:
        present = tensors[min(tensors.keys() & wanted or tensors)]
        raise AddonError(
            f"{describe_tensor(present)} has no {missing[0].value} beside it; both are needed."
        )


def _titles(form: Form, tensors: ModuleTensors, *, has_kernel: bool) -> tuple[str, ...]:
    title = "LoCon" if form.title == "LoRA" and has_kernel else form.title
    has_dora = Factor.DORA_SCALE in tensors or Factor.MAGNITUDE in tensors
    if not has_dora:
        return (title,)
    return ("DoRA",) if title == "LoRA" else (title, "DoRA")


def _bias_shape(tensors: ModuleTensors, target: TargetModule) -> dict[Factor, Shape]:
    if Factor.DIFF_B not in tensors:
        return {}
    if target.bias is None:
        refuse_shape(tensors[Factor.DIFF_B], "its module has no bias")
    return {Factor.DIFF_B: target.bias}


def _magnitude_shapes(tensors: ModuleTensors, weight: Shape) -> dict[Factor, Shape]:
    """Return the shape of DoRA's magnitude: one number for each row, or for each column."""
    shapes: dict[Factor, Shape] = {}
    row = (weight[0], *(1,) * len(weight[1:]))
    if Factor.MAGNITUDE in tensors:
        tensor = tensors[Factor.MAGNITUDE]
        shapes[Factor.MAGNITUDE] = row
        # PEFT has [out] for a linear layer and [1, out, 1, 1] for a convolution; both are by rows.
        peft = weight[:1] if len(weight) == 2 else (1, *row[:1], *row[2:])
        if tensor.shape not in (peft, row):
            refuse_shape(tensor, f"{list(peft)} would be right")
    if Factor.DORA_SCALE in tensors:
        tensor = tensors[Factor.DORA_SCALE]
        column = (1, *weight[1:2], *row[2:])
        shapes[Factor.DORA_SCALE] = row if _fits(tensor.shape, row) else column
    return shapes


def _check_alpha(tensors: ModuleTensors) -> None:
    alpha = tensors.get(Factor.ALPHA)
    if alpha is None:
        return
    if prod(alpha.shape) != 1:
        refuse_shape(alpha, "one number would be right")
    if alpha.dtype not in ALPHA_DTYPES:
        refuse_dtype(alpha, f"{', '.join(ALPHA_DTYPES)} can be imported")


def _fits(shape: Shape, canonical: Shape) -> bool:
    """Return whether a shape has the canonical shape's numbers in the same order.

    The same matrix is a linear layer's in one tool and a pointwise convolution's in another, and
    some tools save a convolution's kernel as a matrix.
    """
    flat = (canonical[0], prod(canonical[1:])) if len(canonical) > 1 else canonical
    return shape == canonical or _trim_ones(shape) in (_trim_ones(canonical), flat)


def _trim_ones(shape: Shape) -> Shape:
    while len(shape) > 2 and shape[-1] == 1:
        shape = shape[:-1]
    return shape

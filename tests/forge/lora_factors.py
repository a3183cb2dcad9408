"""Random factors for one module of each kind of LoRA; knows no files and no names of modules.

Only shapes are known here. A random model's weights have the variance 1 / fan-in, as training
starts them, and a change is drawn in proportion to that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from lpw_sdxl.lora.targets import TargetModule

Shape = tuple[int, ...]
Factors = dict[str, Tensor]

_NORM_SPREAD = 0.2
"""Of numbers that are about 1, such as a norm's weights, at strength 1; biases take it too."""
_LARGEST_LEFT_SIDE = 8
_LOKR_FORMS = ((True, False), (False, False), (True, True))
"""Whether the left and the right side of a LoKr are whole; modules differ by chance."""


class SyntheticKind(StrEnum):
    """A kind of LoRA; LoCon is LoRA on convolutions too."""

    LORA = "lora"
    LOCON = "locon"
    DORA = "dora"
    DORA_COLUMNS = "dora-columns"
    LOHA = "loha"
    LOKR = "lokr"
    FULL = "full"


@dataclass(frozen=True)
class Recipe:
    """What a module's factors are drawn by.

    Attributes:
        kind: of the LoRA.
        rank: of every product.
        alpha: scales the change, over `rank`; positive.
        strength: standard deviation of the change over that of a random model's weight.
        is_tucker: convolutions larger than 1x1 take Tucker's form, where the kind has one.
    """

    kind: SyntheticKind
    rank: int
    alpha: float
    strength: float
    is_tucker: bool

    @property
    def scale(self) -> float:
        """Return what the product of the factors is multiplied by."""
        return self.alpha / self.rank


def draw_factors(recipe: Recipe, target: TargetModule, seed: int) -> Factors:
    """Return a module's factors by their canonical names, in float32.

    Args:
        recipe: how they are drawn.
        target: the shapes of the module; one axis, a norm's, is for a full change alone.
        seed: of this module.
    """
    generator = torch.Generator().manual_seed(seed)
    return _KINDS[recipe.kind](_Module(recipe, target.weight, target.bias, generator))


@dataclass(frozen=True)
class _Module:
    """A module whose factors are drawn; `spread` is always that of what the factors make."""

    recipe: Recipe
    weight: Shape
    bias: Shape | None
    generator: torch.Generator

    @property
    def kernel(self) -> Shape:
        return self.weight[2:]

    @property
    def alpha(self) -> Factors:
        return {"alpha": torch.tensor(self.recipe.alpha)}

    @property
    def spread(self) -> float:
        return self.recipe.strength / math.sqrt(math.prod(self.weight[1:]))

    @property
    def unscaled_spread(self) -> float:
        """Return the spread before the change is multiplied by alpha / rank."""
        return self.spread / self.recipe.scale

    @property
    def is_tucker(self) -> bool:
        return self.recipe.is_tucker and math.prod(self.kernel) > 1

    def normal(self, shape: Shape, spread: float) -> Tensor:
        return torch.randn(shape, generator=self.generator) * spread

    def product(self, rows: int, columns: int, spread: float) -> tuple[Tensor, Tensor]:
        """Draw `[rows, rank]` and `[rank, columns]`."""
        rank = self.recipe.rank
        each = math.sqrt(spread / math.sqrt(rank))
        return self.normal((rows, rank), each), self.normal((rank, columns), each)

    def tucker(self, rows: int, columns: int, spread: float) -> tuple[Tensor, Tensor, Tensor]:
        """Draw `[rank, rows]`, `[rank, columns]` and the core `[rank, rank, *kernel]`."""
        rank = self.recipe.rank
        each = math.cbrt(spread / rank)
        shapes = ((rank, rows), (rank, columns), (rank, rank, *self.kernel))
        first, second, core = (self.normal(shape, each) for shape in shapes)
        return first, second, core


def _low_rank(module: _Module) -> Factors:
    out, into, *_ = module.weight
    ones = (1,) * len(module.kernel)
    if module.is_tucker:
        up, down, core = module.tucker(out, into, module.unscaled_spread)
        factors = {"lora_up": up.T.contiguous(), "lora_down": down, "lora_mid": core}
        down_shape: Shape = (into, *ones)
    else:
        up, down = module.product(out, math.prod(module.weight[1:]), module.unscaled_spread)
        factors = {"lora_up": up, "lora_down": down}
        down_shape = module.weight[1:]
    factors["lora_up"] = factors["lora_up"].reshape(out, -1, *ones)
    factors["lora_down"] = factors["lora_down"].reshape(-1, *down_shape)
    return factors | module.alpha


def _with_row_magnitudes(module: _Module) -> Factors:
    shape = (module.weight[0], *(1 for _ in module.weight[1:]))
    return _low_rank(module) | _magnitudes(module, shape, usual=1.0)


def _with_column_magnitudes(module: _Module) -> Factors:
    out, into, *kernel = module.weight
    shape = (1, into, *(1 for _ in kernel))
    return _low_rank(module) | _magnitudes(module, shape, usual=math.sqrt(out / into))


def _magnitudes(module: _Module, shape: Shape, *, usual: float) -> Factors:
    """Draw norms around those that a random weight has."""
    spread = _NORM_SPREAD * module.recipe.strength
    return {"dora_scale": usual * (1 + module.normal(shape, spread)).abs()}


def _hadamard(module: _Module) -> Factors:
    out, into, *_ = module.weight
    factors, half = module.alpha, math.sqrt(module.unscaled_spread)
    for number in (1, 2):
        a, b = f"hada_w{number}_a", f"hada_w{number}_b"
        if module.is_tucker:
            factors[a], factors[b], factors[f"hada_t{number}"] = module.tucker(out, into, half)
        else:
            factors[a], factors[b] = module.product(out, math.prod(module.weight[1:]), half)
    return factors


def _kronecker(module: _Module) -> Factors:
    form = int(torch.randint(len(_LOKR_FORMS), (), generator=module.generator))
    is_left_whole, is_right_whole = _LOKR_FORMS[form]
    is_whole = is_left_whole and is_right_whole
    side = math.sqrt(module.spread if is_whole else module.unscaled_spread)
    rows, columns = _split(module.weight[0]), _split(module.weight[1])
    factors = module.alpha
    if is_left_whole:
        factors["lokr_w1"] = module.normal((rows.left, columns.left), side)
    else:
        factors["lokr_w1_a"], factors["lokr_w1_b"] = module.product(rows.left, columns.left, side)
    if is_right_whole:
        factors["lokr_w2"] = module.normal((rows.right, columns.right, *module.kernel), side)
    elif module.is_tucker:
        factors["lokr_w2_a"], factors["lokr_w2_b"], factors["lokr_t2"] = module.tucker(
            rows.right, columns.right, side
        )
    else:
        width = columns.right * math.prod(module.kernel)
        factors["lokr_w2_a"], factors["lokr_w2_b"] = module.product(rows.right, width, side)
    return factors


class _Split(NamedTuple):
    """A length as a product: the part of a LoKr's left side and that of its right one."""

    left: int
    right: int


def _split(length: int) -> _Split:
    left = next(part for part in range(_LARGEST_LEFT_SIDE, 0, -1) if length % part == 0)
    return _Split(left, length // left)


def _full(module: _Module) -> Factors:
    norm_spread = _NORM_SPREAD * module.recipe.strength
    spread = module.spread if len(module.weight) > 1 else norm_spread
    factors = {"diff": module.normal(module.weight, spread)}
    if module.bias is not None:
        factors["diff_b"] = module.normal(module.bias, norm_spread)
    return factors


_KINDS = {
    SyntheticKind.LORA: _low_rank,
    SyntheticKind.LOCON: _low_rank,
    SyntheticKind.DORA: _with_row_magnitudes,
    SyntheticKind.DORA_COLUMNS: _with_column_magnitudes,
    SyntheticKind.LOHA: _hadamard,
    SyntheticKind.LOKR: _kronecker,
    SyntheticKind.FULL: _full,
}

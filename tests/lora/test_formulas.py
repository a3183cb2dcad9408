"""The change of a weight, compared with loops in float64 and LyCORIS' numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import product
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from lpw_sdxl.errors import AddonError
from lpw_sdxl.lora.formulas import compute_bias_change, compute_weight_change

GOLDEN = load_file(Path(__file__).parents[1] / "golden" / "lora.safetensors")
CASES = sorted(name.removesuffix("/change") for name in GOLDEN if name.endswith("/change"))

ALPHA = 1.5
OUT, IN, RANK = 6, 4, 2
KERNEL = (3, 2)


def draw(*shapes: tuple[int, ...], seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def relative_error(got: Tensor, expected: Tensor) -> float:
    return float((got.double() - expected).norm() / expected.norm())


# Every kind by hand: one number of the change at a time, in Python's own float64.


def product_entry(left: Tensor, right: Tensor, row: int, column: int) -> float:
    return sum(float(left[row, r]) * float(right[r, column]) for r in range(left.shape[1]))


def tucker_entry(
    core: Tensor, rows: Tensor, columns: Tensor, row: int, column: int, at: tuple[int, int]
) -> float:
    """Compute the sum that defines the form: core [p, q, h, w], rows [out, p], columns [q, in]."""
    return sum(
        float(core[(p, q, *at)]) * float(rows[row, p]) * float(columns[q, column])
        for p, q in product(range(core.shape[0]), range(core.shape[1]))
    )


def by_hand(entry, kernel: tuple[int, ...] = ()) -> Tensor:
    result = torch.zeros(OUT, IN, *kernel, dtype=torch.float64)
    for index in product(*map(range, result.shape)):
        result[index] = entry(*index)
    return result


def lora_linear():
    down, up = draw((RANK, IN), (OUT, RANK))
    factors = {"lora_down": down, "lora_up": up}
    return factors, by_hand(lambda o, i: ALPHA / RANK * product_entry(up, down, o, i))


def lora_convolution():
    down, up = draw((RANK, IN, *KERNEL), (OUT, RANK, 1, 1))
    expected = by_hand(
        lambda o, i, y, x: ALPHA / RANK * product_entry(up[..., 0, 0], down[..., y, x], o, i),
        KERNEL,
    )
    return {"lora_down": down, "lora_up": up}, expected


def lora_tucker():
    down, mid, up = draw((RANK, IN, 1, 1), (RANK, RANK, *KERNEL), (OUT, RANK, 1, 1))
    expected = by_hand(
        lambda o, i, y, x: (
            ALPHA / RANK * tucker_entry(mid, up[..., 0, 0], down[..., 0, 0], o, i, (y, x))
        ),
        KERNEL,
    )
    return {"lora_down": down, "lora_mid": mid, "lora_up": up}, expected


def loha_linear():
    a, b, c, d = draw((OUT, RANK), (RANK, IN), (OUT, RANK), (RANK, IN))
    factors = {"hada_w1_a": a, "hada_w1_b": b, "hada_w2_a": c, "hada_w2_b": d}
    return factors, by_hand(
        lambda o, i: ALPHA / RANK * product_entry(a, b, o, i) * product_entry(c, d, o, i)
    )


def loha_convolution():
    area = math.prod(KERNEL)
    a, b, c, d = draw((OUT, RANK), (RANK, IN * area), (OUT, RANK), (RANK, IN * area))
    factors = {"hada_w1_a": a, "hada_w1_b": b, "hada_w2_a": c, "hada_w2_b": d}

    def entry(o, i, y, x):
        column = (i * KERNEL[0] + y) * KERNEL[1] + x
        return ALPHA / RANK * product_entry(a, b, o, column) * product_entry(c, d, o, column)

    return factors, by_hand(entry, KERNEL)


def loha_tucker():
    a, b, c, d = draw((RANK, OUT), (RANK, IN), (RANK, OUT), (RANK, IN))
    t1, t2 = draw((RANK, RANK, *KERNEL), (RANK, RANK, *KERNEL), seed=1)
    names = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2")
    expected = by_hand(
        lambda o, i, y, x: (
            (ALPHA / RANK)
            * tucker_entry(t1, a.T, b, o, i, (y, x))
            * tucker_entry(t2, c.T, d, o, i, (y, x))
        ),
        KERNEL,
    )
    return dict(zip(names, (a, b, c, d, t1, t2), strict=True)), expected


def lokr(first: str, second: str, kernel: tuple[int, ...]):
    """Left side [2, 2], right side [3, 2] with the kernel."""
    sides = {"whole": ((2, 2),), "product": ((2, RANK), (RANK, 2))}
    left = draw(*sides[first])
    w1 = left[0] if first == "whole" else None
    names = ["lokr_w1"] if first == "whole" else ["lokr_w1_a", "lokr_w1_b"]
    factors = dict(zip(names, left, strict=True))
    if second == "whole":
        (right,) = draw((3, 2, *kernel), seed=2)
        factors["lokr_w2"] = right
    elif second == "product":
        area = math.prod(kernel)
        a, b = draw((3, RANK), (RANK, 2 * area), seed=2)
        factors |= {"lokr_w2_a": a, "lokr_w2_b": b}
        right = torch.zeros(3, 2, *kernel, dtype=torch.float64)
        for row, column in product(range(3), range(2 * area)):
            right.view(3, -1)[row, column] = product_entry(a, b, row, column)
    else:
        a, b, core = draw((RANK, 3), (RANK, 2), (RANK, RANK, *kernel), seed=2)
        factors |= {"lokr_w2_a": a, "lokr_w2_b": b, "lokr_t2": core}
        right = torch.zeros(3, 2, *kernel, dtype=torch.float64)
        for row, column, y, x in product(range(3), range(2), *map(range, kernel)):
            right[row, column, y, x] = tucker_entry(core, a.T, b, row, column, (y, x))
    scale = 1.0 if (first, second) == ("whole", "whole") else ALPHA / RANK

    def entry(o, i, *at):
        row, column = o // 3, i // 2
        if w1 is None:
            outer = product_entry(left[0], left[1], row, column)
        else:
            outer = float(w1[row, column])
        return scale * outer * float(right[(o % 3, i % 2, *at)])

    return factors, by_hand(entry, kernel)


def whole_matrix():
    (diff,) = draw((OUT, IN))
    return {"diff": diff}, diff.double()


KINDS = {
    "lora-linear": lora_linear,
    "lora-convolution": lora_convolution,
    "lora-tucker": lora_tucker,
    "loha-linear": loha_linear,
    "loha-convolution": loha_convolution,
    "loha-tucker": loha_tucker,
    "full": whole_matrix,
} | {
    f"lokr-{first}-{second}-{'convolution' if kernel else 'linear'}": (
        lambda first=first, second=second, kernel=kernel: lokr(first, second, kernel)
    )
    for first in ("whole", "product")
    for second, kernel in [
        ("whole", ()),
        ("whole", KERNEL),
        ("product", ()),
        ("product", KERNEL),
        ("tucker", KERNEL),
    ]
}


def with_alpha(factors: Mapping[str, Tensor], alpha: float = ALPHA) -> dict[str, Tensor]:
    whole = {"diff"} <= set(factors)
    return dict(factors) if whole else {**factors, "alpha": torch.tensor(alpha)}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> tuple[dict[str, Tensor], Tensor]:
    factors, expected = KINDS[request.param]()
    return with_alpha(factors), expected


def base_weight(like: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    return draw(tuple(like.shape), seed=7)[0].to(dtype)


def test_every_kind_equals_its_definition(kind):
    factors, expected = kind
    got = compute_weight_change(base_weight(expected), factors)
    assert got.shape == expected.shape
    assert got.dtype == torch.float32
    assert relative_error(got, expected) < 1e-6


def test_a_weight_in_float64_is_changed_in_float64(kind):
    factors, expected = kind
    got = compute_weight_change(base_weight(expected, torch.float64), factors)
    assert got.dtype == torch.float64
    assert relative_error(got, expected) < 1e-14


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_factors_in_half_precision_are_widened_before_they_are_multiplied(kind, dtype):
    factors, expected = kind
    halves = {name: factor.to(dtype) for name, factor in factors.items()}
    widened = {name: factor.double() for name, factor in halves.items()}
    got = compute_weight_change(base_weight(expected, dtype), halves)
    assert got.dtype == torch.float32
    exact = compute_weight_change(base_weight(expected, torch.float64), widened)
    assert relative_error(got, exact) < 1e-6


@pytest.mark.parametrize("axis", [0, 1], ids=["rows", "columns"])
def test_dora_gives_the_changed_weight_its_magnitudes(kind, axis):
    factors, plain = kind
    weight = base_weight(plain)
    shape = [1] * plain.ndim
    shape[axis] = plain.shape[axis]
    magnitude = draw(tuple(shape), seed=9)[0].abs() + 0.5
    merged = weight.double() + plain
    expected = torch.empty_like(merged)
    for index in range(merged.shape[axis]):
        part = merged.select(axis, index)
        length = math.sqrt(sum(float(value) ** 2 for value in part.flatten()))
        expected.select(axis, index).copy_(part / length * float(magnitude.flatten()[index]))
    got = compute_weight_change(weight, factors | {"dora_scale": magnitude})
    assert relative_error(got, expected - weight.double()) < 1e-6


@pytest.mark.parametrize("axis", [0, 1], ids=["rows", "columns"])
def test_dora_keeps_a_change_exact_that_is_small_against_the_weight(axis):
    # Magnitudes as large as the weight's own norms: a thousandth of the weight remains.
    weight, plain = draw((512, 640), (512, 640))
    plain /= 1000
    magnitude = weight.norm(dim=1 - axis, keepdim=True)
    merged = weight.double() + plain
    norm = merged.square().sum(dim=1 - axis, keepdim=True).sqrt()
    expected = magnitude.double() * merged / norm - weight.double()
    got = compute_weight_change(weight, {"diff": plain, "dora_scale": magnitude})
    assert relative_error(got, expected) < 1e-5


def test_dora_leaves_a_row_of_zeros_one():
    weight = torch.zeros(OUT, IN)
    factors = {"diff": torch.zeros(OUT, IN), "dora_scale": torch.ones(OUT, 1)}
    assert torch.equal(compute_weight_change(weight, factors), weight)


@pytest.mark.parametrize("case", CASES)
def test_change_is_that_of_lycoris(case):
    weight = GOLDEN[f"{case.split('.')[0]}/weight"]
    factors = {
        name.removeprefix(f"{case}/"): tensor
        for name, tensor in GOLDEN.items()
        if name.startswith(f"{case}/") and not name.endswith("/change")
    }
    assert (
        relative_error(compute_weight_change(weight, factors), GOLDEN[f"{case}/change"].double())
        < 1e-6
    )


def test_golden_file_has_every_kind():
    assert len(CASES) == 24
    assert {case.split(".")[-1] for case in CASES} >= {"dora-rows", "dora-columns", "lora-tucker"}


def test_change_is_linear_in_alpha():
    factors, _ = lora_linear()
    weight = base_weight(torch.empty(OUT, IN))
    once, twice = (
        compute_weight_change(weight, with_alpha(factors, alpha)) for alpha in (1.0, 2.0)
    )
    assert torch.equal(twice, 2 * once)


@pytest.mark.parametrize("alpha", [None, 1.0, 7.0])
def test_alpha_means_nothing_where_both_sides_of_a_lokr_are_whole(alpha):
    factors, expected = lokr("whole", "whole", ())
    if alpha is not None:
        factors = with_alpha(factors, alpha)
    assert relative_error(compute_weight_change(base_weight(expected), factors), expected) < 1e-6


def test_factors_of_a_pointwise_convolution_fit_a_linear_layer_and_back():
    factors, expected = lora_linear()
    pointwise = {name: factor[..., None, None] for name, factor in factors.items()}
    got = compute_weight_change(base_weight(expected), with_alpha(pointwise))
    assert relative_error(got, expected) < 1e-6
    back = compute_weight_change(base_weight(expected[..., None, None]), with_alpha(factors))
    assert back.shape == (OUT, IN, 1, 1)
    assert relative_error(back[..., 0, 0], expected) < 1e-6


def test_neither_weight_nor_factors_are_written_to(kind):
    factors, expected = kind
    weight = base_weight(expected)
    before = {name: factor.clone() for name, factor in factors.items()}
    kept = weight.clone()
    compute_weight_change(weight, factors).fill_(math.nan)
    assert torch.equal(weight, kept)
    assert all(torch.equal(factors[name], before[name]) for name in before)


def test_norm_is_changed_by_a_difference():
    diff, weight, bias = draw((IN,), (IN,), (IN,))
    factors = {"diff": diff, "diff_b": bias.half()}
    assert torch.equal(compute_weight_change(weight, factors), diff)
    got = compute_bias_change(factors)
    assert got is not None
    assert got.dtype == torch.float32
    assert torch.equal(got, bias.half().float())


def test_bias_alone_leaves_the_weight():
    (bias,) = draw((OUT,))
    assert torch.equal(
        compute_weight_change(torch.ones(OUT, IN), {"diff_b": bias}), torch.zeros(OUT, IN)
    )


def test_bias_goes_with_every_kind(kind):
    factors, expected = kind
    assert compute_bias_change(factors) is None
    (bias,) = draw((OUT,), seed=3)
    with_bias = factors | {"diff_b": bias}
    got = compute_bias_change(with_bias)
    assert got is not None
    assert torch.equal(got, bias)
    assert got.data_ptr() != bias.data_ptr()
    weight = base_weight(expected)
    assert torch.equal(
        compute_weight_change(weight, with_bias), compute_weight_change(weight, factors)
    )


@pytest.mark.parametrize(
    "names",
    [
        (),
        ("alpha",),
        ("dora_scale",),
        ("lora_down", "lora_up"),
        ("lora_down", "alpha"),
        ("lora_mid", "alpha"),
        ("lora_down", "lora_up", "alpha", "diff"),
        ("hada_w1_a", "hada_w1_b", "alpha"),
        ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "alpha"),
        ("lokr_w1", "alpha"),
        ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "alpha"),
        ("lokr_w1", "lokr_w2_a", "lokr_w2_b"),
        ("lokr_w1", "lokr_w2", "lokr_t2", "alpha"),
        ("oft_blocks", "alpha"),
    ],
    ids=lambda names: "+".join(names) or "none",
)
def test_factors_that_no_formula_takes_are_refused(names):
    with pytest.raises(AddonError, match="No formula takes the factors"):
        compute_weight_change(torch.ones(OUT, IN), {name: torch.ones(OUT, IN) for name in names})


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        (
            {"lora_down": torch.ones(2, 3), "lora_up": torch.ones(OUT, 2)},
            r"make a change of shape \[6, 3\], but its layer's weight is \[6, 4\]",
        ),
        (
            {"lora_down": torch.ones(2, OUT), "lora_up": torch.ones(IN, 2)},
            r"make a change of shape \[4, 6\], but its layer's weight is \[6, 4\]",
        ),
        (
            {
                "hada_w1_a": torch.ones(OUT, 2),
                "hada_w1_b": torch.ones(2, IN),
                "hada_w2_a": torch.ones(1, 2),
                "hada_w2_b": torch.ones(2, IN),
            },
            r"two products have the shapes \[6, 4\] and \[1, 4\]",
        ),
        (
            {
                "lokr_w1_a": torch.ones(2, 1),
                "lokr_w1_b": torch.ones(1, 2),
                "lokr_w2_a": torch.ones(3, 2),
                "lokr_w2_b": torch.ones(2, 2),
            },
            "two sides have the ranks 1 and 2",
        ),
        *(
            (
                {
                    "lora_down": torch.ones(2, IN),
                    "lora_up": torch.ones(OUT, 2),
                    "dora_scale": torch.ones(shape),
                },
                rf"magnitude has shape {list(shape)}".replace("[", r"\["),
            )
            for shape in [(1, 1), (OUT,), (OUT, IN), (1, OUT), (OUT, 1, 1)]
        ),
    ],
)
def test_factors_that_do_not_fit_are_refused(factors, message):
    with pytest.raises(AddonError, match=message):
        compute_weight_change(torch.ones(OUT, IN), factors | {"alpha": torch.tensor(ALPHA)})

"""Finite factors whose product is not, in every form: refused at import by the module's name."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import pytest
import torch

from lpw_sdxl.errors import AddonError
from lpw_sdxl.lora import overflow
from lpw_sdxl.lora.convert import convert
from lpw_sdxl.lora.preflight import examine
from lpw_sdxl.weights.header import read_header

from .making import MODULE, QUERY, save, targets

PAIR = {"lora_down.weight": (4, 64), "lora_up.weight": (64, 4)}
LOHA = {"hada_w1_a": (64, 4), "hada_w1_b": (4, 64), "hada_w2_a": (64, 4), "hada_w2_b": (4, 64)}
LOKR = {"lokr_w1": (8, 8), "lokr_w2": (8, 8)}
LOKR_HALVES = {"lokr_w1": (8, 8), "lokr_w2_a": (8, 4), "lokr_w2_b": (4, 8)}
DORA = {**PAIR, "dora_scale": (64, 1)}

# The shapes of a module's factors, the numbers they are filled with, whether it is refused.
CASES = {
    "float32 overflows": (PAIR, {"lora_down.weight": 1e30, "lora_up.weight": 1e30}, True),
    "float16 overflows": (PAIR, {"lora_down.weight": 300.0, "lora_up.weight": 300.0}, True),
    "alpha over the rank": (
        PAIR,
        {"lora_down.weight": 1.0, "lora_up.weight": 1.0, "alpha": 1e5},
        True,
    ),
    "a scaled factor is infinite": (PAIR, {"lora_up.weight": 1e30, "alpha": 1e20}, True),
    "just below": (PAIR, {"lora_down.weight": 100.0, "lora_up.weight": 100.0}, False),
    "a small alpha": (
        PAIR,
        {"lora_down.weight": 300.0, "lora_up.weight": 300.0, "alpha": 0.1},
        False,
    ),
    "LoHa": (LOHA, dict.fromkeys(LOHA, 50.0), True),
    "small LoHa": (LOHA, dict.fromkeys(LOHA, 1.0), False),
    "LoKr": (LOKR, dict.fromkeys(LOKR, 1000.0), True),
    "LoKr with a product": (LOKR_HALVES, dict.fromkeys(LOKR_HALVES, 100.0), True),
    "small LoKr": (LOKR, dict.fromkeys(LOKR, 100.0), False),
    "full difference": ({"diff": (64, 64)}, {"diff": 1e5}, True),
    "DoRA, product": (DORA, dict.fromkeys(DORA, 1e25), True),
    "DoRA, magnitude": (DORA, dict.fromkeys(PAIR, 0.1) | {"dora_scale": 1e6}, True),
    "DoRA, a product that its norm divides": (
        DORA,
        dict.fromkeys(PAIR, 1e4) | {"dora_scale": 1.0},
        False,
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_product_that_overflows_is_refused_by_its_module(
    tmp_path: Path, case: tuple[dict[str, tuple[int, ...]], dict[str, float], bool]
) -> None:
    shapes, numbers, is_refused = case
    source = tmp_path / "loud.safetensors"
    values = {
        f"{MODULE}.{name}": torch.full(shapes.get(name, ()), number)
        for name, number in numbers.items()
    }
    named = {f"{MODULE}.{name}": shape for name, shape in shapes.items()}
    save(source, named, dtype=torch.float32, values=values)
    plan = examine(read_header(source), targets())

    def run() -> None:
        convert(plan, tmp_path / "lora.safetensors", lambda *_: None)

    if not is_refused:
        run()
        return
    with pytest.raises(AddonError) as refused:
        run()
    message = str(refused.value)
    assert message.startswith("loud.safetensors: the ")
    assert f"of the module unet/{QUERY} " in message
    assert " would be right: " in message


def test_a_product_of_which_the_bound_says_too_much_is_computed(tmp_path: Path) -> None:
    """Each factor is large where the other one is 0."""
    source = tmp_path / "odd.safetensors"
    up, down = torch.full((64, 4), 1.0), torch.full((4, 64), 1.0)
    up[:, 0], down[0] = 60_000.0, 0.0
    down[1], up[:, 1] = 60_000.0, 0.0
    values = {f"{MODULE}.lora_up.weight": up, f"{MODULE}.lora_down.weight": down}
    save(source, {name: tuple(tensor.shape) for name, tensor in values.items()}, values=values)
    with patch.object(overflow, "compute_product", wraps=overflow.compute_product) as computed:
        plan = examine(read_header(source), targets())
        convert(plan, tmp_path / "lora.safetensors", lambda *_: None)
    assert computed.call_count == 1


def test_an_ordinary_product_is_not_computed(tmp_path: Path) -> None:
    source = tmp_path / "usual.safetensors"
    save(source, {f"{MODULE}.{name}": shape for name, shape in PAIR.items()})
    with patch.object(overflow, "compute_product") as computed:
        plan = examine(read_header(source), targets())
        convert(plan, tmp_path / "lora.safetensors", lambda *_: None)
    computed.assert_not_called()

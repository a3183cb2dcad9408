"""Random upscalers as files, and networks made of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lpw_sdxl.upscaling.convert import load
from lpw_sdxl.upscaling.network import UpscalerNetwork
from lpw_sdxl.upscaling.preflight import UpscalerPlan, examine
from lpw_sdxl.weights.header import read_header
from tests.forge.upscalers import CompactRecipe, EsrganRecipe

Tensors = dict[str, torch.Tensor]
Plan = Callable[[Tensors], UpscalerPlan]
Network = Callable[[EsrganRecipe | CompactRecipe], UpscalerNetwork]


def on_cpu(tensors: Tensors, dtype: torch.dtype = torch.float32) -> UpscalerNetwork:
    """A network of these tensors, named `its`."""
    return UpscalerNetwork(tensors, "its", torch.device("cpu"), dtype)


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Saves tensors as `its.safetensors` and judges the file."""

    def judge(tensors: Tensors) -> UpscalerPlan:
        save_file(tensors, tmp_path / "its.safetensors")
        return examine(read_header(tmp_path / "its.safetensors"))

    return judge


@pytest.fixture
def network(plan: Plan) -> Network:
    """Makes a network of a recipe, in float32 on the CPU."""

    def make(recipe: EsrganRecipe | CompactRecipe) -> UpscalerNetwork:
        return on_cpu(load(plan(recipe.tensors())))

    return make

"""LoRAs in a fused UNet: exchanged, divided among rows, and in fp8."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from diffusion.counted import CountedOperations, calls_of
from lora.conftest import CPU, networks_of
from lora.test_adapters import AB, ABC, MANY_BYTES, A, unet_arguments
from lpw_sdxl.diffusion.attention import PromptProjection
from lpw_sdxl.diffusion.feed_forward import split_gates
from lpw_sdxl.diffusion.float8 import Float8Products, quantise_unet
from lpw_sdxl.diffusion.fused_unet import Fusion, arrange_weights, fuse_unet
from lpw_sdxl.diffusion.kernels.trial import relative_error
from lpw_sdxl.diffusion.pipeline import Pipeline
from lpw_sdxl.lora.adapters import Adapters
from lpw_sdxl.lora.library import LoraLibrary
from lpw_sdxl.lora.patched import RowRun
from lpw_sdxl.lora.sets import NO_LORAS, LoraSet
from lpw_sdxl.weights.component import Component
from lpw_sdxl.weights.float8 import quantise_rows

NORMS: LoraSet = (("norms", 1.0),)


class Both:
    """One model's UNet as it is and fused, with the same LoRAs in both."""

    def __init__(self, pipeline: Pipeline, library: LoraLibrary) -> None:
        self.plain, self.fused = pipeline.unet, copy.deepcopy(pipeline.unet)
        arrange_weights(self.fused)
        for unet in (self.plain, self.fused):
            PromptProjection(unet)
            split_gates(unet)
        self.operations = CountedOperations()
        fuse_unet(self.fused, Fusion(self.operations))
        encoders = networks_of(pipeline)
        self.adapters = [
            Adapters({**encoders, Component.UNET: unet}, library, CPU, MANY_BYTES)
            for unet in (self.plain, self.fused)
        ]

    def divide(self, *runs: RowRun) -> None:
        for adapters in self.adapters:
            adapters.divide(Component.UNET, runs)

    @torch.inference_mode()
    def error(self, rows: int = 3) -> float:
        self.operations.counts.clear()
        given = unet_arguments(rows, self.plain)
        return relative_error(self.fused(**given)[0], self.plain(**given)[0])


@pytest.fixture
def both(pipeline: Pipeline, library: LoraLibrary) -> Both:
    return Both(pipeline, library)


@pytest.mark.parametrize("loras", [A, ABC], ids=["of linears", "of everything"])
def test_a_sets_weights_are_used_and_put_back(both: Both, loras: LoraSet) -> None:
    base = unet_arguments(3, both.plain)
    with torch.inference_mode():
        before = both.fused(**base)[0]
    both.divide(RowRun(loras, 3))
    assert both.error() <= 2e-6
    assert dict(both.operations.counts) == calls_of(both.fused)
    with torch.inference_mode():
        assert relative_error(both.fused(**base)[0], before) > 1e-2
        both.divide(RowRun(NO_LORAS, 3))
        assert torch.equal(both.fused(**base)[0], before)


def test_merged_weights_of_convolutions_keep_the_layout(both: Both) -> None:
    both.divide(RowRun(ABC, 3))
    weight = both.fused.down_blocks[0].resnets[0].conv1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()


@pytest.mark.parametrize("second", [AB, ABC], ids=["of linears", "of everything"])
def test_rows_of_different_sets_are_what_they_are_in_the_plain_unet(
    both: Both, second: LoraSet
) -> None:
    both.divide(RowRun(NO_LORAS, 1), RowRun(A, 1), RowRun(second, 1))
    assert both.error() <= 2e-6
    whole = calls_of(both.fused)
    if second is AB:
        assert dict(both.operations.counts) == whole  # a divided linear layer is called as such
    else:  # divided convolutions are computed with their blocks, as before
        resnets = whole["group_norm"] - whole["add_residual"]
        assert both.operations.counts["add_residual"] == whole["add_residual"] - resnets
    both.divide(RowRun(NO_LORAS, 3))
    assert both.error() <= 2e-6
    assert dict(both.operations.counts) == whole


def test_a_divided_norm_takes_its_block_back_to_diffusers(both: Both) -> None:
    transformer = both.fused.mid_block.attentions[0]
    norms = (transformer.norm, transformer.transformer_blocks[0].norm2)
    for norm in norms:
        own = type(norm).forward
        norm.forward = lambda states, norm=norm, own=own: own(norm, states)
        assert both.error() <= 2e-6
        whole = calls_of(both.fused)
        assert both.operations.counts["gate"] == whole["gate"] - len(transformer.transformer_blocks)
        del norm.forward


@torch.inference_mode()
def test_in_fp8_a_set_has_weights_of_its_own_and_the_base_gets_its_own_back(
    pipeline: Pipeline, library: LoraLibrary, model_directory: Path
) -> None:
    unet: Any = pipeline.unet
    arrange_weights(unet)
    quantise_unet(unet)
    PromptProjection(unet)
    split_gates(unet)
    fuse_unet(unet, Fusion(CountedOperations(), Float8Products(torch.float32)))
    adapters = Adapters(networks_of(pipeline), library, CPU, MANY_BYTES)
    given = unet_arguments(2, unet)
    layer = unet.mid_block.attentions[0].transformer_blocks[0].attn1.to_q
    before, own = unet(**given)[0], layer.quantised
    adapters.use(Component.UNET, A)
    changed = unet(**given)[0]
    assert relative_error(changed, before) > 1e-2
    expected = quantise_rows(layer.weight.data)
    assert torch.equal(layer.quantised.values.float(), expected.values.float())
    assert torch.equal(layer.quantised.scales, expected.scales)
    changed_layers = [unet.get_submodule(path) for path in library.get("a").of(Component.UNET)]
    assert adapters.counters.bytes == sum(
        sum(one.nbytes for one in layer.parameters())
        + (layer.quantised.size if hasattr(layer, "quantised") else 0)
        for layer in changed_layers
    )
    adapters.use(Component.UNET, NO_LORAS)
    assert layer.quantised.values is own.values
    assert torch.equal(unet(**given)[0], before)

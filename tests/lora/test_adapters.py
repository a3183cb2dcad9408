from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel

from lora.conftest import CPU, networks_of
from lpw_sdxl.diffusion.pipeline import Pipeline
from lpw_sdxl.errors import GenerationError
from lpw_sdxl.lora.adapters import Adapters, Segment
from lpw_sdxl.lora.component import Component
from lpw_sdxl.lora.library import LoraLibrary
from lpw_sdxl.lora.merging import Network
from lpw_sdxl.lora.sets import NO_LORAS, LoraSet

A: LoraSet = (("a", 0.8),)
AB: LoraSet = (("a", 0.8), ("b", -0.5))
ABC: LoraSet = (("a", 0.8), ("b", -0.5), ("c", 1.5))
ALL_SETS = [NO_LORAS, A, AB, ABC, (("d", 1.0),)]
MANY_BYTES = 2**30


@pytest.fixture
def adapters(pipeline: Pipeline, library: LoraLibrary) -> Adapters:
    return Adapters(networks_of(pipeline), library, CPU, MANY_BYTES)


def unet_arguments(rows: int, unet: Any, seed: int = 0) -> dict[str, Any]:
    config = unet.config
    drawn = torch.Generator().manual_seed(seed)
    pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
    return {
        "sample": torch.randn(rows, 4, 8, 8, generator=drawn),
        "timestep": torch.linspace(900, 100, rows),
        "encoder_hidden_states": torch.randn(rows, 77, config.cross_attention_dim, generator=drawn),
        "added_cond_kwargs": {
            "text_embeds": torch.randn(rows, pooled, generator=drawn),
            "time_ids": torch.full((rows, 6), 64.0),
        },
        "return_dict": False,
    }


def row(arguments: dict[str, Any], start: int, stop: int) -> dict[str, Any]:
    def cut(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: cut(inner) for name, inner in value.items()}
        return value[start:stop] if isinstance(value, torch.Tensor) else value

    return {name: cut(value) for name, value in arguments.items()}


def merged_by_hand(
    model_directory: Path, library: LoraLibrary, loras: LoraSet, strength: Callable[[float], float]
) -> Any:
    """Another UNet with W + sum(strength * alpha / rank * up @ down), in float64."""
    unet = UNet2DConditionModel.from_pretrained(model_directory / "unet", local_files_only=True)
    state = {name: tensor.double() for name, tensor in unet.state_dict().items()}
    for name, weight in loras:
        for path, factors in library.get(name).of(Component.UNET).items():
            up, down = factors["lora_up"].double(), factors["lora_down"].double()
            change = up.flatten(1) @ down.flatten(1) * (factors["alpha"].item() / down.shape[0])
            target = state[f"{path}.weight"]
            state[f"{path}.weight"] = target + strength(weight) * change.view_as(target)
    unet = unet.double()
    unet.load_state_dict(state)
    return unet.eval().requires_grad_(False)


def states(pipeline: Pipeline) -> dict[str, torch.Tensor]:
    return {
        f"{component}.{name}": tensor.clone()
        for component, module in networks_of(pipeline).items()
        for name, tensor in module.state_dict().items()
    }


def assert_same_bits(pipeline: Pipeline, before: dict[str, torch.Tensor]) -> None:
    after = states(pipeline)
    assert after.keys() == before.keys()
    for name, tensor in after.items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize("loras", ALL_SETS, ids=["none", "a", "ab", "abc", "d"])
@torch.inference_mode()
def test_a_set_gives_what_weights_merged_by_hand_give(
    pipeline: Pipeline,
    adapters: Adapters,
    library: LoraLibrary,
    model_directory: Path,
    loras: LoraSet,
) -> None:
    arguments = unet_arguments(2, pipeline.unet)
    adapters.use(Component.UNET, loras)
    found = pipeline.unet(**arguments)[0]

    def double(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: double(inner) for name, inner in value.items()}
        return value.double() if isinstance(value, torch.Tensor) else value

    by_hand = merged_by_hand(model_directory, library, loras, lambda weight: weight)
    expected = by_hand(**double(arguments))[0]
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()
    if loras:
        plain = merged_by_hand(model_directory, library, loras, lambda _: 0.0)
        without = plain(**double(arguments))[0]
        assert (without - expected).abs().max() > 1e-2 * expected.abs().max()


@torch.inference_mode()
def test_rows_of_different_sets_share_a_call_and_stay_what_they_are_alone(
    pipeline: Pipeline, adapters: Adapters
) -> None:
    segments = [Segment(A, 2), Segment(NO_LORAS, 1), Segment(ABC, 3), Segment(AB, 1)]
    arguments = unet_arguments(7, pipeline.unet)
    adapters.divide(Component.UNET, segments)
    together = pipeline.unet(**arguments)[0]
    again = pipeline.unet(**arguments)[0]
    assert torch.equal(together, again)
    start = 0
    for segment in segments:
        adapters.use(Component.UNET, segment.loras)
        alone = pipeline.unet(**row(arguments, start, start + segment.rows))[0]
        part = together[start : start + segment.rows]
        torch.testing.assert_close(part, alone, rtol=1e-4, atol=1e-5)
        start += segment.rows


@torch.inference_mode()
def test_after_every_change_the_base_is_bit_for_bit_what_it_was(
    pipeline: Pipeline, adapters: Adapters
) -> None:
    before = states(pipeline)
    for loras in [*ALL_SETS, *reversed(ALL_SETS)]:
        for component in Component:
            adapters.use(component, loras)
        adapters.divide(Component.UNET, [Segment(loras, 2), Segment((("b", 3.0),), 2)])
    for component in Component:
        adapters.use(component, NO_LORAS)
    assert_same_bits(pipeline, before)
    adapters.divide(Component.UNET, [Segment(A, 1), Segment(AB, 1)])
    adapters.use_in_encoders(ABC)
    adapters.reset()
    assert_same_bits(pipeline, before)


def test_a_set_is_made_once_and_the_memory_for_sets_is_bounded(
    pipeline: Pipeline, library: LoraLibrary
) -> None:
    unet_bytes = Network(Component.UNET, pipeline.unet).weight_bytes
    adapters = Adapters(networks_of(pipeline), library, CPU, 2 * unet_bytes)
    for _ in range(3):
        for loras in (A, AB):
            adapters.use(Component.UNET, loras)
    assert (adapters.counters.hits, adapters.counters.misses) == (4, 2)
    for tenth in range(30):
        adapters.use(Component.UNET, (("c", tenth / 10 + 0.1),))
        assert adapters.counters.bytes <= 2 * unet_bytes
        assert adapters.is_at_hand(Component.UNET, (("c", tenth / 10 + 0.1),))
    assert not adapters.is_at_hand(Component.UNET, A)
    assert adapters.is_at_hand(Component.UNET, NO_LORAS)


@torch.inference_mode()
def test_without_memory_for_sets_the_one_in_use_is_right(
    pipeline: Pipeline, library: LoraLibrary, adapters: Adapters
) -> None:
    arguments = unet_arguments(1, pipeline.unet)
    adapters.use(Component.UNET, AB)
    expected = pipeline.unet(**arguments)[0]
    adapters.reset()
    before = states(pipeline)
    poor = Adapters(networks_of(pipeline), library, CPU, 1)
    for _ in range(2):
        poor.use(Component.UNET, A)
        poor.use(Component.UNET, AB)
        assert torch.equal(pipeline.unet(**arguments)[0], expected)
    assert poor.counters.bytes == 0
    poor.reset()
    assert_same_bits(pipeline, before)


def test_a_damaged_lora_fails_by_name_and_leaves_the_network_usable(
    pipeline: Pipeline, adapters: Adapters, tmp_path: Path
) -> None:
    (tmp_path / "b.safetensors").write_bytes(b"nothing of the kind")
    before = states(pipeline)
    with pytest.raises(GenerationError, match="the LoRA b is damaged"):
        adapters.use(Component.UNET, AB)
    with pytest.raises(GenerationError, match="the LoRA b is damaged"):
        adapters.divide(Component.UNET, [Segment(A, 1), Segment(AB, 1)])
    adapters.use(Component.UNET, A)
    adapters.use(Component.UNET, NO_LORAS)
    assert_same_bits(pipeline, before)

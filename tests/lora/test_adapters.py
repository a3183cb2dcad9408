from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from inspect import getclosurevars
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file

from lora.conftest import CPU, CanonicalFile, networks_of
from lpw_sdxl.diffusion.pipeline import Pipeline
from lpw_sdxl.errors import InvalidRequestError, LoraUnavailableError
from lpw_sdxl.lora import patched
from lpw_sdxl.lora.adapters import Adapters
from lpw_sdxl.lora.formulas import compute_product
from lpw_sdxl.lora.library import LoraLibrary
from lpw_sdxl.lora.merging import Network
from lpw_sdxl.lora.patched import RowRun
from lpw_sdxl.lora.sets import NO_LORAS, LoraSet
from lpw_sdxl.lora.targets import LORA_COMPONENTS
from lpw_sdxl.weights.component import Component

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
    """Build another UNet with W + sum(strength * alpha / rank * up @ down), in float64."""
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


@pytest.mark.thorough
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
    runs = [RowRun(A, 2), RowRun(NO_LORAS, 1), RowRun(ABC, 3), RowRun(AB, 1)]
    arguments = unet_arguments(7, pipeline.unet)
    adapters.divide(Component.UNET, runs)
    together = pipeline.unet(**arguments)[0]
    again = pipeline.unet(**arguments)[0]
    assert torch.equal(together, again)
    start = 0
    for run in runs:
        adapters.use(Component.UNET, run.loras)
        alone = pipeline.unet(**row(arguments, start, start + run.rows))[0]
        part = together[start : start + run.rows]
        torch.testing.assert_close(part, alone, rtol=1e-4, atol=1e-5)
        start += run.rows


@torch.inference_mode()
def test_after_every_change_the_base_is_bit_for_bit_what_it_was(
    pipeline: Pipeline, adapters: Adapters
) -> None:
    before = states(pipeline)
    for loras in [*ALL_SETS, *reversed(ALL_SETS)]:
        for component in LORA_COMPONENTS:
            adapters.use(component, loras)
        adapters.divide(Component.UNET, [RowRun(loras, 2), RowRun((("b", 3.0),), 2)])
    for component in LORA_COMPONENTS:
        adapters.use(component, NO_LORAS)
    assert_same_bits(pipeline, before)
    adapters.divide(Component.UNET, [RowRun(A, 1), RowRun(AB, 1)])
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
    with pytest.raises(LoraUnavailableError, match="the LoRA b was removed or damaged"):
        adapters.use(Component.UNET, AB)
    with pytest.raises(LoraUnavailableError, match="the LoRA b was removed or damaged"):
        adapters.divide(Component.UNET, [RowRun(A, 1), RowRun(AB, 1)])
    adapters.use(Component.UNET, A)
    adapters.use(Component.UNET, NO_LORAS)
    assert_same_bits(pipeline, before)


def spoil(file: Path, factor: float) -> None:
    """Multiply every tensor of a LoRA, as no import would take it."""
    tensors = load_file(file)
    save_file(
        {name: one if name.endswith("alpha") else one * factor for name, one in tensors.items()},
        file,
    )


@pytest.mark.parametrize(
    ("factor", "strength", "message"),
    [
        (1e25, 1.0, "the LoRA b overflows or is damaged and can't be used at any weight"),
        (1e25, 1e-3, "the LoRA b overflows or is damaged and can't be used at any weight"),
        (1.0, 10.0, "the weight of the LoRA b at 10 makes numbers beyond float32"),
    ],
)
def test_a_lora_that_overflows_is_refused_by_name_and_leaves_the_network_usable(
    pipeline: Pipeline,
    library: LoraLibrary,
    tmp_path: Path,
    factor: float,
    strength: float,
    message: str,
) -> None:
    if factor < 1e20:  # of the product: its largest number becomes 1e38
        product = max(
            float(compute_product(factors).abs().max())
            for factors in library.get("b").of(Component.UNET).values()
        )
        factor = (1e38 / product) ** 0.5
    spoil(tmp_path / "b.safetensors", factor)
    adapters = Adapters(
        networks_of(pipeline),
        LoraLibrary(library._entries, 2**30),
        CPU,
        2**30,
    )
    before = states(pipeline)
    for loras in ((("b", strength),), (("a", 1.0), ("b", strength))):
        with pytest.raises(InvalidRequestError) as refused:
            adapters.use(Component.UNET, loras)
        assert message in str(refused.value)
        assert refused.value.field == "loras"
    adapters.use(Component.UNET, A)
    adapters.use(Component.UNET, NO_LORAS)
    assert_same_bits(pipeline, before)


def bytes_in_use(pipeline: Pipeline, known: set[int]) -> int:
    """Count the bytes of the weights in use, except those at known addresses."""
    found = {
        tensor.data_ptr(): tensor.numel() * tensor.element_size()
        for module in networks_of(pipeline).values()
        for layer in module.modules()
        for tensor in weights_at_work(layer)
        if tensor.data_ptr() not in known
    }
    return sum(found.values())


def weights_at_work(layer: torch.nn.Module) -> list[torch.Tensor]:
    """Return the layer's own parameters, and those of the runs that it is divided into."""
    divided = vars(layer).get("forward")
    cells = {} if divided is None else getclosurevars(divided).nonlocals
    parts = [tensor for part in cells.get("weights", ()) for tensor in part]
    return [parameter.data for parameter in layer.parameters(recurse=False)] + parts


def test_what_is_in_use_is_within_the_memory_for_sets(
    pipeline: Pipeline, library: LoraLibrary
) -> None:
    own = {
        parameter.data_ptr()
        for network in networks_of(pipeline).values()
        for parameter in network.parameters()
    }
    unet_bytes = Network(Component.UNET, pipeline.unet).weight_bytes
    limit = 2 * unet_bytes
    adapters = Adapters(networks_of(pipeline), library, CPU, limit)

    def held() -> int:
        """Count the bytes that are kept, and those is in use without being kept."""
        kept = {
            tensor.data_ptr()
            for merged, _ in adapters._merged._entries.values()
            for weights in merged.values()
            for tensor in (weights.weight, weights.bias)
            if tensor is not None
        }
        return adapters.counters.bytes + bytes_in_use(pipeline, own | kept)

    peak = 0
    merge = Network.merge

    def watched(network: Network, *rest: Any) -> Any:
        nonlocal peak
        merged = merge(network, *rest)
        peak = max(peak, held() + sum(weights.size for weights in merged.values()))
        return merged

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Network, "merge", watched)
        for tenth in range(1, 8):
            sets = [(("c", tenth / 10),), (("c", -tenth / 10),)]
            adapters.divide(Component.UNET, [RowRun(loras, 1) for loras in sets])
            adapters.use_in_encoders(sets[0])
    assert 0 < peak <= limit


def test_an_exchange_that_breaks_off_leaves_no_mixture_behind(
    pipeline: Pipeline, adapters: Adapters, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = states(pipeline)
    adapters.use(Component.UNET, A)
    adapters.use(Component.UNET, NO_LORAS)
    exchange, count = patched._exchange, 0

    def break_off(*arguments: Any) -> None:
        nonlocal count
        count += 1
        if count == 5:
            raise torch.OutOfMemoryError
        exchange(*arguments)

    monkeypatch.setattr(patched, "_exchange", break_off)
    with pytest.raises(torch.OutOfMemoryError):
        adapters.use(Component.UNET, A)
    adapters.use(Component.UNET, NO_LORAS)  # whose image is next has none
    assert_same_bits(pipeline, before)

    adapters.use(Component.UNET, A)
    count = 0
    with pytest.raises(torch.OutOfMemoryError):
        adapters.use(Component.UNET, (("d", 1.0),))
    adapters.reset()
    assert_same_bits(pipeline, before)


def test_where_memory_is_short_all_merged_weights_go(
    pipeline: Pipeline, adapters: Adapters
) -> None:
    before = states(pipeline)
    adapters.divide(Component.UNET, [RowRun(A, 1), RowRun(AB, 1)])
    adapters.use_in_encoders(ABC)
    assert adapters.counters.bytes > 0
    adapters.forget()
    assert (adapters.counters.bytes, adapters.counters.entries) == (0, 0)
    assert_same_bits(pipeline, before)


def test_a_lora_that_is_at_hand_does_not_wait_for_another_file(tmp_path: Path) -> None:
    for name in ("quick", "slow"):
        save_file({f"unet/conv_in/{name}": torch.zeros(2)}, tmp_path / f"{name}.safetensors")
    is_read, go_on = threading.Event(), threading.Event()

    class Slow(CanonicalFile):
        def load(self, file: Path, *, is_checked: bool) -> Mapping[str, torch.Tensor]:
            is_read.set()
            assert go_on.wait(20)
            return super().load(file, is_checked=is_checked)

    library = LoraLibrary(
        {
            "quick": CanonicalFile("quick", tmp_path / "quick.safetensors"),
            "slow": Slow("slow", tmp_path / "slow.safetensors"),
        },
        max_bytes=2**30,
    )
    library.get("quick")
    with ThreadPoolExecutor(3) as threads:
        slow = [threads.submit(library.get, "slow") for _ in range(2)]
        try:
            assert is_read.wait(20)
            assert threads.submit(library.get, "quick").result(10).size == 8
            assert not slow[0].done()
        finally:
            go_on.set()
        assert slow[0].result(20) is slow[1].result(20)  # read once
    assert (library.counters.entries, library.counters.misses) == (2, 3)

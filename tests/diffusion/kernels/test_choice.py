"""When a device gets the kernels, and what is found wrong before it does."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lpw_sdxl.diffusion.kernels import choice
from lpw_sdxl.diffusion.kernels.choice import choose_operations, find_device_obstacle
from lpw_sdxl.diffusion.kernels.operations import Activation
from lpw_sdxl.diffusion.kernels.plain import PlainOperations
from lpw_sdxl.diffusion.kernels.trial import find_wrong_kernel
from lpw_sdxl.weights.float8 import Quantised

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def network() -> nn.Module:
    return nn.ModuleList([nn.GroupNorm(8, 32), nn.LayerNorm(48), nn.Linear(4, 4)])


def make_gpu(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int]) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())


def test_a_cpu_gets_none(network: nn.Module) -> None:
    chosen = choose_operations(CPU, [network], quantises=False)
    assert chosen.operations is None
    assert chosen.obstacle == "the device is cpu, and they run on CUDA devices"


def test_a_gpu_without_triton_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    make_gpu(monkeypatch, (9, 0))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert find_device_obstacle(GPU, quantises=False) == "Triton is not installed"


@pytest.mark.parametrize("capability", sorted(choice.CAPABILITIES), ids=str)
def test_known_gpus_have_no_obstacle_and_fp8_from_8_9_on(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int]
) -> None:
    make_gpu(monkeypatch, capability)
    assert find_device_obstacle(GPU, quantises=False) is None
    obstacle = find_device_obstacle(GPU, quantises=True)
    assert (obstacle is None) is (capability >= (8, 9))


@pytest.mark.parametrize("capability", [(7, 5), (10, 3), (13, 0)], ids=str)
def test_other_gpus_get_none(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], network: nn.Module
) -> None:
    make_gpu(monkeypatch, capability)
    chosen = choose_operations(GPU, [network], quantises=False)
    assert chosen.operations is None
    assert chosen.obstacle is not None
    assert f"capability {capability[0]}.{capability[1]}," in chosen.obstacle
    assert "8.0, 8.6, 8.9, 9.0, 12.0" in chosen.obstacle


def test_right_operations_pass_the_trial(network: nn.Module) -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        assert (
            find_wrong_kernel(PlainOperations(), [network.to(dtype)], CPU, quantises=True) is None
        )


class Wrong(PlainOperations):
    """Operations one of which errs by 1 %, or gives a number that is none."""

    def __init__(self, wrong: str, factor: float) -> None:
        self._wrong, self._factor = wrong, factor

    def _spoil(self, name: str, activation: Any) -> Any:
        if name != self._wrong:
            return activation
        if isinstance(activation, Quantised):
            return Quantised(activation.values, activation.scales * self._factor)
        return activation * self._factor

    def group_norm(self, *arguments: Any, **named: Any) -> Tensor:
        return self._spoil("group norm", super().group_norm(*arguments, **named))

    def add_residual(self, *arguments: Any) -> Tensor:
        return self._spoil("a sum", super().add_residual(*arguments))

    def add_layer_norm(self, *arguments: Any, **named: Any) -> Any:
        summed = super().add_layer_norm(*arguments, **named)
        return summed._replace(normalised=self._spoil("layer norm", summed.normalised))

    def gate(self, *arguments: Any, **named: Any) -> Activation:
        return self._spoil("a gate", super().gate(*arguments, **named))

    def quantise(self, *arguments: Any) -> Quantised:
        return self._spoil("fp8", super().quantise(*arguments))


@pytest.mark.parametrize("name", ["group norm", "a sum", "layer norm", "a gate", "fp8"])
@pytest.mark.parametrize("factor", [1.05, float("nan")])
def test_a_wrong_operation_is_found_and_named(network: nn.Module, name: str, factor: float) -> None:
    found = find_wrong_kernel(Wrong(name, factor), [network], CPU, quantises=True)
    assert found is not None
    assert found.startswith(name)
    assert "on this device" in found


def test_one_percent_is_wrong_in_half_precision(network: nn.Module) -> None:
    wrong = Wrong("a gate", 1.01)
    assert find_wrong_kernel(wrong, [network.half()], CPU, quantises=False) is not None


def test_what_can_not_be_compiled_is_named(
    network: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("Failed to find C compiler.\nPlease specify CC")

    operations = PlainOperations()
    monkeypatch.setattr(operations, "gate", refuse)
    assert find_wrong_kernel(operations, [network], CPU, quantises=False) == (
        "one can't be compiled or run (RuntimeError: Failed to find C compiler.)"
    )

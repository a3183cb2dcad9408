from __future__ import annotations

import dataclasses
import time
from typing import Any

import pytest
import torch

from lpw_sdxl.diffusion.offloader import Offloader
from lpw_sdxl.diffusion.pipeline import Pipeline

NAMES = ["prompt_encoder", "unet", "vae"]
AWAY = torch.device("meta")  # a device other than the CPU that every machine has


@pytest.fixture
def remote(pipeline: Pipeline) -> Pipeline:
    """The demo model's pipeline, whose device is not the CPU."""
    return dataclasses.replace(pipeline, device=AWAY)


def modules(pipeline: Pipeline, name: str) -> tuple[torch.nn.Module, ...]:
    return (
        pipeline.prompt_encoder.models if name == "prompt_encoder" else (getattr(pipeline, name),)
    )


def tensors(pipeline: Pipeline) -> dict[str, torch.Tensor]:
    return {
        f"{name}.{index}.{key}": tensor
        for name in NAMES
        for index, module in enumerate(modules(pipeline, name))
        for key, tensor in [*module.named_parameters(), *module.named_buffers()]
    }


def on_device(pipeline: Pipeline) -> list[str]:
    """List the components that are on the device, with every tensor."""
    devices = {
        name: {tensor.device for key, tensor in tensors(pipeline).items() if key.startswith(name)}
        for name in NAMES
    }
    assert all(len(where) == 1 for where in devices.values())
    return [name for name, where in devices.items() if where == {AWAY}]


def test_without_offloading_all_are_moved_at_once_and_stay(remote: Pipeline) -> None:
    offloader = Offloader(remote, is_offloading=False)
    assert on_device(remote) == NAMES
    for name in NAMES:
        offloader.require(name)
    assert on_device(remote) == NAMES
    assert offloader.current is None


def test_with_offloading_only_the_required_component_is_there(remote: Pipeline) -> None:
    offloader = Offloader(remote, is_offloading=True)
    assert on_device(remote) == []
    for name in ("prompt_encoder", "unet", "unet", "vae", "vae", "prompt_encoder"):
        offloader.require(name)
        assert offloader.current == name
        assert on_device(remote) == [name]


def test_a_component_that_was_moved_back_has_the_very_same_memory(remote: Pipeline) -> None:
    before = {key: tensor.data_ptr() for key, tensor in tensors(remote).items()}
    values = {key: tensor.clone() for key, tensor in tensors(remote).items()}
    offloader = Offloader(remote, is_offloading=True)
    for name in ("unet", "prompt_encoder", "vae", "unet", "prompt_encoder"):
        offloader.require(name)
    at_host = {
        key: tensor
        for key, tensor in tensors(remote).items()
        if not key.startswith("prompt_encoder")
    }
    for key, tensor in at_host.items():
        assert tensor.data_ptr() == before[key]
        assert torch.equal(tensor, values[key])


def test_a_move_is_timed_and_announced(remote: Pipeline) -> None:
    offloader = Offloader(remote, is_offloading=True)
    announced: list[str | None] = []
    offloader.before_move = lambda: announced.append(offloader.current)
    before = time.monotonic()
    offloader.require("unet")
    assert before <= offloader.since <= time.monotonic()
    assert 0 < offloader.transfer_s <= offloader.since - before
    since = offloader.since
    offloader.require("unet")  # it is there
    assert offloader.since == since
    offloader.require("vae")
    assert announced == [None, "unet"]


def test_a_component_that_was_there_before_is_moved_back_too(pipeline: Pipeline) -> None:
    # As the measuring of the memory leaves it; nothing can be moved back from the meta device.
    here = torch.device("cpu")
    vae: Any = pipeline.vae
    sent: list[torch.device] = []
    send = vae.to
    vae.to = lambda device: (sent.append(device), send(device))[1]
    Offloader(pipeline, is_offloading=True)
    assert sent == [here]


def test_after_a_move_that_fails_half_way_no_component_is_current(remote: Pipeline) -> None:
    offloader = Offloader(remote, is_offloading=True)
    offloader.require("prompt_encoder")
    unet: Any = remote.unet
    send = unet.to

    def half_way(device: torch.device) -> Any:
        unet.down_blocks.to(device)
        raise MemoryError

    unet.to = half_way
    with pytest.raises(MemoryError):
        offloader.require("unet")
    assert offloader.current is None
    unet.to = send
    for name in ("vae", "unet", "prompt_encoder"):
        offloader.require(name)
        assert offloader.current == name
        assert on_device(remote) == [name]

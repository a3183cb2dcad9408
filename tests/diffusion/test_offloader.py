from __future__ import annotations

import dataclasses
import time
from typing import Any

import pytest
import torch

from lpw_sdxl.diffusion.pipeline import Pipeline
from lpw_sdxl.diffusion.residence import Residence

NAMES = ["prompt_encoder", "unet", "vae"]
AWAY = torch.device("meta")  # a device that a machine without a GPU has, told apart from the CPU


@pytest.fixture
def traveller(pipeline: Pipeline) -> Pipeline:
    """The demo model's pipeline, whose device is far away."""
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


def away(pipeline: Pipeline) -> list[str]:
    """Which components are at the device, with every tensor."""
    devices = {
        name: {tensor.device for key, tensor in tensors(pipeline).items() if key.startswith(name)}
        for name in NAMES
    }
    assert all(len(where) == 1 for where in devices.values())
    return [name for name, where in devices.items() if where == {AWAY}]


def test_where_all_fit_all_come_at_once_and_stay(traveller: Pipeline) -> None:
    residence = Residence(traveller, shares_device=True)
    assert away(traveller) == NAMES
    for name in NAMES:
        residence.call(name)
    assert away(traveller) == NAMES
    assert residence.current is None


def test_one_at_a_time_the_one_before_goes_first(traveller: Pipeline) -> None:
    residence = Residence(traveller, shares_device=False)
    assert away(traveller) == []
    for name in ("prompt_encoder", "unet", "unet", "vae", "vae", "prompt_encoder"):
        residence.call(name)
        assert residence.current == name
        assert away(traveller) == [name]


def test_what_travelled_comes_home_to_the_very_same_memory(traveller: Pipeline) -> None:
    before = {key: tensor.data_ptr() for key, tensor in tensors(traveller).items()}
    values = {key: tensor.clone() for key, tensor in tensors(traveller).items()}
    residence = Residence(traveller, shares_device=False)
    for name in ("unet", "prompt_encoder", "vae", "unet", "prompt_encoder"):
        residence.call(name)
    at_home = {
        key: tensor
        for key, tensor in tensors(traveller).items()
        if not key.startswith("prompt_encoder")
    }
    for key, tensor in at_home.items():
        assert tensor.data_ptr() == before[key]
        assert torch.equal(tensor, values[key])


def test_a_travel_is_timed_and_told_before(traveller: Pipeline) -> None:
    residence = Residence(traveller, shares_device=False)
    told: list[str | None] = []
    residence.before_travel = lambda: told.append(residence.current)
    before = time.monotonic()
    residence.call("unet")
    assert before <= residence.since <= time.monotonic()
    assert 0 < residence.travel_s <= residence.since - before
    since = residence.since
    residence.call("unet")  # it is there
    assert residence.since == since
    residence.call("vae")
    assert told == [None, "unet"]


def test_whoever_was_there_before_goes_home_too(pipeline: Pipeline) -> None:
    # As the measuring of the memory leaves it; the way home from the meta device is barred.
    here = torch.device("cpu")
    vae: Any = pipeline.vae
    sent: list[torch.device] = []
    send = vae.to
    vae.to = lambda device: (sent.append(device), send(device))[1]
    Residence(pipeline, shares_device=False)
    assert sent == [here]


def test_a_travel_that_breaks_off_leaves_nobody_for_sure(traveller: Pipeline) -> None:
    residence = Residence(traveller, shares_device=False)
    residence.call("prompt_encoder")
    unet: Any = traveller.unet
    send = unet.to

    def half_way(device: torch.device) -> Any:
        unet.down_blocks.to(device)
        raise MemoryError

    unet.to = half_way
    with pytest.raises(MemoryError):
        residence.call("unet")
    assert residence.current is None
    unet.to = send
    for name in ("vae", "unet", "prompt_encoder"):
        residence.call(name)
        assert residence.current == name
        assert away(traveller) == [name]

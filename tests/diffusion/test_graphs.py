"""UNet calls as CUDA graphs: the same numbers as without, for every shape, and bounded."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from lpw_sdxl.diffusion import graphs
from lpw_sdxl.diffusion.graphs import CALLS_BEFORE_RECORDING, MAX_GRAPHS, GraphedUnet, list_tensors

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


class Network(torch.nn.Module):
    """A network with a UNet's arguments that uses all of them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution = torch.nn.Conv2d(4, 4, 3, padding=1)
        self.prompt = torch.nn.Linear(16, 4)
        self.calls = 0

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        added_cond_kwargs: dict[str, Tensor],
        return_dict: bool,
    ) -> tuple[Tensor]:
        self.calls += 1
        shift = self.prompt(encoder_hidden_states).mean(1) + added_cond_kwargs["time_ids"][:, :4]
        scale = (timestep / 1000)[:, None, None, None]
        return (self.convolution(sample) * scale + shift[:, :, None, None],)


def arguments(rows: int, *, tokens: int = 7, device: str = "cpu") -> dict[str, Any]:
    return {
        "sample": torch.randn(rows, 4, 8, 8, device=device),
        "timestep": torch.rand(rows, device=device) * 1000,
        "encoder_hidden_states": torch.randn(rows, tokens, 16, device=device),
        "added_cond_kwargs": {"time_ids": torch.randn(rows, 6, device=device)},
        "return_dict": False,
    }


def test_calls_that_are_too_large_are_never_recorded() -> None:
    network = Network()
    graphed = GraphedUnet(network, 64 * 64 - 1)
    for _ in range(CALLS_BEFORE_RECORDING + 2):
        given = arguments(1)
        assert torch.equal(graphed(**given)[0], network(**given)[0])
    assert len(graphed._recorded) == 0


def test_a_call_that_can_not_be_recorded_is_made_as_usual(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(graphs, "Recording", refuse)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    network = Network()
    graphed = GraphedUnet(network, 64 * 64)
    for _ in range(CALLS_BEFORE_RECORDING + 3):
        given = arguments(1)
        assert torch.equal(graphed(**given)[0], network(**given)[0])
    assert caplog.text.count("no longer recorded") == 1


def test_all_tensors_are_found_in_one_order() -> None:
    given = arguments(2)
    backwards = dict(reversed(given.items()))
    found = [*list_tensors(given)]
    assert len(found) == 4
    assert all(one is other for one, other in zip(found, list_tensors(backwards), strict=True))


@pytest.mark.gpu
@needs_cuda
@torch.inference_mode()
def test_a_replay_gives_what_the_call_gives() -> None:
    network = Network().cuda()
    graphed = GraphedUnet(network, 64 * 64 * 3)
    kept = []
    for rows in (1, 3, 4, 2) * (CALLS_BEFORE_RECORDING + 3):
        for tokens in (7, 9):
            given = arguments(rows, tokens=tokens, device="cuda")
            kept.append((graphed(**given)[0], copy.deepcopy(network)(**given)[0]))
    assert len(graphed._recorded) == 6  # 4 rows are too many
    calls = network.calls
    graphed(**arguments(2, device="cuda"))
    assert network.calls == calls  # replayed
    for one, other in kept:  # none was overwritten by a later replay
        torch.testing.assert_close(one, other)


@pytest.mark.gpu
@needs_cuda
@torch.inference_mode()
def test_only_the_latest_shapes_are_kept() -> None:
    graphed = GraphedUnet(Network().cuda(), 64 * 64)
    for tokens in range(1, MAX_GRAPHS + 5):
        for _ in range(CALLS_BEFORE_RECORDING + 1):
            graphed(**arguments(1, tokens=tokens, device="cuda"))
    assert len(graphed._recorded) == MAX_GRAPHS

from __future__ import annotations

import pytest
import torch

from lpw_sdxl.sampling.model_sigmas import ModelSigmas
from lpw_sdxl.sampling.restart import restart, restart_steps
from lpw_sdxl.sampling.schedules import karras, make_sigmas
from lpw_sdxl.sampling.walk import Sampling
from lpw_sdxl.sampling_options import SigmaScheduleType

SDXL = ModelSigmas.of_sdxl()


@pytest.mark.parametrize(("steps", "restarts"), [(5, 0), (19, 0), (20, 1), (35, 1), (36, 2)])
def test_restarts_go_back_up_and_keep_the_count_of_steps(steps: int, restarts: int) -> None:
    walk = restart_steps(karras(steps, SDXL.smallest, SDXL.largest))
    assert len(walk) == steps
    starts = [start for start, _ in walk[1:]]
    ends = [end for _, end in walk[:-1]]
    jumps = [(end, start) for end, start in zip(ends, starts, strict=True) if start > end]
    assert len(jumps) == restarts
    for end, start in jumps:
        assert 0.03 < end < 0.3
        assert 1 < start < 4
    assert all(start > end for start, end in walk)


@pytest.mark.parametrize("kind", ["Karras", "Uniform", "KL Optimal", "SGM Uniform"])
@pytest.mark.parametrize(("steps", "restarts"), [(20, 1), (37, 2)])
def test_noise_is_drawn_for_restarts_alone(kind: str, steps: int, restarts: int) -> None:
    """Another schedule's first sigma differs in its last bits from that of the walk."""
    sigmas = make_sigmas(SigmaScheduleType(kind), steps, SDXL)
    drawn: list[float] = []

    def draw(_: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        drawn.append(sigma.item())
        return torch.zeros(())

    sampling = Sampling(restart(torch.ones(()), sigmas, draw))
    while not sampling.is_done:
        sampling.advance(torch.zeros(()))
    assert [1 < sigma < 4 for sigma in drawn] == [True] * restarts

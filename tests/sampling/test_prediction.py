from __future__ import annotations

import pytest
import torch

from lpw_sdxl.sampling.model_sigmas import ModelSigmas
from lpw_sdxl.sampling.prediction import denoise, scale_input
from sampling_vectors import SHAPE

MODELS = [ModelSigmas.of_sdxl(zero_terminal_snr=zero_snr) for zero_snr in (False, True)]


@pytest.mark.parametrize("model", MODELS, ids=["sdxl", "zero-snr"])
@pytest.mark.parametrize("timestep", [0, 500, 998])
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_a_perfect_prediction_gives_the_picture(
    model: ModelSigmas, timestep: int, kind: str
) -> None:
    """The targets are those that such models are trained on, at sqrt(alpha) and sqrt(1-alpha)."""
    picture, noise = torch.randn(
        2, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    sigma = model.table[timestep].double()
    signal = 1 / (1 + sigma**2).sqrt()
    deviation = sigma * signal
    targets = {
        "epsilon": noise,
        "v_prediction": signal * noise - deviation * picture,
        "sample": picture,
    }
    latents = picture + sigma * noise
    torch.testing.assert_close(scale_input(latents, sigma), signal * picture + deviation * noise)
    torch.testing.assert_close(denoise(targets[kind], latents, sigma, kind), picture)


def test_an_unknown_prediction_is_no_prediction() -> None:
    with pytest.raises(KeyError):
        denoise(torch.ones(1), torch.ones(1), torch.ones(()), "score")

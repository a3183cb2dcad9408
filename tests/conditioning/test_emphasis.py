"""The formula of each style, against a loop over positions."""

import pytest
import torch

from lpw_sdxl.conditioning.emphasis import EMPHASES, emphasize_lpw
from lpw_sdxl.prompt import PromptStyle

LENGTHS = [5, 3, 2]


@pytest.fixture
def hidden():
    return torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))


def test_lpw_moves_each_position_from_its_own_windows_last(hidden):
    weights = torch.tensor([[1, 1.3, -0.5, 0, 1], [1, 2, 1, 1, 1], [1, 1, 1, 1, 1.0]])
    weighted = emphasize_lpw(hidden, weights, torch.tensor(LENGTHS))
    for window, length in enumerate(LENGTHS):
        last = hidden[window, length - 1]
        for position in range(length):
            expected = last + (hidden[window, position] - last) * weights[window, position]
            torch.testing.assert_close(weighted[window, position], expected)


@pytest.mark.parametrize("style", PromptStyle)
def test_weight_one_is_the_identity(style, hidden):
    weighted = EMPHASES[style](hidden, torch.ones(3, 5), torch.tensor(LENGTHS))
    assert torch.equal(weighted, hidden)


def test_weight_zero_is_the_last_position(hidden):
    weighted = emphasize_lpw(hidden, torch.zeros(3, 5), torch.tensor(LENGTHS))
    for window, length in enumerate(LENGTHS):
        assert torch.equal(weighted[window], hidden[window, length - 1].expand(5, 4))


def test_every_style_has_an_emphasis():
    assert set(EMPHASES) == set(PromptStyle)

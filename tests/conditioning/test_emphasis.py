"""The formula of each emphasis, against a loop over positions."""

import pytest
import torch

from lpw_sdxl.conditioning.emphasis import EMPHASES, READ_EMPTY_PROMPT
from lpw_sdxl.conditioning.styles import EmphasisName

LENGTHS = [5, 3, 2]
WEIGHTS = torch.tensor([[1, 1.3, -0.5, 0, 1], [1, 2, 1, 1, 1], [1, 1, 1, 1, 1.0]])


@pytest.fixture
def hidden():
    return torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def empty():
    return torch.randn(1, 7, 4, generator=torch.Generator().manual_seed(1))


def emphasize(name, hidden, weights, empty):
    return EMPHASES[name](hidden, weights, torch.tensor(LENGTHS), empty)


def positions():
    return [
        (window, position) for window, length in enumerate(LENGTHS) for position in range(length)
    ]


def test_every_emphasis_has_a_formula():
    assert set(EMPHASES) == set(EmphasisName)
    assert set(EMPHASES) >= READ_EMPTY_PROMPT


@pytest.mark.parametrize("name", EmphasisName)
def test_weight_one_is_the_identity(name, hidden, empty):
    assert torch.equal(emphasize(name, hidden, torch.ones(3, 5), empty), hidden)


@pytest.mark.parametrize("name", EmphasisName)
def test_arguments_are_left_as_they_are(name, hidden, empty):
    copies = hidden.clone(), WEIGHTS.clone(), empty.clone()
    emphasize(name, hidden, WEIGHTS, empty)
    for tensor, copy in zip((hidden, WEIGHTS, empty), copies, strict=True):
        assert torch.equal(tensor, copy)


def test_no_emphasis_ignores_weights(hidden, empty):
    assert torch.equal(emphasize(EmphasisName.NONE, hidden, WEIGHTS, empty), hidden)


def test_from_window_end_moves_each_position_from_its_own_windows_last(hidden, empty):
    weighted = emphasize(EmphasisName.FROM_WINDOW_END, hidden, WEIGHTS, empty)
    for window, position in positions():
        last = hidden[window, LENGTHS[window] - 1]
        expected = last + (hidden[window, position] - last) * WEIGHTS[window, position]
        torch.testing.assert_close(weighted[window, position], expected)


def test_weight_zero_is_the_windows_last_position(hidden, empty):
    weighted = emphasize(EmphasisName.FROM_WINDOW_END, hidden, torch.zeros(3, 5), empty)
    for window, length in enumerate(LENGTHS):
        assert torch.equal(weighted[window], hidden[window, length - 1].expand(5, 4))


def test_from_empty_prompt_moves_each_position_from_the_same_position_there(hidden, empty):
    weighted = emphasize(EmphasisName.FROM_EMPTY_PROMPT, hidden, WEIGHTS, empty)
    for window, position in positions():
        origin = empty[0, position]
        expected = origin + (hidden[window, position] - origin) * WEIGHTS[window, position]
        torch.testing.assert_close(weighted[window, position], expected)


def test_multiply_multiplies(hidden, empty):
    weighted = emphasize(EmphasisName.MULTIPLY, hidden, WEIGHTS, empty)
    for window, position in positions():
        assert torch.equal(
            weighted[window, position], hidden[window, position] * WEIGHTS[window, position]
        )


def test_restoring_the_mean_scales_each_window_by_itself(hidden, empty):
    weighted = emphasize(EmphasisName.MULTIPLY_AND_RESTORE_MEAN, hidden, WEIGHTS, empty)
    for window, length in enumerate(LENGTHS):
        product = hidden[window, :length] * WEIGHTS[window, :length, None]
        expected = product * (hidden[window, :length].mean() / product.mean())
        torch.testing.assert_close(weighted[window, :length], expected)
        torch.testing.assert_close(weighted[window, :length].mean(), hidden[window, :length].mean())


def test_what_is_behind_a_window_does_not_move_its_mean(hidden, empty):
    spoilt = hidden.clone()
    spoilt[1, 3:] = 1e6
    name = EmphasisName.MULTIPLY_AND_RESTORE_MEAN
    one, other = (emphasize(name, states, WEIGHTS, empty) for states in (hidden, spoilt))
    assert torch.equal(one[1, :3], other[1, :3])


def test_a_mean_of_zero_is_not_restored_and_nothing_is_infinite(hidden, empty):
    weighted = emphasize(EmphasisName.MULTIPLY_AND_RESTORE_MEAN, hidden, torch.zeros(3, 5), empty)
    assert torch.equal(weighted, torch.zeros(3, 5, 4))


@pytest.mark.parametrize("name", EmphasisName)
@pytest.mark.parametrize("weight", [-100.0, 100.0])
def test_the_largest_weights_stay_finite(name, hidden, empty, weight):
    weights = torch.full((3, 5), weight)
    weights[:, 0] = 1.0
    assert torch.isfinite(emphasize(name, hidden, weights, empty)).all()

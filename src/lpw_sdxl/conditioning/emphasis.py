"""The effect of weights on hidden states: pure functions of one signature, and their table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from lpw_sdxl.conditioning.styles import EmphasisName


class Emphasis(Protocol):
    """A style's way to apply weights to one encoder's hidden states.

    Windows of one prompt are stacked and padded on the right to the longest; padding has weight
    1 and its values don't matter. All arithmetic is in float32, whatever the encoders' dtype:
    a weight of 1.3 is 1.3, and a large one doesn't overflow before the result is rounded. Where
    every weight of a window is 1, the window stays as it is to the last bit.
    """

    def __call__(self, hidden: Tensor, weights: Tensor, lengths: Tensor, empty: Tensor) -> Tensor:
        """Return the weighted hidden states.

        Args:
            hidden: [windows, tokens, dim] float32.
            weights: [windows, tokens] float32.
            lengths: [windows] int64, positions of each window that are not padding.
            empty: [1, tokens, dim] float32, the empty prompt's hidden states; without positions,
                [1, 0, dim], for an emphasis that is not in `READ_EMPTY_PROMPT`.

        Returns:
            [windows, tokens, dim] float32.
        """


def emphasize_not(hidden: Tensor, weights: Tensor, lengths: Tensor, empty: Tensor) -> Tensor:
    """Return the hidden states as they are."""
    del weights, lengths, empty
    return hidden


def emphasize_from_window_end(
    hidden: Tensor, weights: Tensor, lengths: Tensor, empty: Tensor
) -> Tensor:
    """Move each position away from its window's last one (EOS), by its weight.

    e[j] = e[-1] + (e[j] - e[-1]) w[j], of lpw_stable_diffusion_xl (huggingface/diffusers,
    commit 58eb52c, get_weighted_text_embeddings_sdxl).
    """
    del empty
    rows = torch.arange(hidden.shape[0], device=hidden.device)
    return _move_away(hidden, weights, hidden[rows, lengths - 1].unsqueeze(1))


def emphasize_from_empty_prompt(
    hidden: Tensor, weights: Tensor, lengths: Tensor, empty: Tensor
) -> Tensor:
    """Move each position away from the empty prompt's position of the same index, by its weight.

    e[j] = o[j] + (e[j] - o[j]) w[j], with o the empty prompt's hidden states, as ComfyUI does.
    """
    del lengths
    return _move_away(hidden, weights, empty[:, : hidden.shape[1]])


def emphasize_multiply(hidden: Tensor, weights: Tensor, lengths: Tensor, empty: Tensor) -> Tensor:
    """Multiply each position by its weight: AUTOMATIC1111's "No norm"."""
    del lengths, empty
    return hidden * weights.unsqueeze(-1)


def emphasize_multiply_and_restore_mean(
    hidden: Tensor, weights: Tensor, lengths: Tensor, empty: Tensor
) -> Tensor:
    """Multiply, then scale each window so that its mean is as before.

    AUTOMATIC1111's "Original": the mean is over all positions and features of one encoder. It may
    be near zero, and the factor large or negative, as there. A mean of exactly zero can't be
    restored, and the window is only multiplied.
    """
    weighted = emphasize_multiply(hidden, weights, lengths, empty)
    positions = torch.arange(hidden.shape[1], device=hidden.device)
    is_real = (positions < lengths.unsqueeze(1)).unsqueeze(-1)  # [windows, tokens, 1]
    old, new = (
        states.where(is_real, 0.0).sum(dim=(1, 2), keepdim=True, dtype=torch.float64)
        for states in (hidden, weighted)
    )  # sums instead of means: both are over the same count; float64, as they nearly cancel out
    return weighted * torch.where((old == new) | (new == 0), 1.0, old / new).float()


def _move_away(hidden: Tensor, weights: Tensor, origin: Tensor) -> Tensor:
    factor = weights.unsqueeze(-1)  # [windows, tokens, 1]
    return torch.where(factor == 1.0, hidden, origin + (hidden - origin) * factor)


EMPHASES: Mapping[EmphasisName, Emphasis] = {
    EmphasisName.NONE: emphasize_not,
    EmphasisName.FROM_WINDOW_END: emphasize_from_window_end,
    EmphasisName.FROM_EMPTY_PROMPT: emphasize_from_empty_prompt,
    EmphasisName.MULTIPLY: emphasize_multiply,
    EmphasisName.MULTIPLY_AND_RESTORE_MEAN: emphasize_multiply_and_restore_mean,
}

READ_EMPTY_PROMPT = frozenset({EmphasisName.FROM_EMPTY_PROMPT})
"""The names of those that need the empty prompt's hidden states."""

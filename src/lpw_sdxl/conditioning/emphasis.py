"""How weights act on hidden states: pure functions of one signature, and a table of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from lpw_sdxl.prompt import PromptStyle


class Emphasis(Protocol):
    """How a style applies weights.

    Windows of one prompt are stacked and padded on the right to the longest; padding has weight
    1 and its values don't matter. All arithmetic is in float32, whatever the encoders' dtype:
    a weight of 1.3 is 1.3, and a large one doesn't overflow before the result is rounded.
    """

    def __call__(self, hidden: Tensor, weights: Tensor, lengths: Tensor) -> Tensor:
        """Return the weighted hidden states.

        Args:
            hidden: [windows, tokens, dim] float32.
            weights: [windows, tokens] float32.
            lengths: [windows] int64, positions of each window that are not padding.

        Returns:
            [windows, tokens, dim] float32.
        """


def emphasize_lpw(hidden: Tensor, weights: Tensor, lengths: Tensor) -> Tensor:
    """Move each position away from its window's last one (EOS), by its weight.

    e[j] = e[-1] + (e[j] - e[-1]) w[j], of lpw_stable_diffusion_xl (huggingface/diffusers,
    commit 58eb52c, get_weighted_text_embeddings_sdxl). Weight 1 leaves a position as it is, to
    the last bit.
    """
    rows = torch.arange(hidden.shape[0], device=hidden.device)
    last = hidden[rows, lengths - 1].unsqueeze(1)  # [windows, 1, dim]
    factor = weights.unsqueeze(-1)  # [windows, tokens, 1]
    return torch.where(factor == 1.0, hidden, last + (hidden - last) * factor)


EMPHASES: Mapping[PromptStyle, Emphasis] = {PromptStyle.LPW: emphasize_lpw}

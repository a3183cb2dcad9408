"""Encoded windows to Conditioning: emphasis, joining, the pooled choice; it runs no encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lpw_sdxl.conditioning.clip import EncodedWindow
from lpw_sdxl.conditioning.emphasis import EMPHASES
from lpw_sdxl.conditioning.plan import Plan, SidePlan, WindowKey
from lpw_sdxl.conditioning.windows import WINDOW_TOKENS

EncodedWindows = Mapping[WindowKey, EncodedWindow]
"""Windows that one encoder has encoded."""


@dataclass(frozen=True, slots=True)
class Conditioning:
    """The text as the UNet takes it; dtype and device are the encoders'.

    The tensors may be shared with other requests and with a cache, and must not be changed.

    Attributes:
        prompt_embeds: [tokens, 2048]; both encoders' features side by side.
        negative_prompt_embeds: [tokens, 2048]; in the lpw style as many tokens as the prompt.
        pooled_prompt_embeds: [1280], of the last encoder.
        negative_pooled_prompt_embeds: [1280].
    """

    prompt_embeds: Tensor
    negative_prompt_embeds: Tensor
    pooled_prompt_embeds: Tensor
    negative_pooled_prompt_embeds: Tensor

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Return all four, in the attributes' order."""
        return tuple(getattr(self, field.name) for field in fields(self))


def assemble(plan: Plan, encoded: Sequence[EncodedWindows]) -> Conditioning:
    """Assemble a pair's Conditioning; a text that is not there has no tokens.

    Args:
        plan: of the pair.
        encoded: for each encoder the windows that the plan names, and perhaps others.
    """
    sides = [
        None if side is None else _assemble_side(side, plan, encoded)
        for side in (plan.prompt, plan.negative_prompt)
    ]
    [model, *_] = [side for side in sides if side is not None]
    # Zeros are as long as an empty prompt: one full window.
    tokens = WINDOW_TOKENS + 2 if plan.has_zeros else 0
    prompt, negative = (side or _zeros_like(model, tokens) for side in sides)
    return Conditioning(prompt.embeds, negative.embeds, prompt.pooled, negative.pooled)


class _Side(NamedTuple):
    embeds: Tensor  # [tokens, 2048]
    pooled: Tensor  # [1280]


def _zeros_like(side: _Side, tokens: int) -> _Side:
    embeds = side.embeds.new_zeros((tokens, side.embeds.shape[-1]))
    return _Side(embeds, torch.zeros_like(side.pooled))


def _assemble_side(side: SidePlan, plan: Plan, encoded: Sequence[EncodedWindows]) -> _Side:
    features = [_embed(side, plan, index, windows) for index, windows in enumerate(encoded)]
    last = side.chunks[-1]
    pooled = encoded[-1][side.clip_skip, last.windows[last.pooled_window].packed_ids].pooled
    assert pooled is not None  # the last encoder has a projection
    return _Side(torch.cat(features, dim=-1), pooled)


def _embed(side: SidePlan, plan: Plan, encoder: int, encoded: EncodedWindows) -> Tensor:
    """Apply the weights to one encoder's windows and lay them end to end: [tokens, dim]."""
    windows = side.chunks[encoder].windows
    states = [encoded[side.clip_skip, window.packed_ids].hidden for window in windows]
    hidden = pad_sequence(states, batch_first=True).float()  # [windows, tokens, dim]
    weights = pad_sequence(
        [torch.tensor(window.weights) for window in windows], batch_first=True, padding_value=1.0
    )  # [windows, tokens] float32
    empty = hidden[:1, :0]
    if plan.empty_windows is not None:
        empty = encoded[side.clip_skip, plan.empty_windows[encoder]].hidden.float().unsqueeze(0)
    lengths = [window.length for window in windows]
    weighted = EMPHASES[plan.emphasis](
        hidden,
        weights.to(hidden.device),
        torch.tensor(lengths, device=hidden.device),
        empty,
    )
    kept = [window[:length] for window, length in zip(weighted, lengths, strict=True)]
    return torch.cat(kept).to(states[0].dtype)

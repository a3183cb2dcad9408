"""Prompts to Conditioning, by all text encoders together; it knows nothing of images or jobs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lpw_sdxl.conditioning.chunking import ChunkedPair, TokenChunks, chunk_pair
from lpw_sdxl.conditioning.clip import ClipTextEncoder, EncodedWindow
from lpw_sdxl.conditioning.emphasis import EMPHASES, Emphasis
from lpw_sdxl.conditioning.explain import PromptExplanation, explain
from lpw_sdxl.conditioning.loading import load_text_encoders
from lpw_sdxl.errors import InvalidRequestError, ModelError
from lpw_sdxl.prompt import DEFAULT_LIMITS, Prompt, PromptLimits, PromptStyle, parse


@dataclass(frozen=True, slots=True)
class PromptPair:
    """What is encoded together.

    Attributes:
        prompt: text, or what `parse` made of it.
        negative_prompt: likewise.
        style: a PromptStyle or its name.
        clip_skip: layers left out at the end, of both encoders, for both prompts; None is 0.
    """

    prompt: str | Prompt
    negative_prompt: str | Prompt = ""
    style: PromptStyle | str = PromptStyle.LPW
    clip_skip: int | None = None


@dataclass(frozen=True, slots=True)
class Conditioning:
    """What the UNet is given of the text; dtype and device are the encoders'.

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


class PromptEncoder:
    """The text encoders of one model. Not for two threads at a time: one thread owns the device."""

    def __init__(
        self, encoders: Sequence[ClipTextEncoder], limits: PromptLimits = DEFAULT_LIMITS
    ) -> None:
        """Take encoders in the UNet's order of features; the last one has a projection.

        Args:
            encoders: SDXL has two, with the same vocabulary.
            limits: for prompts that come as text.
        """
        self._encoders = tuple(encoders)
        self._limits = limits

    @classmethod
    def from_model_directory(
        cls,
        path: str | Path,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        limits: PromptLimits = DEFAULT_LIMITS,
    ) -> PromptEncoder:
        """Load `text_encoder*/` and `tokenizer*/` of a Diffusers directory, and nothing else.

        Raises:
            ModelError: a part is missing, unreadable, or lacks a tensor.
        """
        return cls(load_text_encoders(Path(path), device, dtype), limits)

    @property
    def weight_bytes(self) -> int:
        """Bytes of all text encoders' weights."""
        return sum(encoder.weight_bytes for encoder in self._encoders)

    @property
    def max_clip_skip(self) -> int:
        """The largest clip_skip that every encoder has layers for."""
        return min(encoder.max_clip_skip for encoder in self._encoders)

    def encode(
        self,
        prompt: str | Prompt,
        negative_prompt: str | Prompt = "",
        style: PromptStyle | str = PromptStyle.LPW,
        clip_skip: int | None = None,
    ) -> Conditioning:
        """Encode one prompt with its negative prompt.

        Raises:
            InvalidPromptError: a text breaks a limit.
            InvalidRequestError: the style is unknown or clip_skip out of range.
        """
        return self.encode_many([PromptPair(prompt, negative_prompt, style, clip_skip)])[0]

    @torch.inference_mode()
    def encode_many(self, pairs: Sequence[PromptPair]) -> list[Conditioning]:
        """Encode many pairs in few passes; a window that occurs twice is encoded once.

        Each result is that of `encode` alone, within rounding.

        Raises:
            InvalidPromptError: a text breaks a limit.
            InvalidRequestError: a style is unknown or a clip_skip out of range.
        """
        plans = [self._plan(pair) for pair in pairs]
        encoded = [
            _encode_windows(encoder, index, plans) for index, encoder in enumerate(self._encoders)
        ]
        return [_condition(plan, encoded) for plan in plans]

    def explain(
        self,
        prompt: str | Prompt,
        negative_prompt: str | Prompt = "",
        style: PromptStyle | str = PromptStyle.LPW,
    ) -> PromptExplanation:
        """Say how a pair of prompts is weighted and chunked; runs no encoder.

        Raises:
            InvalidPromptError: a text breaks a limit.
            InvalidRequestError: the style is unknown.
        """
        parsed = self._parse(prompt, negative_prompt)
        return explain(*parsed, PromptStyle.named(style), self._encoders[0].tokenizer)

    def chunk(
        self, prompt: Prompt, negative_prompt: Prompt, style: PromptStyle = PromptStyle.LPW
    ) -> ChunkedPair:
        """Chunk a pair of parsed prompts; runs no encoder, and may be called from any thread."""
        return chunk_pair(prompt, negative_prompt, style, self._encoders[0].tokenizer)

    def _plan(self, pair: PromptPair) -> _Plan:
        style = PromptStyle.named(pair.style)
        clip_skip = self._check_clip_skip(pair.clip_skip)
        parsed = self._parse(pair.prompt, pair.negative_prompt)
        chunked = [chunk_pair(*parsed, style, encoder.tokenizer) for encoder in self._encoders]
        if len({_shape(pair) for pair in chunked}) > 1:
            raise ModelError("the model's tokenizers split a prompt into different lengths")
        return _Plan(tuple(chunked), EMPHASES[style], clip_skip)

    def _parse(self, prompt: str | Prompt, negative_prompt: str | Prompt) -> tuple[Prompt, Prompt]:
        fields = {"prompt": prompt, "negative_prompt": negative_prompt}
        parsed, negative = (
            parse(text, self._limits, field=field) if isinstance(text, str) else text
            for field, text in fields.items()
        )
        return parsed, negative

    def _check_clip_skip(self, clip_skip: int | None) -> int:
        if clip_skip is None:
            return 0
        if not 0 <= clip_skip <= self.max_clip_skip:
            raise InvalidRequestError(
                f"clip_skip is {clip_skip}; this model takes 0 to {self.max_clip_skip}",
                field="clip_skip",
            )
        return clip_skip


@dataclass(frozen=True, slots=True)
class _Plan:
    chunked: tuple[ChunkedPair, ...]  # one for each encoder, of the same shape
    emphasis: Emphasis
    clip_skip: int


_WindowKey = tuple[int, tuple[int, ...]]  # clip_skip, ids
_Encoded = Mapping[_WindowKey, EncodedWindow]  # of one encoder


def _shape(pair: ChunkedPair) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(len(window.ids) for window in chunks.windows) for chunks in pair)


def _encode_windows(encoder: ClipTextEncoder, index: int, plans: Iterable[_Plan]) -> _Encoded:
    """Encode every distinct window of all plans with the encoder at this index."""
    wanted: dict[int, dict[tuple[int, ...], None]] = {}  # by clip_skip; the dict is a sorted set
    for plan in plans:
        for chunks in plan.chunked[index]:
            ids = (window.ids for window in chunks.windows)
            wanted.setdefault(plan.clip_skip, {}).update(dict.fromkeys(ids))
    return {
        (clip_skip, ids): window
        for clip_skip, distinct in wanted.items()
        for ids, window in zip(distinct, encoder.encode(list(distinct), clip_skip), strict=True)
    }


def _condition(plan: _Plan, encoded: Sequence[_Encoded]) -> Conditioning:
    prompts, negatives = zip(*plan.chunked, strict=True)
    return Conditioning(
        prompt_embeds=_embed(prompts, plan, encoded),
        negative_prompt_embeds=_embed(negatives, plan, encoded),
        pooled_prompt_embeds=_pool(prompts, plan, encoded),
        negative_pooled_prompt_embeds=_pool(negatives, plan, encoded),
    )


def _embed(chunks: Sequence[TokenChunks], plan: _Plan, encoded: Sequence[_Encoded]) -> Tensor:
    """Join the encoders' features, apply the weights, lay the windows end to end."""
    columns = zip(*(one.windows for one in chunks), strict=True)  # one window of each encoder
    joined = [
        torch.cat(
            [
                windows[plan.clip_skip, window.ids].hidden
                for windows, window in zip(encoded, column, strict=True)
            ],
            dim=-1,
        )
        for column in columns
    ]  # each [tokens, 2048]
    lengths = [len(hidden) for hidden in joined]
    hidden = pad_sequence(joined, batch_first=True).float()  # [windows, tokens, 2048]
    weights = pad_sequence(
        [torch.tensor(window.weights) for window in chunks[0].windows],
        batch_first=True,
        padding_value=1.0,
    )  # [windows, tokens] float32
    weighted = plan.emphasis(
        hidden, weights.to(hidden.device), torch.tensor(lengths, device=hidden.device)
    )
    kept = [window[:length] for window, length in zip(weighted, lengths, strict=True)]
    return torch.cat(kept).to(joined[0].dtype)  # [77n, 2048]


def _pool(chunks: Sequence[TokenChunks], plan: _Plan, encoded: Sequence[_Encoded]) -> Tensor:
    last = chunks[-1]
    pooled = encoded[-1][plan.clip_skip, last.windows[last.pooled_window].ids].pooled
    assert pooled is not None  # the last encoder has a projection
    return pooled

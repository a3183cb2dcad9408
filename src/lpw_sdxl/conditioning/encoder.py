"""Prompts to Conditioning, by all text encoders together; it knows nothing of images or jobs."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from lpw_sdxl.conditioning.assembly import Conditioning, assemble
from lpw_sdxl.conditioning.cache import CacheCounters
from lpw_sdxl.conditioning.clip import ClipTextEncoder
from lpw_sdxl.conditioning.conditioning_cache import ConditioningCache, ConditioningKey
from lpw_sdxl.conditioning.embedding_ids import EmbeddingIds
from lpw_sdxl.conditioning.embedding_tokenizer import EmbeddingTokenizer
from lpw_sdxl.conditioning.embeddings import Embedding, check_embedding
from lpw_sdxl.conditioning.loading import load_text_encoders
from lpw_sdxl.conditioning.mentions import MentionForm
from lpw_sdxl.conditioning.plan import Plan, make_plan
from lpw_sdxl.conditioning.prompt_reader import PromptReader
from lpw_sdxl.conditioning.read_prompts import ReadPrompts
from lpw_sdxl.conditioning.window_encoder import WindowEncoder
from lpw_sdxl.prompt import DEFAULT_LIMITS, Prompt, PromptLimits, PromptStyle

DEFAULT_CACHE_BYTES = 256 * 1024**2


class EncoderCounters(NamedTuple):
    """The counters of a PromptEncoder's caches."""

    conditionings: CacheCounters
    windows: CacheCounters


class PromptEncoder:
    """The text encoders of one model. Not for two threads at a time: one thread owns the device.

    It caches what it encoded lately, on the encoders' device: whole pairs, so that a repeated
    request is not encoded again, and single windows, so that a negative prompt that many requests
    share is encoded once.

    Attributes:
        reader: reads prompts for these encoders, with the embeddings of the start; for any thread.
    """

    def __init__(
        self,
        encoders: Sequence[ClipTextEncoder],
        limits: PromptLimits = DEFAULT_LIMITS,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
    ) -> None:
        """Take encoders in the UNet's order of features; the last one has a projection.

        Args:
            encoders: SDXL has two, with the same vocabulary.
            limits: for prompts that come as text.
            cache_bytes: bound of both caches together; 0 for none.
        """
        self._encoders = tuple(encoders)
        tokenizers = tuple(encoder.tokenizer for encoder in self._encoders)
        self.reader = self._plain_reader = PromptReader(
            dict.fromkeys(MentionForm, tokenizers),
            min(encoder.max_clip_skip for encoder in self._encoders),
            limits,
        )
        self._embedding_ids = EmbeddingIds(max(len(one.token_table) for one in self._encoders))
        half = cache_bytes // 2
        self._conditionings = ConditioningCache(half)
        self._windows = WindowEncoder(self._encoders, cache_bytes - half, self._embedding_ids)
        self._specials = [tokenizer.special for tokenizer in tokenizers]

    @classmethod
    def from_model_directory(
        cls,
        path: str | Path,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        limits: PromptLimits = DEFAULT_LIMITS,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        *,
        embeddings: Sequence[Embedding] = (),
    ) -> PromptEncoder:
        """Load `text_encoder*/` and `tokenizer*/` of a Diffusers directory, and nothing else.

        Raises:
            ModelError: a part is missing, unreadable, or lacks a tensor; an embedding doesn't fit.
        """
        encoder = cls(load_text_encoders(Path(path), device, dtype), limits, cache_bytes)
        for embedding in embeddings:
            encoder.check(embedding)
        encoder.reader = encoder.reader_of(embeddings)
        return encoder

    def check(self, embedding: Embedding) -> None:
        """Refuse an embedding that doesn't fit these encoders.

        Raises:
            ModelError: as `check_embedding` says.
        """
        check_embedding(embedding, [encoder.token_table for encoder in self._encoders])

    def reader_of(self, embeddings: Sequence[Embedding]) -> PromptReader:
        """Return a reader of prompts that name these embeddings; for any thread, at any time.

        Args:
            embeddings: checked, with names that differ by more than their case.
        """
        if not embeddings:
            return self._plain_reader
        ids = self._embedding_ids.number(embeddings)
        tokenizers = {
            form: [EmbeddingTokenizer(one.tokenizer, ids, form) for one in self._encoders]
            for form in MentionForm
        }
        by_name = {one.name: one for one in embeddings}
        return replace(self._plain_reader, tokenizers=tokenizers, embeddings=by_name)

    @property
    def models(self) -> tuple[torch.nn.Module, ...]:
        """Return the text models, in the UNet's order of features."""
        return tuple(encoder.model for encoder in self._encoders)

    @property
    def weight_bytes(self) -> int:
        """Count the bytes of all text encoders' weights."""
        return sum(encoder.weight_bytes for encoder in self._encoders)

    @property
    def counters(self) -> EncoderCounters:
        """Return both caches' counters."""
        return EncoderCounters(self._conditionings.counters, self._windows.counters)

    def encode(
        self,
        prompt: str | Prompt,
        negative_prompt: str | Prompt = "",
        style: PromptStyle | str = PromptStyle.LPW,
        clip_skip: int | None = None,
        *,
        weights_key: Hashable = (),
    ) -> Conditioning:
        """Encode one prompt with its negative prompt.

        Args:
            prompt: text, or the result of `parse` in this style.
            negative_prompt: likewise.
            style: a PromptStyle or its name.
            clip_skip: layers left out at the end; None is 0.
            weights_key: a name of the weights that the encoders hold now, such as a set of LoRAs;
                a Conditioning that was cached under another name is not found.

        Raises:
            InvalidPromptError: a text breaks a limit.
            InvalidRequestError: the style is unknown or clip_skip is out of range.
        """
        prompts = self.reader.read(prompt, negative_prompt, style, clip_skip)
        return self.encode_many([prompts], weights_key=weights_key)[0]

    @torch.inference_mode()
    def encode_many(
        self,
        pairs: Sequence[ReadPrompts],
        *,
        weights_key: Hashable = (),
        prepare: Callable[[], None] | None = None,
    ) -> list[Conditioning]:
        """Encode many pairs in few passes; a window that occurs twice is encoded once.

        Each result is that of `encode` alone, within rounding. A pair that was encoded lately has
        the same result, bit for bit; the tensors of a result must not be changed.

        Args:
            pairs: read by `reader`, or by one with other limits.
            weights_key: a name of the weights that the encoders hold; see `encode`.
            prepare: loads these weights into the encoders; called once before an encoder runs, if
                one has to.
        """
        keys = [ConditioningKey(pair, weights_key) for pair in pairs]
        results: dict[ConditioningKey, Conditioning] = {}
        plans: dict[ConditioningKey, Plan] = {}
        for key in dict.fromkeys(keys):
            known = self._conditionings.get(key)
            if known is None:
                plans[key] = make_plan(key.prompts, self._specials)
            else:
                results[key] = known
        if plans and prepare is not None:
            prepare()
        encoded = self._windows.encode([*plans.values()], weights_key)
        for key, plan in plans.items():
            results[key] = assemble(plan, encoded)
            self._conditionings.put(key, results[key])
        return [results[key] for key in keys]

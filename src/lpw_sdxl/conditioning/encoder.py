"""Prompts to Conditioning, by all text encoders together; it knows nothing of images or jobs."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import chain, repeat
from pathlib import Path
from typing import NamedTuple

import torch

from lpw_sdxl.conditioning.assembly import Conditioning, Plan, SidePlan, assemble
from lpw_sdxl.conditioning.cache import ByteCache, CacheCounters
from lpw_sdxl.conditioning.chunking import ChunkedPair, chunk_for_encoders, empty_window
from lpw_sdxl.conditioning.clip import ClipTextEncoder
from lpw_sdxl.conditioning.cutting import texts
from lpw_sdxl.conditioning.embedding_tokenizer import EmbeddingTokenizer
from lpw_sdxl.conditioning.embeddings import Embedding, check_embeddings
from lpw_sdxl.conditioning.emphasis import READ_EMPTY_PROMPT
from lpw_sdxl.conditioning.explain import ExplainingTokenizer, PromptExplanation, explain
from lpw_sdxl.conditioning.loading import load_text_encoders
from lpw_sdxl.conditioning.mentions import MentionForm
from lpw_sdxl.conditioning.pair import PairKey, PromptPair, is_empty
from lpw_sdxl.conditioning.reading import WindowReader, count_bytes
from lpw_sdxl.conditioning.styles import STYLES
from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.prompt import DEFAULT_LIMITS, Prompt, PromptLimits, PromptStyle, parse

DEFAULT_CACHE_BYTES = 256 * 1024**2


class EncoderCounters(NamedTuple):
    """What the caches of a PromptEncoder have done."""

    conditionings: CacheCounters
    windows: CacheCounters


class PromptEncoder:
    """The text encoders of one model. Not for two threads at a time: one thread owns the device.

    It remembers what it encoded lately, on the encoders' device: whole pairs, so that a repeated
    request is not even parsed, and single windows, so that a negative prompt that many requests
    share is read once.
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
        self._tokenizers: Mapping[MentionForm, Sequence[ExplainingTokenizer]] = dict.fromkeys(
            MentionForm, tuple(encoder.tokenizer for encoder in self._encoders)
        )
        self._embedding_names: Mapping[int, str] = {}  # by token id
        self._limits = limits
        half = cache_bytes // 2
        self._conditionings: ByteCache[PairKey, Conditioning] = ByteCache(half)
        self._reader = WindowReader(self._encoders, cache_bytes - half)

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
        encoder.add_embeddings(embeddings)
        return encoder

    def add_embeddings(self, embeddings: Sequence[Embedding]) -> None:
        """Teach the encoders names; to be called once, before anything is encoded.

        Raises:
            ModelError: an embedding doesn't fit these encoders, or shares its name with another.
        """
        assert not self._conditionings.counters.misses, "what was encoded knows no embeddings"
        tables = [encoder.token_table for encoder in self._encoders]
        check_embeddings(embeddings, tables)
        if not embeddings:
            return
        for index, encoder in enumerate(self._encoders):
            encoder.add_token_rows(torch.cat([one.vectors[index] for one in embeddings]))
        counts = {one.name: one.vector_count for one in embeddings}
        names = chain.from_iterable(repeat(one.name, one.vector_count) for one in embeddings)
        self._embedding_names = dict(enumerate(names, start=len(tables[0])))
        self._tokenizers = {
            form: [
                EmbeddingTokenizer(encoder.tokenizer, counts, len(table), form)
                for encoder, table in zip(self._encoders, tables, strict=True)
            ]
            for form in MentionForm
        }

    @property
    def models(self) -> tuple[torch.nn.Module, ...]:
        """The text models, in the UNet's order of features."""
        return tuple(encoder.model for encoder in self._encoders)

    @property
    def weight_bytes(self) -> int:
        """Bytes of all text encoders' weights."""
        return sum(encoder.weight_bytes for encoder in self._encoders)

    @property
    def max_clip_skip(self) -> int:
        """The largest clip_skip that every encoder has layers for."""
        return min(encoder.max_clip_skip for encoder in self._encoders)

    @property
    def counters(self) -> EncoderCounters:
        """What the caches have done."""
        return EncoderCounters(self._conditionings.counters, self._reader.counters)

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
            prompt: text, or what `parse` made of it in this style.
            negative_prompt: likewise.
            style: a PromptStyle or its name.
            clip_skip: layers left out at the end; None is 0.
            weights_key: names the weights that the encoders hold now, such as a set of LoRAs;
                what was encoded under another name is not found again.

        Raises:
            InvalidPromptError: a text breaks a limit.
            InvalidRequestError: the style is unknown or clip_skip out of range.
        """
        pair = PromptPair(prompt, negative_prompt, style, clip_skip)
        return self.encode_many([pair], weights_key=weights_key)[0]

    @torch.inference_mode()
    def encode_many(
        self,
        pairs: Sequence[PromptPair],
        *,
        weights_key: Hashable = (),
        prepare: Callable[[], None] | None = None,
    ) -> list[Conditioning]:
        """Encode many pairs in few passes; a window that occurs twice is encoded once.

        Each result is that of `encode` alone, within rounding. What was encoded lately is given
        back as it was, bit for bit; nobody may change a result's tensors.

        Args:
            pairs: what is encoded.
            weights_key: names the weights that the encoders hold; see `encode`.
            prepare: called before an encoder runs, if one has to: gives the encoders these weights.

        Raises:
            InvalidPromptError: a text breaks a limit.
            InvalidRequestError: a style is unknown or a clip_skip out of range.
        """
        keys = [self._key(pair, weights_key) for pair in pairs]
        results: dict[PairKey, Conditioning] = {}
        plans: dict[PairKey, Plan] = {}
        for key in dict.fromkeys(keys):
            known = self._conditionings.get(key)
            if known is None:
                plans[key] = self._plan(key)
            else:
                results[key] = known
        if plans and prepare is not None:
            prepare()
        encoded = self._reader.read([*plans.values()], weights_key)
        for key, plan in plans.items():
            results[key] = assemble(plan, encoded)
            self._conditionings.put(key, results[key], key.size + count_bytes(results[key].tensors))
        return [results[key] for key in keys]

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
        style = PromptStyle.named(style)
        parsed = self._parse(prompt, negative_prompt, style)
        return explain(*parsed, style, self._tokenizers[STYLES[style].mentions])

    def chunk(
        self, prompt: Prompt, negative_prompt: Prompt, style: PromptStyle = PromptStyle.LPW
    ) -> ChunkedPair:
        """Chunk a pair of parsed prompts for the first encoder; the others' windows are as long.

        Runs no encoder, and may be called from any thread.
        """
        tokenizers = self._tokenizers[STYLES[style].mentions]
        return chunk_for_encoders(prompt, negative_prompt, style, tokenizers)[0]

    def count_vectors(self, prompt: Prompt, style: PromptStyle) -> int:
        """Count the tokens that embeddings take of a parsed prompt, at the cost of reading it.

        A name of three letters may be 75 tokens: chunking a prompt of nothing else makes a hundred
        times as many as any other text of its length has.
        """
        tokenizer = self._tokenizers[STYLES[style].mentions][0]
        if not isinstance(tokenizer, EmbeddingTokenizer):
            return 0
        return sum(map(tokenizer.vector_count, texts(prompt)))

    def named_embeddings(self, chunked: ChunkedPair) -> tuple[str, ...]:
        """Name the embeddings in what `chunk` gave, each once, sorted."""
        ids = (id_ for chunks in chunked for window in chunks.windows for id_ in window.ids)
        return tuple(sorted({self._embedding_names[i] for i in ids if i in self._embedding_names}))

    def _key(self, pair: PromptPair, weights_key: Hashable) -> PairKey:
        return PairKey(
            PromptStyle.named(pair.style),
            self._check_clip_skip(pair.clip_skip),
            pair.prompt,
            pair.negative_prompt,
            is_empty(pair.negative_prompt),
            weights_key,
        )

    def _plan(self, key: PairKey) -> Plan:
        rules = STYLES[key.style]
        parsed = self._parse(key.prompt, key.negative_prompt, key.style)
        chunked = chunk_for_encoders(*parsed, key.style, self._tokenizers[rules.mentions])
        prompts, negatives = zip(*chunked, strict=True)
        is_zeros = rules.has_zeros_for_empty_negative and key.has_empty_negative
        negative_skip = key.clip_skip if rules.skips_layers_for_negative else 0
        return Plan(
            prompt=SidePlan(prompts, key.clip_skip),
            negative_prompt=None if is_zeros else SidePlan(negatives, negative_skip),
            emphasis=rules.emphasis,
            empty_windows=tuple(
                empty_window(key.style, encoder.tokenizer.special) for encoder in self._encoders
            )
            if rules.emphasis in READ_EMPTY_PROMPT
            else None,
        )

    def _parse(
        self, prompt: str | Prompt, negative_prompt: str | Prompt, style: PromptStyle
    ) -> tuple[Prompt, Prompt]:
        fields = {"prompt": prompt, "negative_prompt": negative_prompt}
        parsed, negative = (
            parse(text, self._limits, style=style, field=field) if isinstance(text, str) else text
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

"""Texts to prompts as the text encoders read them, with one model's tokenizers; no tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from lpw_sdxl.conditioning.chunking import ChunkedPair, chunk_for_encoders
from lpw_sdxl.conditioning.cutting import texts
from lpw_sdxl.conditioning.explain import PromptExplanation, explain
from lpw_sdxl.conditioning.mentions import MentionForm
from lpw_sdxl.conditioning.prompt_tokenizer import PromptTokenizer
from lpw_sdxl.conditioning.read_prompts import NamedEmbedding, ReadPrompts, ReadText
from lpw_sdxl.conditioning.styles import STYLES
from lpw_sdxl.conditioning.windows import WINDOW_TOKENS
from lpw_sdxl.errors import InvalidPromptError, InvalidRequestError
from lpw_sdxl.prompt import DEFAULT_LIMITS, Prompt, PromptLimits, PromptStyle, parse


class ParsedPrompts(NamedTuple):
    """A parsed prompt and negative prompt; the names are the request's fields."""

    prompt: Prompt
    negative_prompt: Prompt


@dataclass(frozen=True)
class PromptReader:
    """The parsing and chunking of prompts for one model; for any number of threads at a time.

    Attributes:
        tokenizers: one for each text encoder, by the form in which styles name embeddings.
        max_clip_skip: the largest clip_skip that every encoder has layers for.
        limits: of each text.
        max_chunks: of each text, padding to the other text's length not counted; None for any
            number.
        embeddings: that prompts may name, by name; the tokenizers know their ids.
    """

    tokenizers: Mapping[MentionForm, Sequence[PromptTokenizer]]
    max_clip_skip: int
    limits: PromptLimits = DEFAULT_LIMITS
    max_chunks: int | None = None
    embeddings: Mapping[str, NamedEmbedding] = dataclasses.field(default_factory=dict)

    def parse(
        self, prompt: str | Prompt, negative_prompt: str | Prompt, style: PromptStyle
    ) -> ParsedPrompts:
        """Parse both texts; a prompt that is parsed already stays as it is.

        Raises:
            InvalidPromptError: a text breaks a limit; the error names its field.
        """
        fields = zip(ParsedPrompts._fields, (prompt, negative_prompt), strict=True)
        return ParsedPrompts(
            *(
                parse(text, self.limits, style=style, field=field)
                if isinstance(text, str)
                else text
                for field, text in fields
            )
        )

    def read(
        self,
        prompt: str | Prompt,
        negative_prompt: str | Prompt = "",
        style: PromptStyle | str = PromptStyle.LPW,
        clip_skip: int | None = None,
    ) -> ReadPrompts:
        """Parse and chunk a prompt with its negative prompt.

        Args:
            prompt: text, or the result of `parse` in this style.
            negative_prompt: likewise.
            style: a PromptStyle or its name.
            clip_skip: layers left out at the end; None is 0.

        Raises:
            InvalidPromptError: a text breaks a limit, holds a refused tag, or fills more than
                `max_chunks`.
            InvalidRequestError: the style is unknown or clip_skip is out of range.
        """
        style = PromptStyle.named(style)
        clip_skip = self._check_clip_skip(clip_skip)
        parsed = self.parse(prompt, negative_prompt, style)
        for field, one in parsed._asdict().items():
            for tag in one.refused_tags:
                raise InvalidPromptError(tag.reason, field=field)
        return self._read(parsed, style, clip_skip)

    def explain(
        self,
        prompt: str | Prompt,
        negative_prompt: str | Prompt = "",
        style: PromptStyle | str = PromptStyle.LPW,
    ) -> PromptExplanation:
        """Describe how a pair of prompts is weighted and chunked.

        Args:
            prompt: text, or the result of `parse` in this style.
            negative_prompt: likewise.
            style: a PromptStyle or its name.

        Raises:
            InvalidPromptError: a text breaks a limit, or fills more than `max_chunks`.
            InvalidRequestError: the style is unknown.
        """
        style = PromptStyle.named(style)
        parsed = self.parse(prompt, negative_prompt, style)
        return explain(*parsed, self._read(parsed, style, 0), self._tokenizers(style)[0])

    def _read(self, parsed: ParsedPrompts, style: PromptStyle, clip_skip: int) -> ReadPrompts:
        chunked = self._chunk(parsed, style)
        positive, negative = (
            ReadText(chunks, is_empty=not (one.text or one.nodes))
            for one, chunks in zip(parsed, zip(*chunked, strict=True), strict=True)
        )
        embeddings = self._find_embeddings(chunked[0], style)
        return ReadPrompts(positive, negative, style, clip_skip, embeddings)

    def _tokenizers(self, style: PromptStyle) -> Sequence[PromptTokenizer]:
        return self.tokenizers[STYLES[style].mentions]

    def _check_clip_skip(self, clip_skip: int | None) -> int:
        if clip_skip is None:
            return 0
        if not 0 <= clip_skip <= self.max_clip_skip:
            raise InvalidRequestError(
                f"clip_skip is {clip_skip}; this model takes 0 to {self.max_clip_skip}",
                field="clip_skip",
            )
        return clip_skip

    def _chunk(self, parsed: ParsedPrompts, style: PromptStyle) -> tuple[ChunkedPair, ...]:
        """Chunk both prompts for each encoder; refuse one of too many chunks, by its field."""
        tokenizers = self._tokenizers(style)
        if self.max_chunks is None:
            return chunk_for_encoders(*parsed, style, tokenizers)
        for field, prompt in parsed._asdict().items():
            # A name of three letters may be 75 tokens: chunking a prompt of nothing else makes a
            # hundred times as many as any other text of its length, so it is refused before.
            vectors = sum(map(tokenizers[0].vector_count, texts(prompt)))
            _check_chunks(field, -(-vectors // WINDOW_TOKENS), self.max_chunks)
        chunked = chunk_for_encoders(*parsed, style, tokenizers)
        for field, chunks in chunked[0]._asdict().items():
            _check_chunks(field, chunks.own_windows, self.max_chunks)
        return chunked

    def _find_embeddings(
        self, chunked: ChunkedPair, style: PromptStyle
    ) -> tuple[NamedEmbedding, ...]:
        """Find the embeddings in both prompts, each once, by name."""
        names = self._tokenizers(style)[0].embedding_names
        if not names:
            return ()
        ids = {id_ for chunks in chunked for window in chunks.windows for id_ in window.text_ids}
        found = sorted({names[id_] for id_ in ids & names.keys()})
        return tuple(self.embeddings[name] for name in found)


def _check_chunks(field: str, count: int, limit: int) -> None:
    """Refuse a prompt of so many chunks, or more, if they are too many."""
    if count > limit:
        raise InvalidPromptError(
            f"{field} fills {count} chunks of 75 tokens; at most {limit} are accepted here",
            field=field,
        )

"""Texts to prompts as the text encoders read them, with one model's tokenizers; no tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import NamedTuple

from lpw_sdxl.conditioning.chunking import ChunkedPair, chunk_for_encoders
from lpw_sdxl.conditioning.cutting import texts
from lpw_sdxl.conditioning.explain import PromptExplanation, explain
from lpw_sdxl.conditioning.mentions import MentionForm
from lpw_sdxl.conditioning.prompt_tokenizer import PromptTokenizer
from lpw_sdxl.conditioning.read_prompts import NamedEmbedding, ReadPrompts, ReadText
from lpw_sdxl.conditioning.read_schedule import ReadSchedule, join_stages
from lpw_sdxl.conditioning.styles import STYLES
from lpw_sdxl.conditioning.windows import WINDOW_TOKENS
from lpw_sdxl.errors import InvalidPromptError, InvalidRequestError
from lpw_sdxl.prompt import (
    DEFAULT_LIMITS,
    Prompt,
    PromptField,
    PromptLimits,
    PromptSchedule,
    PromptStyle,
    Steps,
    parse,
    parse_schedule,
)


class ParsedPrompts(NamedTuple):
    """A parsed prompt and negative prompt; the names are the request's fields."""

    prompt: Prompt
    negative_prompt: Prompt


class ParsedSchedules(NamedTuple):
    """A prompt and a negative prompt over the calls of one image; named as the fields."""

    prompt: PromptSchedule
    negative_prompt: PromptSchedule


CHUNKS_SHARE = 4  # all texts of a prompt may have so many times the chunks that one may have
_EMPTY = Prompt("", ())


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

    def parse_schedules(
        self, prompt: str, negative_prompt: str, style: PromptStyle, steps: Steps
    ) -> ParsedSchedules:
        """Parse both texts for the calls of one image.

        Raises:
            InvalidPromptError: a text breaks a limit; the error names its field.
        """
        return ParsedSchedules(
            *(
                parse_schedule(text, steps, self.limits, style=style, field=field)
                for field, text in zip(PromptField, (prompt, negative_prompt), strict=True)
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

    def read_schedule(
        self, schedules: ParsedSchedules, style: PromptStyle, clip_skip: int | None = None
    ) -> ReadSchedule:
        """Chunk all texts of a prompt and its negative prompt, each once.

        Args:
            schedules: of both, parsed in this style.
            style: of both.
            clip_skip: layers left out at the end; None is 0.

        Raises:
            InvalidPromptError: there is a refused tag, or a text fills more than `max_chunks`.
            InvalidRequestError: clip_skip is out of range.
        """
        for field, one in schedules._asdict().items():
            for tag in one.refused_tags:
                raise InvalidPromptError(tag.reason, field=field)
        prompts, negatives = (one.variants for one in schedules)
        pairs: tuple[ReadPrompts, ...]
        if len(prompts) == len(negatives) == 1:  # a style may fit one to the other
            pair = self.read(prompts[0].prompt, negatives[0].prompt, style, clip_skip)
            pairs = (pair,)
        else:
            clip_skip = self._check_clip_skip(clip_skip)
            pairs = tuple(self._read_pairs(schedules, style, clip_skip))
            for field in ParsedSchedules._fields:
                sides = [getattr(pair, field) for pair in pairs]
                self.check_all_chunks(field, [one.chunk_count for one in sides if one is not None])
        return ReadSchedule(pairs, tuple(join_stages(*schedules)))

    def check_all_chunks(self, field: str, counts: Sequence[int]) -> None:
        """Refuse texts that together have too many chunks: they are encoded in one turn.

        Args:
            field: of the texts.
            counts: chunks of each text.

        Raises:
            InvalidPromptError: they have.
        """
        if self.max_chunks is None:
            return
        count, limit = sum(counts), CHUNKS_SHARE * self.max_chunks
        if count > limit:
            raise InvalidPromptError(
                f"over its steps {field} becomes texts of {count} chunks of 75 tokens together;"
                f" at most {limit} are accepted here, with a shorter text or fewer [a|b] and"
                " [a:b:when]",
                field=field,
            )

    def _read_apart(
        self, prompt: Prompt | None, negative: Prompt | None, style: PromptStyle, clip_skip: int
    ) -> ReadPrompts:
        """Read two texts of which one may be missing, in a style that does not fit them."""
        parsed = ParsedPrompts(prompt or _EMPTY, negative or _EMPTY)
        read = self._read(parsed, style, clip_skip)
        return dataclasses.replace(
            read,
            prompt=None if prompt is None else read.prompt,
            negative_prompt=None if negative is None else read.negative_prompt,
        )

    def _read_pairs(
        self, schedules: ParsedSchedules, style: PromptStyle, clip_skip: int
    ) -> Iterator[ReadPrompts]:
        """Yield each text of two prompts once; a style that has several does not fit them."""
        prompts, negatives = (one.variants for one in schedules)
        for one, other in zip_longest(prompts, negatives):
            prompt = None if one is None else one.prompt
            negative = None if other is None else other.prompt
            pair = self._read_apart(prompt, negative, style, clip_skip)
            if pair.negative_prompt is not None and len(negatives) > 1:
                # A1111 takes zeros for a negative prompt only if it is empty at all steps.
                written = dataclasses.replace(pair.negative_prompt, is_empty=False)
                pair = dataclasses.replace(pair, negative_prompt=written)
            yield pair

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

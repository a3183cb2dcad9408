"""A prompt's reading in words and numbers; it needs a tokenizer and no encoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from lpw_sdxl.conditioning.chunking import TokenChunks
from lpw_sdxl.conditioning.cutting import texts
from lpw_sdxl.conditioning.mentions import EMBEDDING_PREFIX
from lpw_sdxl.conditioning.prompt_tokenizer import PromptTokenizer
from lpw_sdxl.conditioning.read_prompts import ReadPrompts, ReadText
from lpw_sdxl.prompt import (
    Break,
    LoraTag,
    Prompt,
    PromptStyle,
    PromptWarning,
    Span,
    WarningKind,
)


@dataclass(frozen=True, slots=True)
class ExplainedWindow:
    """One chunk, as the first text encoder reads it.

    Attributes:
        token_count: tokens of the prompt's text.
        length: positions that the encoder reads, BOS, EOS and padding included.
        text: the tokens' text, as the encoder reads it; without padding.
        is_pooled: whether the pooled vector is taken from it.
        start: where its text begins in the prompt, characters; for a window without text, where
            the window before it ends.
        end: one past its text's last character. A character of several tokens may be in two
            windows.
    """

    token_count: int
    length: int
    text: str
    is_pooled: bool
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class EmbeddingMention:
    """An embedding's name in a prompt, positions in characters."""

    name: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class ExplainedPrompt:
    """One prompt: its parsed text and its chunks.

    Attributes:
        spans: weighted text, with positions in characters.
        breaks: the places of BREAK.
        lora_tags: in the order of the text.
        embeddings: as often as they are named, in the order of the text.
        token_count: tokens of the text, in all windows, for the first text encoder.
        token_counts: the same for each text encoder.
        windows: at least one.
        warnings: why no image is made of it, if none is; then a sentence for each kind of text
            that was probably not meant.
    """

    spans: tuple[Span, ...]
    breaks: tuple[Break, ...]
    lora_tags: tuple[LoraTag, ...]
    embeddings: tuple[EmbeddingMention, ...]
    token_count: int
    token_counts: tuple[int, ...]
    windows: tuple[ExplainedWindow, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PromptExplanation:
    """A prompt and its negative prompt in one style."""

    style: PromptStyle
    prompt: ExplainedPrompt
    negative_prompt: ExplainedPrompt


def explain(
    prompt: Prompt, negative_prompt: Prompt, read: ReadPrompts, tokenizer: PromptTokenizer
) -> PromptExplanation:
    """Describe how a pair of prompts is weighted and chunked.

    Args:
        prompt: parsed.
        negative_prompt: likewise.
        read: the reading of both.
        tokenizer: the first text encoder's, with which they were read.
    """
    assert read.prompt is not None
    assert read.negative_prompt is not None
    return PromptExplanation(
        read.style,
        _explain_one(prompt, read.prompt, tokenizer),
        _explain_one(negative_prompt, read.negative_prompt, tokenizer),
    )


def _explain_one(prompt: Prompt, read: ReadText, tokenizer: PromptTokenizer) -> ExplainedPrompt:
    first = read.chunks[0]
    tokens = list(_place(prompt, tokenizer))
    assert [token.id for token in tokens] == _text_ids(first)
    warnings = (
        *prompt.warnings,
        *_find_unknown_embeddings(prompt, tokens),
        *_find_split_words(tokens, first),
    )
    return ExplainedPrompt(
        spans=prompt.spans,
        breaks=prompt.breaks,
        lora_tags=prompt.lora_tags,
        embeddings=tuple(_find_mentions(tokens)),
        token_count=first.token_count,
        token_counts=tuple(one.token_count for one in read.chunks),
        windows=tuple(_explain_windows(tokens, first, tokenizer)),
        warnings=(*_find_obstacles(prompt), *map(str, warnings)),
    )


def state_obstacle(reason: str, count: int = 1) -> str:
    """Write why no image is made of a prompt, as a warning.

    Args:
        reason: the message of the refusal.
        count: of refused places; the reason is the first one's.
    """
    others = f" ({count - 1} more of its tags can't be used)" if count > 1 else ""
    return f"no image is made of it: {reason}{others}"


def _find_obstacles(prompt: Prompt) -> Iterator[str]:
    if refused := prompt.refused_tags:
        yield state_obstacle(refused[0].reason, len(refused))


class _PlacedToken(NamedTuple):
    """A token of the prompt and its place in the source, characters."""

    id: int
    start: int
    end: int
    word_start: int | None  # of the word that it goes on with; None if it begins one
    embedding: str | None


def _place(prompt: Prompt, tokenizer: PromptTokenizer) -> Iterator[_PlacedToken]:
    extents = prompt.extents()
    offset = word_start = 0
    for text in texts(prompt):
        for piece in tokenizer.pieces(text):
            start = extents[offset + piece.start][0]
            end = extents[offset + piece.end - 1][1]
            word_start = start if piece.starts_word else word_start
            yield _PlacedToken(
                piece.id, start, end, None if piece.starts_word else word_start, piece.embedding
            )
        offset += len(text)


def _text_ids(chunks: TokenChunks) -> list[int]:
    return [id_ for window in chunks.windows for id_ in window.text_ids]


def _find_mentions(tokens: Sequence[_PlacedToken]) -> Iterator[EmbeddingMention]:
    for token in tokens:
        if token.embedding is not None and token.word_start is None:
            yield EmbeddingMention(token.embedding, token.start, token.end)


def _find_unknown_embeddings(
    prompt: Prompt, tokens: Sequence[_PlacedToken]
) -> Iterator[PromptWarning]:
    """Find `embedding:` where no known embedding's name follows."""
    known = {mention.start for mention in _find_mentions(tokens)}
    extents = prompt.extents()
    text = "".join(span.text for span in prompt.spans)
    places = (extents[match.start()][0] for match in EMBEDDING_PREFIX.finditer(text))
    if unknown := [place for place in places if place not in known]:
        yield PromptWarning(WarningKind.UNKNOWN_EMBEDDING, unknown[0], len(unknown))


def _find_split_words(
    tokens: Sequence[_PlacedToken], chunks: TokenChunks
) -> Iterator[PromptWarning]:
    borders = list(accumulate(window.text_count for window in chunks.windows))
    # A window without text begins with the same token as the next, or with none.
    first_tokens = (tokens[index] for index in sorted(set(borders)) if index < len(tokens))
    if split := [token.word_start for token in first_tokens if token.word_start is not None]:
        # A word of more than 75 tokens is split more than once, and is one word.
        yield PromptWarning(WarningKind.SPLIT_WORD, split[0], len(set(split)))


def _explain_windows(
    tokens: Sequence[_PlacedToken], chunks: TokenChunks, tokenizer: PromptTokenizer
) -> Iterator[ExplainedWindow]:
    first = end = 0
    for index, window in enumerate(chunks.windows):
        inside = tokens[first : first + window.text_count]
        first += window.text_count
        start = inside[0].start if inside else end
        end = inside[-1].end if inside else end
        yield ExplainedWindow(
            token_count=window.text_count,
            length=window.length,
            text=tokenizer.text([token.id for token in inside]),
            is_pooled=index == chunks.pooled_window,
            start=start,
            end=end,
        )

"""A prompt's tokens, cut into chunks of at most 75; it knows no windows and no tensors."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby, pairwise
from types import MappingProxyType

from lpw_sdxl.conditioning.windows import WINDOW_TOKENS, Segment, WeightedToken
from lpw_sdxl.prompt import Break, Prompt, Span

COMMA_BACKTRACK = 20
"""A chunk ends behind a comma that is among its last so many tokens (AUTOMATIC1111's default)."""
MAX_WORD_TOKENS = 8
"""Words of up to so many tokens are kept in one chunk (ComfyUI's `max_word_length`)."""

TokenIds = Callable[[str], Sequence[int]]
"""A tokenizer without BOS, EOS, padding and truncation."""
Splitting = Callable[[str], Iterable[str]]
"""A span's pieces that are tokenised one by one; each begins a word."""
Border = Callable[[Segment, int], int]
"""The end of the chunk that begins at an index, where more than 75 tokens follow that index."""

NO_EMBEDDINGS: Mapping[int, int] = MappingProxyType({})

_WORD = re.compile(r"[^ \t\n\r\f\v]+")


def by_span(text: str) -> Iterable[str]:
    """Tokenise a span in one piece."""
    return (text,)


def by_word(text: str) -> Iterable[str]:
    """Tokenise the words between blanks; the ids are those of the span in one piece."""
    return _WORD.findall(text)


def tokenize(
    prompt: Prompt,
    token_ids: TokenIds,
    split: Splitting = by_span,
    places_in_embeddings: Mapping[int, int] = NO_EMBEDDINGS,
) -> tuple[Segment, ...]:
    """Tokenise a prompt into segments of weighted tokens, one more than it has breaks.

    Spans are tokenised one by one, so words never join over the border of two weights. LoRA tags
    are taken out first: the texts on both sides of one are a single span, if their weights are
    equal.

    Args:
        prompt: parsed.
        token_ids: the encoder's tokenizer.
        split: how a span is split into pieces that are tokenised one by one.
        places_in_embeddings: by each id that is an embedding's, how many of its vectors stand
            before; an embedding is a word of its own.
    """
    commas = frozenset(token_ids(","))
    segments: list[list[WeightedToken]] = [[]]
    for text, weight in _texts(prompt):
        if text is None:
            segments.append([])
            continue
        for piece in split(text):
            ids = token_ids(piece)
            segments[-1] += [
                WeightedToken(
                    id_,
                    weight,
                    starts_word=index == 0 or _is_border(ids[index - 1], id_, places_in_embeddings),
                    is_comma=id_ in commas,
                    place_in_embedding=places_in_embeddings.get(id_, 0),
                )
                for index, id_ in enumerate(ids)
            ]
    return tuple(map(tuple, segments))


def texts(prompt: Prompt) -> Iterator[str]:
    """Yield the texts that `tokenize` splits and tokenises, without weights and breaks."""
    yield from (text for text, _ in _texts(prompt) if text is not None)


def cut(segments: Sequence[Segment], border: Border, *, keeps_empty: bool) -> list[Segment]:
    """Cut segments into chunks of at most 75 tokens; each segment begins one.

    Args:
        segments: at least one.
        border: finds the end of a chunk that can't hold its segment's rest.
        keeps_empty: whether a break that follows no text (leading, doubled) makes a chunk without
            text.

    Returns:
        At least one. Where `keeps_empty` is false the last one has no text if a break ends the
        prompt: the chunk before it is complete.
    """
    chunks = [chunk for segment in segments for chunk in _cut_segment(segment, border)]
    if keeps_empty:
        return chunks if chunks[-1] or len(chunks) == 1 else chunks[:-1]
    return [*filter(None, chunks[:-1]), chunks[-1]]


def after_75(_: Segment, start: int) -> int:
    """End a chunk after 75 tokens."""
    return start + WINDOW_TOKENS


def after_comma(segment: Segment, start: int) -> int:
    """End a chunk behind the last comma of its last 20 tokens, else after 75 tokens.

    Where the first token without room is a comma, the chunk ends before it, after 75 tokens. An
    embedding that does not fit as a whole moves to the next chunk as a whole, and alone.
    """
    end = start + WINDOW_TOKENS
    if segment[end].place_in_embedding:
        embedding = end - segment[end].place_in_embedding
        return embedding if embedding > start else end  # longer than a chunk
    nearest = range(end, end - COMMA_BACKTRACK - 1, -1)
    comma = next((index for index in nearest if segment[index].is_comma), end)
    return min(comma + 1, end)


def before_word(segment: Segment, start: int) -> int:
    """End a chunk before a word that would be split, unless it has more than 8 tokens."""
    end = start + WINDOW_TOKENS
    nearest = range(end, end - MAX_WORD_TOKENS, -1)
    word = next((index for index in nearest if segment[index].starts_word), None)
    if word is None:
        return end
    rest = segment[word + 1 : word + 1 + MAX_WORD_TOKENS]
    has_end = len(rest) < MAX_WORD_TOKENS or any(token.starts_word for token in rest)
    return word if has_end else end


def _is_border(before: int, id_: int, places_in_embeddings: Mapping[int, int]) -> bool:
    """Return whether an embedding begins with an id, or has ended before it."""
    place = places_in_embeddings.get(id_)
    return before in places_in_embeddings if place is None else place == 0


def _texts(prompt: Prompt) -> Iterator[tuple[str | None, float]]:
    """Yield texts with their weights, joined over tags, and None for a break."""
    nodes = (node for node in prompt.nodes if isinstance(node, Span | Break))
    for weight, run in groupby(nodes, key=lambda node: getattr(node, "weight", None)):
        if weight is None:
            yield from ((None, 1.0) for _ in run)
        else:
            yield "".join(node.text for node in run if isinstance(node, Span)), weight


def _cut_segment(segment: Segment, border: Border) -> Iterator[Segment]:
    ends = [0]
    while len(segment) - ends[-1] > WINDOW_TOKENS:
        ends.append(border(segment, ends[-1]))
    for start, end in pairwise([*ends, len(segment)]):
        yield segment[start:end]

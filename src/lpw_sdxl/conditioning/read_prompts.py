"""A request's prompts as its text encoders read them: chunks, counts and names; no tensors.

A prompt reader makes them once and the job carries them, so they hold no text and no parsed tree:
the tree of an adversarial prompt takes megabytes, and a queue holds hundreds of jobs.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Protocol

from lpw_sdxl.conditioning.chunking import TokenChunks
from lpw_sdxl.prompt import PromptStyle


class NamedEmbedding(Protocol):
    """An embedding, whatever its vectors are."""

    @property
    def name(self) -> str:
        """Return the name that prompts write."""


@dataclass(frozen=True, slots=True)
class ReadText:
    """One text of a request, chunked for every text encoder.

    Attributes:
        chunks: one for each encoder, alike but for the padding's ids and for tokens that the
            encoders' tokenizers split differently.
        is_empty: whether nothing was written, not even brackets: `()` has no tokens and is not
            empty.
    """

    chunks: tuple[TokenChunks, ...]
    is_empty: bool

    @property
    def token_count(self) -> int:
        """Count the tokens of the text, for the first encoder."""
        return self.chunks[0].token_count

    @property
    def chunk_count(self) -> int:
        """Count the windows, padding to the other text's length included."""
        return len(self.chunks[0].windows)

    @property
    def nbytes(self) -> int:
        """Count the bytes of the chunks in memory; a window counts each time it occurs."""
        own = sys.getsizeof(self) + sys.getsizeof(self.chunks)
        return own + sum(
            sys.getsizeof(chunks)
            + sys.getsizeof(chunks.windows)
            + sum(window.nbytes for window in chunks.windows)
            for chunks in self.chunks
        )


@dataclass(frozen=True, slots=True)
class ReadPrompts:
    """A prompt and its negative prompt, read together: all that their Conditioning depends on.

    Texts that differ only in what no encoder reads, such as case, are equal. One of both may be
    missing where a request has more texts of the other (`read_schedule.ReadSchedule`).

    Attributes:
        prompt: the prompt's reading.
        negative_prompt: the negative prompt's.
        style: how both were read.
        clip_skip: layers left out at the end of every encoder; within the model's range.
        embeddings: in both texts, each once, by name; they keep their ids while these are held.
    """

    prompt: ReadText | None
    negative_prompt: ReadText | None
    style: PromptStyle
    clip_skip: int
    embeddings: tuple[NamedEmbedding, ...] = ()

    @property
    def texts(self) -> tuple[ReadText, ...]:
        """Return the prompt's reading and the negative prompt's, of those that are there."""
        return tuple(one for one in (self.prompt, self.negative_prompt) if one is not None)

    @property
    def nbytes(self) -> int:
        """Count the bytes of both readings in memory; a window counts each time it occurs."""
        own = sys.getsizeof(self) + sys.getsizeof(self.embeddings)
        return own + sum(text.nbytes for text in self.texts)

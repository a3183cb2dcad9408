"""A text that is left of a prompt where other text is taken out, with its places in the prompt."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, chain
from typing import NamedTuple


class Run(NamedTuple):
    """A piece of a text, characters; `end` is one past its last."""

    start: int
    end: int


@dataclass(frozen=True)
class Excerpt:
    """A text whose characters stand in a prompt, in their order.

    Two excerpts are equal when they read the same, wherever they are from.

    Attributes:
        text: as it is read.
        runs: of the prompt as it was written; end to end they are the text. None is empty, and
            neighbours may touch.
    """

    text: str
    runs: tuple[Run, ...] = field(compare=False)

    @classmethod
    def whole(cls, text: str) -> Excerpt:
        """Take a prompt as it was written."""
        return cls(text, (Run(0, len(text)),) if text else ())

    def keep(self, pieces: Iterable[Run]) -> Excerpt:
        """Take only these pieces of this text, which stand in its order."""
        kept = list(pieces)
        text = "".join([self.text[piece.start : piece.end] for piece in kept])
        return Excerpt(text, tuple(chain.from_iterable(self.between(*piece) for piece in kept)))

    def without(self, pieces: Iterable[Run]) -> Excerpt:
        """Take all but these pieces of this text, which stand in its order."""
        ends, starts = [0], []
        for piece in pieces:
            starts.append(piece.start)
            ends.append(piece.end)
        if not starts:
            return self
        return self.keep(map(Run, ends, [*starts, len(self.text)]))

    def between(self, start: int, end: int) -> Iterator[Run]:
        """Find the runs of a piece of this text in the prompt as it was written."""
        index = bisect_right(self._offsets, start) - 1
        while start < end:
            run, offset = self.runs[index], self._offsets[index]
            stop = min(end, offset + run.end - run.start)
            yield Run(run.start + start - offset, run.start + stop - offset)
            start, index = stop, index + 1

    def place(self, index: int) -> int:
        """Return the place of a character of this text in the prompt as it was written.

        The place of the text's end is one past its last character's.
        """
        if index == len(self.text):
            return self.runs[-1].end if self.runs else 0
        run = bisect_right(self._offsets, index) - 1
        return self.runs[run].start + index - self._offsets[run]

    @cached_property
    def _offsets(self) -> list[int]:
        """List each run's first character in this text, and the text's end."""
        return list(accumulate((run.end - run.start for run in self.runs), initial=0))

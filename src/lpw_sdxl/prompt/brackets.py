"""Brackets and the weights of the texts between them; it knows nothing of text."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

# Up to this depth a weight is multiplied in the order in which its brackets close, and equals the
# community pipeline's to the last bit: only exactly equal neighbours become one span. That order
# shares no work between spans, so deeper nests (beyond the default limit) take the running product
# from the outside in: linear time, equal to 1e-12.
_EXACT_DEPTH = 64


@dataclass(slots=True, eq=False)
class Bracket:
    """A pair of brackets, filled in when its end is found and again when its text is weighed.

    Attributes:
        opening: `(` or `[`.
        position: of the opening bracket, characters.
        factor: of the weights inside it, or the number that is written in it.
        number_position: of the colon before that number, characters; None without one.
        closing_rank: brackets of a lower rank multiply first.
        texts_before: number of texts before it that the brackets around it weigh; None until it is
            weighed.
        is_idle: whether a text directly inside would have the same weight without it.
    """

    opening: str
    position: int
    factor: float = math.nan
    number_position: int | None = None
    closing_rank: int = -1
    texts_before: int | None = None
    is_idle: bool = False


class Nesting(Protocol):
    """The brackets around the current position, whose factors and ranks are known."""

    def push(self, bracket: Bracket) -> None:
        """Enter a bracket."""

    def pop(self, bracket: Bracket) -> None:
        """Leave the innermost bracket of its kind."""

    def weight(self) -> float:
        """Return the weight of a text at the current position."""

    def hides(self, bracket: Bracket) -> bool:
        """Return whether the brackets around this one do not change its text's weight."""


class MultipliedWeights:
    """Weights of nests in which all factors multiply; round and square brackets may cross.

    `([x)]` is legal: each kind closes its own innermost bracket.
    """

    def __init__(self) -> None:
        self._open: dict[str, list[Bracket]] = {"(": [], "[": []}
        self._products: dict[str, list[float]] = {"(": [1.0], "[": [1.0]}
        self._weight: float | None = 1.0

    def push(self, bracket: Bracket) -> None:
        """Enter a bracket."""
        self._open[bracket.opening].append(bracket)
        products = self._products[bracket.opening]
        products.append(products[-1] * bracket.factor)
        self._weight = None

    def pop(self, bracket: Bracket) -> None:
        """Leave the innermost bracket of its kind."""
        innermost = self._open[bracket.opening].pop()
        assert innermost is bracket
        self._products[bracket.opening].pop()
        self._weight = None

    def weight(self) -> float:
        """Multiply the factors of all open brackets."""
        if self._weight is None:
            self._weight = self._multiply()
        return self._weight

    def hides(self, bracket: Bracket) -> bool:  # noqa: ARG002 - of the Protocol
        """Return False: every bracket multiplies."""
        return False

    def _multiply(self) -> float:
        if sum(map(len, self._open.values())) > _EXACT_DEPTH:
            return math.prod(products[-1] for products in self._products.values())
        brackets = [bracket for kind in self._open.values() for bracket in reversed(kind)]
        brackets.sort(key=lambda bracket: bracket.closing_rank)
        return math.prod((bracket.factor for bracket in brackets), start=1.0)


class AbsoluteWeights:
    """Weights of nests in which a number replaces the weight around it; other pairs multiply it."""

    def __init__(self) -> None:
        self._weights = [1.0]

    def push(self, bracket: Bracket) -> None:
        """Enter a bracket."""
        around = 1.0 if bracket.number_position is not None else self._weights[-1]
        self._weights.append(around * bracket.factor)

    def pop(self, bracket: Bracket) -> None:  # noqa: ARG002 - of the Protocol
        """Leave the innermost bracket, of the only kind."""
        self._weights.pop()

    def weight(self) -> float:
        """Return the innermost number, times the factors of the pairs inside it."""
        return self._weights[-1]

    def hides(self, bracket: Bracket) -> bool:
        """Return whether the bracket has a number, which replaces the weight around it."""
        return bracket.number_position is not None

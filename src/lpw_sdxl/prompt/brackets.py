"""Brackets and the weight that they give to what stands between them; it knows nothing of text."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

ROUND_FACTOR = 1.1
SQUARE_FACTOR = 1 / 1.1
FACTORS = {"(": ROUND_FACTOR, "[": SQUARE_FACTOR}

# Up to this depth a weight is multiplied in the order in which its brackets close, as the
# community pipeline does, and is equal to the last bit; which matters, since only exactly equal
# neighbours become one span. That order shares no work between spans, so deeper nests (beyond
# the default limit) take the running product from the outside in: linear time, equal to 1e-12.
_EXACT_DEPTH = 64


@dataclass(slots=True, eq=False)
class Bracket:
    """A pair of brackets, filled in as its end is found.

    Attributes:
        opening: `(` or `[`.
        position: of the opening bracket, characters.
        factor: what it multiplies by.
        closing_rank: brackets of a lower rank multiply first.
    """

    opening: str
    position: int
    factor: float = math.nan
    closing_rank: int = -1


@dataclass(slots=True)
class OpenBrackets:
    """The brackets around the current position; round and square ones may cross.

    `([x)]` is legal: each kind closes its own innermost bracket.
    """

    _open: dict[str, list[Bracket]] = field(default_factory=lambda: {"(": [], "[": []})
    _products: dict[str, list[float]] = field(default_factory=lambda: {"(": [1.0], "[": [1.0]})
    _weight: float | None = 1.0

    def push(self, bracket: Bracket) -> None:
        """Enter a bracket whose factor and rank are known."""
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

    def _multiply(self) -> float:
        if sum(map(len, self._open.values())) > _EXACT_DEPTH:
            return math.prod(products[-1] for products in self._products.values())
        brackets = [bracket for kind in self._open.values() for bracket in reversed(kind)]
        brackets.sort(key=lambda bracket: bracket.closing_rank)
        return math.prod((bracket.factor for bracket in brackets), start=1.0)

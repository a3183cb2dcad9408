"""The fields of a request as A1111's clients write them: numbers as texts, texts as booleans.

What is null or an empty text is absent. A field is read when it has an effect, and not before: what
clients send beside it by habit refuses nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from lpw_sdxl.doors.json_text import is_object, parse_json
from lpw_sdxl.errors import InvalidRequestError

LONGEST_NUMBER = 64  # characters of a text that is a number
_TRUE, _FALSE = ("true", "yes", "on"), ("false", "no", "off")


def read_body(body: bytes | memoryview) -> LooseFields:
    """Read a body as the fields of a request, whatever its content type says.

    Raises:
        InvalidRequestError: it is no JSON object, or over the bounds.
    """
    if not is_object(body):
        raise InvalidRequestError("the body is no JSON object")
    return LooseFields.of(parse_json(body))


@dataclass(frozen=True)
class LooseFields:
    """Some fields.

    Attributes:
        values: by name; none is null or an empty text.
        place: put before a field's name in refusals, such as `override_settings.`.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    place: str = ""

    @classmethod
    def of(cls, values: Mapping[str, Any], place: str = "") -> LooseFields:
        """Leave out what is absent."""
        kept = {name: one for name, one in values.items() if one is not None and one != ""}
        return cls(kept, place)

    def __contains__(self, name: object) -> bool:
        return name in self.values

    def whole(self, name: str) -> int | None:
        """Return a whole number; a fraction is cut off, as in A1111. None if it is absent.

        Raises:
            InvalidRequestError: it is no number; so in the methods below for their kinds.
        """
        number = self._number(name)
        return None if number is None else math.trunc(number)

    def number(self, name: str) -> float | None:
        """Return a number; None if it is absent."""
        number = self._number(name)
        return None if number is None else float(number)

    def flag(self, name: str) -> bool | None:
        """Return whether something is so; None if that is absent."""
        value = self.values.get(name)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            word = value.strip().lower()
            if word in _TRUE or word in _FALSE:
                return word in _TRUE
        number = _convert(value)
        if number in (0, 1):
            return bool(number)
        raise self.refuse(name, "is neither true nor false")

    def text(self, name: str) -> str | None:
        """Return a text; None if it is absent. A number is one, too."""
        value = self.values.get(name)
        if value is None or isinstance(value, str):
            return value
        if isinstance(value, int | float) and not isinstance(value, bool):
            return str(value)
        raise self.refuse(name, "is no text")

    def texts(self, name: str) -> list[str]:
        """Return the texts of a list, without empty ones; a text alone is one of one."""
        value = self.values.get(name)
        elements = value if isinstance(value, list) else [] if value is None else [value]
        if not all(one is None or isinstance(one, str) for one in elements):
            raise self.refuse(name, "is no list of texts")
        return [one for one in elements if one]

    def elements(self, name: str) -> list[Any]:
        """Return the elements of a list; none if it is absent."""
        value = self.values.get(name)
        if value is None or isinstance(value, list):
            return value or []
        raise self.refuse(name, "is no list")

    def inner(self, name: str) -> LooseFields:
        """Return the fields of an object; none if it is absent, or an empty list."""
        value = self.values.get(name)
        if value is None or value == []:
            return LooseFields()
        if not isinstance(value, dict):
            raise self.refuse(name, "is no object")
        return LooseFields.of(value, f"{self.place}{name}.")

    def refuse(self, name: str, reason: str) -> InvalidRequestError:
        """Make a refusal of a field; the reason continues a sentence that begins with its name."""
        full = f"{self.place}{name}"
        return InvalidRequestError(f"{full} {reason}", field=full)

    def unknown(self, known: Collection[str]) -> list[str]:
        """List the names that are none of the known ones."""
        return [name for name in self.values if name not in known]

    def _number(self, name: str) -> int | float | None:
        value = self.values.get(name)
        if value is None:
            return None
        number = _convert(value)
        if number is None or not math.isfinite(number):
            raise self.refuse(name, "is no number")
        return number


def _convert(value: object) -> int | float | None:
    """Convert a number, a boolean or the text of a number; None for anything else."""
    if isinstance(value, int | float):
        return value
    if not isinstance(value, str) or len(value) > LONGEST_NUMBER or "_" in value:
        return None
    converters: tuple[Callable[[str], int | float], ...] = (int, float)
    for convert in converters:
        try:
            return convert(value)
        except ValueError:
            continue
    return None

"""A request in the making: fields that were accepted, and what can't be honoured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.parameters.numbers import read_number
from lpw_sdxl.parameters.written import Pair, WrittenParameters
from lpw_sdxl.refusal import explain_refusal
from lpw_sdxl.request_limits import RequestLimits, check_limits
from lpw_sdxl.schema import GenerationRequest

LONGEST_VALUE = 200  # characters that are repeated of a value
MOST_NOTES = 100
_MORE = "more"


@dataclass(frozen=True)
class NotHonoured:
    """Something that a text asks for and a request does not.

    Attributes:
        name: of the key, as it is written, or of what several keys are about.
        value: as it is written, at most 200 characters.
        reason: a sentence: why, and what would be right.
    """

    name: str
    value: str
    reason: str

    @classmethod
    def of(cls, name: str, value: str, reason: str) -> NotHonoured:
        """Build one with a value of any length."""
        is_long = len(value) > LONGEST_VALUE
        return cls(
            name[:LONGEST_VALUE], value[: LONGEST_VALUE - 3] + "..." if is_long else value, reason
        )


@dataclass
class Draft:
    """The fields of a request, each checked when it is put.

    Attributes:
        written: the text.
        limits: of the server; None for those of the schema alone.
        fields: accepted.
        not_honoured: all that is not, in the order of its finding.
    """

    written: WrittenParameters
    limits: RequestLimits | None = None
    fields: dict[str, Any] = field(default_factory=dict)
    not_honoured: list[NotHonoured] = field(default_factory=list)

    def pair(self, key: str) -> Pair | None:
        """Return the pair of a plain key, if it has a value."""
        pair = self.written.by_key.get(key)
        return pair if pair is not None and pair.value else None

    def put(self, pair: Pair, **fields: Any) -> bool:
        """Accept fields that a pair asks for, or note why they are refused.

        Returns:
            Whether they were accepted.
        """
        try:
            request = self._check(fields)
        except InvalidRequestError as error:
            self.note(pair.key, pair.value, f"{error.message}; the default is taken.")
            return False
        self.fields |= {name: getattr(request, name) for name in fields}
        return True

    def put_number(self, pair: Pair, name: str, fallback: str) -> None:
        """Accept a pair's number as a field, or note what is taken in its place."""
        number = read_number(pair.value)
        if number is None:
            self.note(*pair, f"It is no number; {fallback} is taken.")
        else:
            self.put(pair, **{name: number})

    def note(self, name: str, value: str, reason: str) -> None:
        """Note something that is not honoured; beyond a bound, only how much more there is."""
        if len(self.not_honoured) >= MOST_NOTES:
            last = self.not_honoured.pop()
            more = int(last.value) + 1 if last.name == _MORE else 2
            name, value, reason = _MORE, str(more), "So much more is not honoured."
        self.not_honoured.append(NotHonoured.of(name, value, reason))

    def _check(self, fields: Mapping[str, Any]) -> GenerationRequest:
        """Check some fields by themselves.

        Returns:
            A request with them.

        Raises:
            InvalidRequestError: the schema or the server's limits refuse them.
        """
        family = "sampler_implementation"
        context = {family: self.fields[family]} if family in self.fields else {}
        try:
            request = GenerationRequest.model_validate({"prompt": "", **context, **fields})
        except ValidationError as error:
            raise explain_refusal(error, GenerationRequest) from None
        if self.limits is not None:
            limited = {name: getattr(request, name) for name in fields if name != "prompt"}
            steps = {"num_inference_steps": 1}
            check_limits(request.model_copy(update=steps | limited), self.limits)
        return request

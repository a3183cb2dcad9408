"""One sentence for pydantic's refusal of a request: the field, its value, and a right one.

Numbers are quoted, being short and no secret; a text is never quoted: it may be a prompt.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from lpw_sdxl.errors import InvalidRequestError

ErrorDetails = Mapping[str, Any]

NEAR = 0.8  # of two names, from 0 to 1; `requests` and `request_id` are farther apart
LONGEST_SHOWN_NAME = 64  # characters of a field's name that a client invented
LONGEST_SHOWN_NUMBER = 24  # characters
# Right values, by pydantic's types of error; in the braces, the error's context.
_RIGHT: Mapping[str, str] = {
    "string_type": "a string",
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "finite_number": "a finite number",
    "list_type": "a list",
    "tuple_type": "a list",
    "model_type": "an object",
    "enum": "{expected}",
    "multiple_of": "a multiple of {multiple_of:g}",
    "greater_than": "a number greater than {gt:g}",
    "greater_than_equal": "at least {ge}",
    "less_than_equal": "at most {le}",
    "string_too_short": "at least {min_length}",
    "string_too_long": "at most {max_length}",
    "string_pattern_mismatch": "one that matches {pattern}",
    "too_short": "at least {min_length}",
    "too_long": "at most {max_length}",
}
_KINDS: Mapping[type, str] = {
    str: "a string",
    list: "a list",
    dict: "an object",
    type(None): "null",
}


def explain_refusal(error: ValidationError, model: type[BaseModel]) -> InvalidRequestError:
    """Explain in one sentence which field was refused and why.

    Args:
        error: of validating JSON, once.
        model: of the validation.
    """
    all_details: Sequence[ErrorDetails] = error.errors(include_url=False)
    unknown = next((one for one in all_details if one["type"] == "extra_forbidden"), None)
    details = all_details[0]
    if details["type"] == "missing" and unknown is not None:
        details = unknown  # a misspelt name explains why the right one is missing
    field = ".".join(map(str, details["loc"])) or None
    if details["type"] == "extra_forbidden":
        return _explain_unknown(details, model)
    return InvalidRequestError(_explain_value(field or "the body", details), field=field)


def _explain_unknown(details: ErrorDetails, model: type[BaseModel]) -> InvalidRequestError:
    """Name an unknown field, and the known one that was probably meant."""
    path = (*details["loc"][:-1], str(details["loc"][-1])[:LONGEST_SHOWN_NAME])
    owner = _owner(model, path[:-1])
    noun = getattr(owner, "noun", "this request")
    known = [*owner.model_fields]
    near = difflib.get_close_matches(str(path[-1]).lower(), known, n=1, cutoff=NEAR)
    shown = ".".join(map(str, path))[:LONGEST_SHOWN_NAME]
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
    if not known:
        hint = "it has none"
    quoted = shown if shown.replace(".", "_").isidentifier() else json.dumps(shown)
    return InvalidRequestError(f"{quoted} is not a field of {noun}; {hint}", field=shown)


def _owner(model: type[BaseModel], path: Sequence[str | int]) -> type[BaseModel]:
    """Find the model of the value at a path: the request's, or that of an object inside it."""
    for name in path:
        field = model.model_fields.get(str(name))
        inner = None if field is None else _model_in(field.annotation)
        model = inner or model  # a place in a list has no field of its own
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Find the model that an annotation names, such as that of `list[LoraReference]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = map(_model_in, get_args(annotation))
    return next((model for model in inner if model is not None), None)


def _explain_value(field: str, details: ErrorDetails) -> str:
    """Describe a value and a right one, or repeat pydantic's message."""
    kind, value = details["type"], details["input"]
    if kind == "json_invalid":
        return f"{field} is not valid JSON: {details['ctx']['error']}"
    if kind == "missing":
        return f"{field} is missing"
    if kind == "float_type" and type(value) is int:
        kind = "finite_number"  # an integer beyond all floats, as pydantic's JSON reader calls it
    if kind not in _RIGHT:
        return f"{field}: {details['msg'][0].lower()}{details['msg'][1:]}"
    right = _RIGHT[kind].format(**_whole(details.get("ctx", {})))
    if kind.endswith(("too_short", "too_long")):
        count = details["ctx"].get("actual_length", len(value))
        noun = "characters" if isinstance(value, str) else "items"
        return f"{field} has {count} {noun}; {right} would be right"
    shown = "an unknown name" if kind == "enum" and isinstance(value, str) else _show(value)
    return f"{field} is {shown}; {right} would be right"


def _whole(context: Mapping[str, Any]) -> dict[str, Any]:
    """Convert limits such as 100.0 to integers, to be written without a point."""
    return {
        name: int(value) if isinstance(value, float) and value.is_integer() else value
        for name, value in context.items()
    }


def _show(value: object) -> str:
    """Write a number as it is, and of any other value only its kind."""
    if isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, int | float):
        if isinstance(value, float) and not math.isfinite(value):
            return "not finite"
        length = len(str(value))
        return str(value) if length <= LONGEST_SHOWN_NUMBER else f"a number of {length} characters"
    return _KINDS.get(type(value), "of another kind")

"""One item of a batch: from a JSON value to a request, at a bounded cost."""

from __future__ import annotations

import json

from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.schema import GenerationRequest, RequestLimits, parse_request

MAX_VALUES = 1000
"""Of an item, nested ones too; a request with all its fields and LoRAs has a tenth of that."""


def parse_item(item: object, limits: RequestLimits) -> GenerationRequest:
    """Read an item as /generate reads its body.

    A million unknown fields would each become an error with a sentence, while every client waits.

    Raises:
        RequestError: it is no object, has too many values, or is no valid request.
    """
    if not isinstance(item, dict):
        raise InvalidRequestError("an item of requests is an object, as /generate takes it")
    if _has_more_values(item, MAX_VALUES):
        raise InvalidRequestError(
            f"an item of requests has more than {MAX_VALUES} values; a request needs far fewer"
        )
    return parse_request(json.dumps(item), limits)


def _has_more_values(value: object, bound: int) -> bool:
    """Tell whether a JSON value holds more values than that; stops at the bound."""
    waiting, count = [value], 0
    while waiting:
        inner = waiting.pop()
        if isinstance(inner, dict | list):
            count += len(inner)
            if count > bound:
                return True
            waiting += inner.values() if isinstance(inner, dict) else inner
    return False

"""Whatever is done to a text, it is a request or one of our refusals."""

from __future__ import annotations

import json

import pytest

from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.parameters import read_text, to_request
from lpw_sdxl.request_limits import check_limits
from lpw_sdxl.schema import GenerationRequest
from tests.parameters.case import LIMITS, OFFERED
from tests.parameters.mutated_texts import mutated_texts

FEW, MANY = 300, 10_000
SEED = 20261201


def read_all(count: int) -> int:
    """Read mutated texts; return how many were refused."""
    refused = 0
    for number, text in enumerate(mutated_texts(count, SEED)):
        offered = OFFERED if number % 2 else None
        try:
            translation = to_request(read_text(text), offered, LIMITS if number % 3 else None)
        except InvalidRequestError:
            refused += 1
            continue
        if number % 3:
            check_limits(translation.request, LIMITS)
        assert GenerationRequest.model_validate(translation.fields) == translation.request
        for one in translation.not_honoured:
            json.dumps([one.name, one.value, one.reason])
            assert len(one.value) <= 200
    return refused


def test_300_mutated_texts_are_requests_or_refusals() -> None:
    assert read_all(FEW) < FEW / 4


@pytest.mark.slow
def test_10000_mutated_texts_are_requests_or_refusals() -> None:
    assert read_all(MANY) < MANY / 4

from __future__ import annotations

import json

import pytest

from lpw_sdxl import errors
from lpw_sdxl.api.dialect import NATIVE
from lpw_sdxl.api.error_answer import ErrorAnswer


def all_errors(base: type[Exception] = errors.LpwSdxlError) -> list[type[Exception]]:
    return [base, *(leaf for child in base.__subclasses__() for leaf in all_errors(child))]


@pytest.mark.parametrize("error_class", all_errors(), ids=lambda error: error.__name__)
def test_every_error_is_drawn_in_the_tree(error_class: type[Exception]) -> None:
    assert error_class.__name__ in (errors.__doc__ or "")


def test_an_error_that_says_its_field_becomes_that_answer() -> None:
    answer = ErrorAnswer.from_error(errors.InvalidRequestError("too wide", field="width"))
    assert answer.status == 400
    assert json.loads(NATIVE.response(answer).body) == {
        "error": {"code": "invalid_request", "message": "too wide", "field": "width"}
    }


def test_overload_tells_when_to_come_back() -> None:
    answer = ErrorAnswer.from_error(errors.OverloadedError("full", retry_after_s=9))
    assert (answer.status, dict(answer.headers)) == (429, {"retry-after": "9"})


@pytest.mark.parametrize("error", [errors.ModelError("/srv/secret"), errors.LpwSdxlError("x")])
def test_an_error_that_is_not_for_clients_keeps_its_words(error: errors.LpwSdxlError) -> None:
    answer = ErrorAnswer.from_error(error)
    assert answer.status == 500
    assert answer.message == errors.STATUS_ANSWERS[500][1]

"""Whatever text is read, the engine takes the request that is made of it."""

from __future__ import annotations

import pytest

from lpw_sdxl.engine import Engine
from lpw_sdxl.parameters.request import ParametersRequest
from lpw_sdxl.schema import GenerationRequest
from tests.parameters import a1111_texts, fork_texts, odd_texts, page_texts
from tests.parameters.case import Case

CASES = [*a1111_texts.CASES, *fork_texts.CASES, *page_texts.CASES, *odd_texts.CASES]
REFUSED = "The request is refused as it is"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_request_of_a_text_is_taken(engine: Engine, case: Case) -> None:
    answer = engine.read_parameters(ParametersRequest(parameters=case.text))
    assert [note for note in answer.not_honoured if note.reason.startswith(REFUSED)] == []
    engine.decide(GenerationRequest.model_validate(answer.request))


def test_what_the_engine_would_refuse_is_named(engine: Engine) -> None:
    deep = "(" * 70 + "a\nSteps: 2, Seed: 1"
    answer = engine.read_parameters(ParametersRequest(parameters=deep))
    (note,) = [one for one in answer.not_honoured if one.reason.startswith(REFUSED)]
    assert note.name == "prompt"

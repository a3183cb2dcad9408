"""The document against the specification, the tables of errors, and the settings."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from openapi_spec_validator import validate

from lpw_sdxl import errors
from lpw_sdxl.api.dialect import NATIVE
from lpw_sdxl.api.endpoints import Endpoint
from lpw_sdxl.api.error_answer import ErrorAnswer
from lpw_sdxl.api.jobs import job_endpoints
from lpw_sdxl.api.native import native_endpoints
from lpw_sdxl.api.native_schemas import ServedLimits, example_request
from lpw_sdxl.api.openapi import write_document
from lpw_sdxl.api.operation import operation_endpoints, with_document
from lpw_sdxl.errors import STATUS_ANSWERS
from lpw_sdxl.model_defaults import ModelDefaults
from lpw_sdxl.request_reading import parse_request
from lpw_sdxl.schema import GenerationRequest, ImageSize
from lpw_sdxl.settings import Settings


def limits(**settings: Any) -> ServedLimits:
    return ServedLimits.from_settings(Settings(**settings), ImageSize(height=1024, width=832))


def rows(served: ServedLimits, *, has_tokens: bool = False) -> tuple[Endpoint, ...]:
    native = (*native_endpoints(served), *job_endpoints(workers=1))
    all_others = (*native, *operation_endpoints(Settings()))
    return with_document(all_others, has_tokens=has_tokens)


def document(served: ServedLimits | None = None, *, has_tokens: bool = False) -> dict[str, Any]:
    endpoints = rows(served or limits())
    written: dict[str, Any] = json.loads(write_document(endpoints, has_tokens=has_tokens))
    return written


def request_schema(served: ServedLimits) -> dict[str, Any]:
    schema: dict[str, Any] = document(served)["components"]["schemas"]["GenerationRequest"]
    return schema


def accepts(written: dict[str, Any], schema: str, value: object) -> bool:
    """Return whether one of the document's schemas accepts a value."""
    reference = {"$ref": f"#/components/schemas/{schema}", "components": written["components"]}
    return jsonschema.Draft202012Validator(reference).is_valid(value)


@pytest.mark.parametrize("has_tokens", [False, True], ids=["open", "tokens"])
@pytest.mark.parametrize("settings", [{}, {"max_steps": 2, "max_width": 64, "max_loras": 0}])
def test_the_document_keeps_to_the_specification(
    settings: dict[str, Any], has_tokens: bool
) -> None:
    validate(document(limits(**settings), has_tokens=has_tokens))


def answers() -> list[ErrorAnswer]:
    """Build every possible error, as it is built for a client."""
    raised = [
        errors.InvalidRequestError("m", field="f"),
        errors.InvalidPromptError("m"),
        errors.OverloadedError("m", retry_after_s=1),
        errors.DeadlineError("m"),
        errors.GenerationError("m"),
        errors.OutOfMemoryError("m"),
        errors.TimeLimitError("m"),
        errors.UnavailableError("m"),
        errors.ModelError("m"),
    ]
    return [
        *map(ErrorAnswer.from_error, raised),
        *map(ErrorAnswer.from_status, STATUS_ANSWERS),
    ]


@pytest.mark.parametrize("answer", answers(), ids=lambda answer: f"{answer.status}-{answer.code}")
def test_every_error_has_its_response_and_its_headers(answer: ErrorAnswer) -> None:
    written = document(has_tokens=True)
    response = written["components"]["responses"][str(answer.status)]
    schema = response["content"]["application/json"]["schema"]
    body = json.loads(NATIVE.response(answer).body)
    jsonschema.validate(body, schema)
    assert accepts(written, "Error", body)
    if answer.status in (429, 503):
        assert set(response["headers"]) == set(answer.headers) == {"retry-after"}


def test_a_code_of_another_status_does_not_fit() -> None:
    schema = document()["components"]["responses"]["429"]["content"]["application/json"]["schema"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(json.loads(NATIVE.response(ErrorAnswer.from_status(500)).body), schema)


def test_a_request_is_bounded_as_the_settings_say() -> None:
    properties = request_schema(
        limits(max_steps=40, max_width=1536, max_height=1280, max_prompt_characters=500)
    )["properties"]
    assert properties["num_inference_steps"]["maximum"] == 40
    assert properties["width"]["anyOf"][0]["maximum"] == 1536
    assert properties["height"]["anyOf"][0]["maximum"] == 1280
    assert properties["width"]["description"].endswith("832 by default.")
    assert properties["height"]["description"].endswith("1024 by default.")
    assert properties["prompt"]["maxLength"] == 500
    assert properties["negative_prompt"]["maxLength"] == 500


def test_an_inspection_is_bounded_and_has_a_default_within_its_limit() -> None:
    written = document(limits(max_steps=20, max_prompt_characters=500))
    schema = written["components"]["schemas"]["InspectionRequest"]
    steps = schema["properties"]["num_inference_steps"]
    assert (steps["default"], steps["maximum"]) == (20, 20)
    assert schema["required"] == ["prompt"]
    assert schema["properties"]["prompt"]["maxLength"] == 500
    asked = {"prompt": "a", "scheduler": "DPM++ 2M SDE Karras"}
    assert accepts(written, "InspectionRequest", asked)
    assert accepts(written, "InspectionRequest", asked | {"scheduler": "EulerDiscreteScheduler"})
    assert not accepts(written, "InspectionRequest", asked | {"num_inference_steps": 21})


def test_what_has_a_default_over_the_limit_must_be_told() -> None:
    schema = request_schema(limits(max_steps=29, max_height=1016))
    assert schema["required"] == ["prompt", "num_inference_steps", "height"]
    assert "default" not in schema["properties"]["num_inference_steps"]
    assert schema["properties"]["height"]["type"] == "integer"
    assert request_schema(limits())["required"] == ["prompt"]


def test_a_models_own_defaults_are_those_of_the_document() -> None:
    own = {"num_inference_steps": 6, "scheduler": "Euler a", "width": 512, "negative_prompt": "bad"}
    served = ServedLimits.from_settings(
        Settings(max_height=512), ImageSize(1024, 1024), ModelDefaults.read(own | {"height": 512})
    )
    written = document(served)
    schema = written["components"]["schemas"]["GenerationRequest"]
    assert {name: schema["properties"][name]["default"] for name in own} == own
    assert schema["properties"]["width"]["description"].endswith("512 by default.")
    assert schema["required"] == ["prompt"]
    inspection = written["components"]["schemas"]["InspectionRequest"]["properties"]
    assert inspection["num_inference_steps"]["default"] == 6
    assert example_request(served)["num_inference_steps"] == 6


@pytest.mark.parametrize("settings", [{}, {"max_steps": 2, "max_width": 100, "max_height": 64}])
def test_the_example_is_taken(settings: dict[str, Any]) -> None:
    served = limits(**settings)
    written = document(served)
    body = written["paths"]["/generate"]["post"]["requestBody"]["content"]["application/json"]
    parse_request(json.dumps(body["example"]), served.request)
    assert accepts(written, "GenerationRequest", body["example"])


def test_a_batch_is_bounded_and_takes_any_item() -> None:
    written = document(limits(max_batch_items=2))
    item = {"prompt": "a"}
    assert accepts(written, "BatchRequest", {"requests": [item, 5]})
    assert not accepts(written, "BatchRequest", {"requests": []})
    assert not accepts(written, "BatchRequest", {"requests": [item] * 3})


@pytest.mark.parametrize("seed", [None, -1, 0, 2**64 - 1])
def test_a_seed_or_what_draws_one_fits_the_schema(seed: int | None) -> None:
    assert accepts(document(), "GenerationRequest", {"prompt": "a", "seed": seed})


@pytest.mark.parametrize("name", ["dpmpp_sde_gpu", "dpmpp_2m_sde_gpu", "dpmpp_3m_sde_gpu"])
def test_other_programs_names_of_schedulers_fit_the_schema(name: str) -> None:
    assert accepts(document(), "GenerationRequest", {"prompt": "a", "scheduler": name})


@pytest.mark.parametrize(
    "change",
    [
        {"width": 65},
        {"width": 4096},
        {"num_inference_steps": 151},
        {"guidance_scale": "5"},
        {"seed": -2},
        {"scheduler": "nonsense"},
        {"prompt": "a\0"},
        {"prompt": "a" * 32769},
        {"loras": [{"name": "a", "weight": 11}]},
        {"widht": 64},
    ],
    ids=str,
)
def test_what_is_refused_does_not_fit_the_schema(change: dict[str, Any]) -> None:
    written = document()
    assert accepts(written, "GenerationRequest", {"prompt": "a"})
    assert not accepts(written, "GenerationRequest", {"prompt": "a"} | change)


def test_every_field_of_a_request_is_described() -> None:
    properties = request_schema(limits())["properties"]
    assert set(properties) == set(GenerationRequest.model_fields)
    assert [name for name, value in properties.items() if not value.get("description")] == []


def test_tokens_are_asked_for_where_they_are_needed_only() -> None:
    assert "securitySchemes" not in document()["components"]
    assert "401" not in document()["components"]["responses"]
    paths = document(has_tokens=True)["paths"]
    for path, operations in paths.items():
        is_open = path in ("/livez", "/readyz", "/healthz", "/ping")
        for operation in operations.values():
            assert ("security" not in operation) == is_open, path


def test_every_operation_lists_what_it_can_answer() -> None:
    listed = {
        path: set(next(iter(operations.values()))["responses"])
        for path, operations in document()["paths"].items()
    }
    read = {"200", "400", "403", "413", "431", "500"}
    limited = read | {"429"}
    anywhere = limited | {"408", "415", "503", "504"}  # 503 while the model is loaded
    assert listed == {
        "/generate": anywhere | {"409"},
        "/generate_stream": anywhere | {"409"},
        "/generate_batch": anywhere,
        "/generate_batch_stream": anywhere,
        "/jobs": limited | {"404", "503"},  # beside other workers
        "/jobs/{request_id}": limited | {"404", "503"},
        "/upscale": anywhere | {"409"},
        "/inspect_prompt": anywhere,
        "/read_parameters": anywhere,
        "/info": anywhere,
        "/livez": read | {"503"},
        "/readyz": read | {"503"},
        "/healthz": read | {"503"},
        "/ping": read | {"204", "503"},
        "/metrics": read,
        "/docs.json": limited,
        "/schema.json": limited,
    }

"""The rows of our own endpoints: body, answer and limits of each.

Each is a BentoML API: service.py has a method of the same name. A new one is a row here and a
method there. Those of /jobs, which BentoML's clients do not know, are in `jobs.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from lpw_sdxl.api.asgi import JSON
from lpw_sdxl.api.batch import BatchAnswer
from lpw_sdxl.api.endpoints import EVENTS, Answer, Body, Endpoint, Payload
from lpw_sdxl.api.example_picture import EXAMPLE_PICTURE
from lpw_sdxl.api.native_schemas import (
    ServedLimits,
    example_request,
    limit_batch,
    limit_inspection,
    limit_parameters,
    limit_request,
    limit_upscale,
    seed_header,
)
from lpw_sdxl.api.stream_events import StreamData
from lpw_sdxl.conditioning.explain_schedule import PromptInspection
from lpw_sdxl.engine.description import EngineDescription
from lpw_sdxl.imaging import MEDIA_TYPES
from lpw_sdxl.parameters.request import ParametersAnswer, ParametersRequest, parse_parameters
from lpw_sdxl.request_reading import (
    OTHER_FIELDS_BYTES,
    largest_generation_bytes,
    largest_picture_bytes,
    largest_request_bytes,
    parse_batch,
    parse_info,
    parse_inspection,
    parse_request,
    parse_stream,
)
from lpw_sdxl.schema import (
    BatchRequest,
    BatchStreamRequest,
    GenerationRequest,
    InfoRequest,
    InspectionRequest,
    StreamRequest,
)
from lpw_sdxl.upscale_request import UpscaleRequest, parse_upscale

INFO_BYTES = 1024  # its body is {}
INFO_AT_ONCE = 4
# Made of each byte of a body that is long: it has pictures, whose files have three quarters of
# their base64. The prompts are bounded (`largest_request_bytes`) before they become a text.
PICTURE_BYTES = 1.0
_EXAMPLE_PARAMETERS = (
    "a lighthouse at dusk, (stormy sea:1.3)\nNegative prompt: people\n"
    "Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 5, Seed: 7, Size: 1024x1024,"
    " Version: v1.10.1"
)


def native_endpoints(served: ServedLimits) -> tuple[Endpoint, ...]:
    """Build the rows of our own endpoints under this server's limits."""
    limits = served.request
    with_prompts = largest_request_bytes(limits.max_prompt_characters)
    with_pictures = largest_generation_bytes(limits)
    example = example_request(served)
    return (
        _endpoint(
            "generate",
            "Make one image; the answer is its file.",
            Body(
                _content_by(partial(parse_request, limits=limits)),
                with_pictures,
                GenerationRequest,
                example,
                add_limits=partial(limit_request, served=served),
                parsed_bytes=PICTURE_BYTES,
            ),
            Answer(
                "The image's file.", tuple(MEDIA_TYPES.values()), headers={"x-seed": seed_header()}
            ),
            frozenset({409, 429, 503}),
        ),
        _endpoint(
            "generate_batch",
            "Make several images; a bad item becomes an error at its index, the others are made.",
            Body(
                _content_by(partial(parse_batch, limits=limits)),
                served.max_body_bytes,
                BatchRequest,
                {"requests": [example]},
                add_limits=partial(limit_batch, served=served),
            ),
            Answer("An answer for each request, in their order.", (JSON,), BatchAnswer),
        ),
        _endpoint(
            "generate_stream",
            "Make one image and report on it: place in the queue, progress, previews, file.",
            Body(
                _content_by(partial(parse_stream, limits=limits)),
                with_pictures,
                StreamRequest,
                example | {"preview_every": 5},
                add_limits=partial(limit_request, served=served),
                parsed_bytes=PICTURE_BYTES,
            ),
            Answer("Server-sent events: queued, progress, image, error.", (EVENTS,), StreamData),
            frozenset({409, 429, 503}),
        ),
        _endpoint(
            "generate_batch_stream",
            "Make several images and report on each; the events have the item's index.",
            Body(
                _content_by(partial(parse_batch, limits=limits, model=BatchStreamRequest)),
                served.max_body_bytes,
                BatchStreamRequest,
                {"requests": [example], "preview_every": 5},
                add_limits=partial(limit_batch, served=served),
            ),
            Answer("Server-sent events: queued, progress, image, error.", (EVENTS,), StreamData),
        ),
        _endpoint(
            "upscale",
            "Enlarge one picture; the answer is its file.",
            Body(
                _content_by(partial(parse_upscale, limits=limits)),
                largest_picture_bytes(limits) + OTHER_FIELDS_BYTES,
                UpscaleRequest,
                {"image": EXAMPLE_PICTURE, "scale": 4},
                add_limits=partial(limit_upscale, served=served),
                parsed_bytes=PICTURE_BYTES,
            ),
            Answer("The larger picture's file.", tuple(MEDIA_TYPES.values())),
            frozenset({409, 429, 503}),
        ),
        _endpoint(
            "inspect_prompt",
            "Explain how a prompt is read: spans, weights, tokens, chunks, steps and warnings.",
            Body(
                _content_by(partial(parse_inspection, limits=limits)),
                with_prompts,
                InspectionRequest,
                {"prompt": "a (red:1.3) fox in deep [snow:fog:0.5]", "prompt_style": "a1111"},
                add_limits=partial(limit_inspection, served=served),
            ),
            Answer("How both prompts are read.", (JSON,), PromptInspection),
        ),
        _endpoint(
            "read_parameters",
            "Read an A1111 text, or that in a picture, as the request that makes it again.",
            Body(
                _content_by(partial(parse_parameters, limits=limits)),
                largest_picture_bytes(limits) + with_prompts,
                ParametersRequest,
                {"parameters": _EXAMPLE_PARAMETERS},
                add_limits=partial(limit_parameters, served=served),
                parsed_bytes=PICTURE_BYTES,
            ),
            Answer("A request, and what it can't honour.", (JSON,), ParametersAnswer),
        ),
        _endpoint(
            "info",
            "Describe what is served: model, device, limits, schedulers, and the engine's counts.",
            Body(_content_by(parse_info), INFO_BYTES, InfoRequest, {}),
            Answer("What is served.", (JSON,), EngineDescription),
            at_once=INFO_AT_ONCE,
        ),
    )


def _endpoint(
    name: str,
    summary: str,
    body: Body,
    answer: Answer,
    statuses: frozenset[int] = frozenset(),
    *,
    at_once: int | None = None,
) -> Endpoint:
    """Build the row of a BentoML API; each can fail (500) or be late (504)."""
    return Endpoint(
        ("POST",),
        f"/{name}",
        summary,
        answer,
        tag="images",
        body=body,
        statuses=statuses | {500, 504},
        at_once=at_once,
    )


def _content_by(parse: Callable[[bytes | memoryview], object]) -> Callable[[Payload], object]:
    """Adapt a parser of bytes to one of a payload, whose head it ignores."""
    return lambda payload: parse(payload.content)

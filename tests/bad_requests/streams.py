"""Streams, jobs and the ids of requests."""

# A row for each case, however long.  # ruff: noqa: E501
from __future__ import annotations

from bad_requests.case import GOOD, Bad, Http, at, bare, item, to
from bad_requests.fields import KNOWN
from bad_requests.loras import KNOWN as KNOWN_LORAS


def stream(**fields: object) -> Http:
    """Send a stream's request."""
    return to("/generate_stream", {**GOOD, **fields})


NO_JOB = (
    "this server has no job of yours with this request_id; one that ended is kept for a minute;"
    " without tokens, jobs are shown under an address or a local name only"
)
RIGHT_ID = "one that matches ^[A-Za-z0-9_-][A-Za-z0-9._-]*$ would be right"

# fmt: off
CASES: dict[str, list[Bad]] = {
    "ids of requests": [
        Bad("a number", {"request_id": 5}, "request_id", "request_id is 5; a string would be right"),
        Bad("nothing", {"request_id": ""}, "request_id", "request_id has 0 characters; at least 1 would be right"),
        Bad("129 characters", {"request_id": "a" * 129}, "request_id", "request_id has 129 characters; at most 128 would be right"),
        Bad("a blank", {"request_id": "a b"}, "request_id", f"request_id is a string; {RIGHT_ID}"),
        Bad("a line end", {"request_id": "a\n"}, "request_id", f"request_id is a string; {RIGHT_ID}"),
        Bad("a point", {"request_id": "."}, "request_id", f"request_id is a string; {RIGHT_ID}"),
        Bad("two points", {"request_id": ".."}, "request_id", f"request_id is a string; {RIGHT_ID}"),
        Bad("a way up", stream(request_id="../a"), "request_id", f"request_id is a string; {RIGHT_ID}"),
        Bad("a letter beyond ASCII", item({**GOOD, "request_id": "ä"}), "request_id", f"request_id is a string; {RIGHT_ID}", status=200),
    ],
    "streams": [
        Bad("preview_every: below 0", stream(preview_every=-1), "preview_every", "preview_every is -1; at least 0 would be right"),
        Bad("preview_every: too large", stream(preview_every=1001), "preview_every", "preview_every is 1001; at most 1000 would be right"),
        Bad("preview_every: a text", stream(preview_every="1"), "preview_every", "preview_every is a string; an integer would be right"),
        Bad("preview_every: of one image", {"preview_every": 1}, "preview_every", f"preview_every is not a field of this request; {KNOWN}"),
        Bad("preview_every: of an item", to("/generate_batch_stream", {"requests": [GOOD], "preview_every": None}), "preview_every", "preview_every is null; an integer would be right"),
        Bad("a stream of too many steps", stream(num_inference_steps=9), "num_inference_steps", "num_inference_steps is 9; at most 4 is accepted here"),
        Bad("a stream with an unknown field", stream(steps=3), "steps", f"steps is not a field of this request; {KNOWN}, preview_every"),
        Bad("a stream of a LoRA that is not there", stream(loras=[{"name": "absent"}]), "loras.0.name", "No LoRA is named 'absent'" + KNOWN_LORAS),
        Bad("a stream of no items", to("/generate_batch_stream", {"requests": []}), "requests", "requests has 0 items; at least 1 would be right"),
        Bad("a stream of text", bare("text/plain", path="/generate_stream"), None, "the body must be application/json, in UTF-8", status=415, code="unsupported_media_type"),
        Bad("GET of a stream", at("/generate_stream", "GET"), None, "this path does not take this method; it takes POST", status=405, code="method_not_allowed"),
    ],
    "jobs": [
        Bad("one that is not there", Http("GET", "/jobs/absent", b"", {}), None, NO_JOB, status=404, code="not_found"),
        Bad("cancelling one that is not there", Http("DELETE", "/jobs/absent", b"", {}), None, NO_JOB, status=404, code="not_found"),
        Bad("an id that is none", Http("GET", "/jobs/%20%00", b"", {}), None, NO_JOB, status=404, code="not_found"),
        Bad("no id", Http("GET", "/jobs/", b"", {}), None, "there is nothing at this path; POST /generate makes an image", status=404, code="not_found"),
        Bad("a part of one", Http("GET", "/jobs/a/b", b"", {}), None, "there is nothing at this path; POST /generate makes an image", status=404, code="not_found"),
        Bad("POST to the jobs", at("/jobs"), None, "this path does not take this method; it takes GET, HEAD", status=405, code="method_not_allowed"),
        Bad("PUT of a job", at("/jobs/a", "PUT"), None, "this path does not take this method; it takes GET, HEAD, DELETE", status=405, code="method_not_allowed"),
        Bad("DELETE with a body", at("/jobs/a", "DELETE"), None, "this path takes no body", status=413, code="body_too_large"),
    ],
}

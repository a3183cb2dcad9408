"""Batches: wrong items are answered at their index."""

# A row for each case, however long.  # ruff: noqa: E501
from __future__ import annotations

from bad_requests.case import GOOD, Bad, item

# fmt: off
CASES: dict[str, list[Bad]] = {
    "items of a batch": [
        Bad("null", item(None), None, "an item of requests is an object, as /generate takes it", status=200),
        Bad("a text", item("\"a\""), None, "an item of requests is an object, as /generate takes it", status=200),
        Bad("a list", item([]), None, "an item of requests is an object, as /generate takes it", status=200),
        Bad("a list in 150 lists", item("[" * 150 + "]" * 150), None, "an item of requests is an object, as /generate takes it", status=200),
        Bad("a prompt of the wrong type", item({**GOOD, "prompt": 1}), "prompt", "prompt is 1; a string would be right", status=200),
        Bad("too many steps", item({**GOOD, "num_inference_steps": 9}), "num_inference_steps", "num_inference_steps is 9; at most 4 is accepted here", status=200),
        Bad("the default, too many steps", item({"prompt": "a"}), "num_inference_steps", "num_inference_steps is 30, its default; at most 4 is accepted here", status=200),
        Bad("a width of 1023", item({**GOOD, "width": 1023}), "width", "width is 1023; a multiple of 8 would be right", status=200),
        Bad("clip_skip over the model's", item({**GOOD, "clip_skip": 31}), "clip_skip", "clip_skip is 31; this model takes 0 to 11", status=200),
        Bad("a deadline of a nanosecond", item({**GOOD, "deadline_s": 1e-9}), "deadline_s", "the time for this image ran out before it was done", status=200, code="deadline_exceeded"),
    ],
}

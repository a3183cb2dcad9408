"""Names of fields: missing, unknown or given twice."""

# A row for each case, however long.  # ruff: noqa: E501
from __future__ import annotations

from bad_requests.case import GOOD, Bad, inspect, item, to
from lpw_sdxl.schema import GenerationRequest

KNOWN = f"known are {', '.join(GenerationRequest.model_fields)}"

# fmt: off
CASES: dict[str, list[Bad]] = {
    "missing fields": [
        Bad("an empty object", "{}", "prompt", "prompt is missing"),
        Bad("a request without a prompt", '{"seed": 1}', "prompt", "prompt is missing"),
        Bad("a negative prompt alone", '{"negative_prompt": "a"}', "prompt", "prompt is missing"),
        Bad("an inspection of nothing", to("/inspect_prompt", {}), "prompt", "prompt is missing"),
        Bad("a batch of nothing", to("/generate_batch", {}), "requests", "requests is missing"),
        Bad("a LoRA without a name", {"loras": [{"weight": 1}]}, "loras.0.name", "loras.0.name is missing"),
        Bad("an item without a prompt", item({}), "prompt", "prompt is missing", status=200),
    ],
    "unknown fields": [
        Bad("a misspelt one", {"widht": 64}, "widht", "widht is not a field of this request; did you mean width?"),
        Bad("a misspelt one that is needed", '{"promt": "a"}', "promt", "promt is not a field of this request; did you mean prompt?"),
        Bad("one in capitals", {"Prompt": "b"}, "Prompt", "Prompt is not a field of this request; did you mean prompt?"),
        Bad("one of another program", {"steps": 3}, "steps", f"steps is not a field of this request; {KNOWN}"),
        Bad("one unlike any", {"zzz": 1}, "zzz", f"zzz is not a field of this request; {KNOWN}"),
        Bad("one without a name", {"": 1}, "", f"\"\" is not a field of this request; {KNOWN}"),
        Bad("one of 500 characters", {"x" * 500: 1}, "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", f"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx is not a field of this request; {KNOWN}"),
        Bad("one with line ends", {"a\r\nb": 1}, "a\r\nb", f"\"a\\r\\nb\" is not a field of this request; {KNOWN}"),
        Bad("one of another language", {"<script>": 1}, "<script>", f"\"<script>\" is not a field of this request; {KNOWN}"),
        Bad("one of Python's", {"__class__": 1}, "__class__", f"__class__ is not a field of this request; {KNOWN}"),
        Bad("one like a path", {"loras.0.name": 1}, "loras.0.name", f"loras.0.name is not a field of this request; {KNOWN}"),
        Bad("one of emoji", {"🦊": 1}, "🦊", f"\"\\ud83e\\udd8a\" is not a field of this request; {KNOWN}"),
        Bad("a field of /generate in an inspection", inspect(width=64), "width", "width is not a field of this request; known are prompt, negative_prompt, prompt_style, num_inference_steps, sampler_implementation, scheduler"),
        Bad("anything for the server's state", to("/info", {"a": 1}), "a", "a is not a field of this request; it has none"),
        Bad("a field of an item beside the items", to("/generate_batch", {"requests": [GOOD], "seed": 1}), "seed", "seed is not a field of this request; known are requests"),
        Bad("a misspelt list of items", to("/generate_batch", {"request": [GOOD]}), "request", "request is not a field of this request; did you mean requests?"),
        Bad("one request for a batch", to("/generate_batch", GOOD), "prompt", "prompt is not a field of this request; known are requests"),
        Bad("a batch for one request", '{"requests": [{"prompt": "a"}]}', "requests", f"requests is not a field of this request; {KNOWN}"),
        Bad("a misspelt field of a LoRA", {"loras": [{"name": "detail", "wieght": 1}]}, "loras.0.wieght", "loras.0.wieght is not a field of a LoRA; did you mean weight?"),
        Bad("another program's field of a LoRA", {"loras": [{"name": "detail", "strength": 1}]}, "loras.0.strength", "loras.0.strength is not a field of a LoRA; known are name, weight, text_encoder_weight"),
        Bad("a misspelt field of an item", item({**GOOD, "widht": 1}), "widht", "widht is not a field of this request; did you mean width?", status=200),
    ],
    "fields given twice: the last counts": [
        Bad("the last is wrong", '{"prompt": "a", "num_inference_steps": 1, "num_inference_steps": 0}', "num_inference_steps", "num_inference_steps is 0; at least 1 would be right"),
        Bad("the last is null", '{"prompt": "a", "prompt": null}', "prompt", "prompt is null; a string would be right"),
        Bad("the last is wrong in an item", item('{"prompt": "a", "num_inference_steps": 1, "num_inference_steps": 9}'), "num_inference_steps", "num_inference_steps is 9; at most 4 is accepted here", status=200),
    ],
}

"""Prompts and their limits."""

# A row for each case, however long.  # ruff: noqa: E501
from __future__ import annotations

from bad_requests.case import GOOD, Bad, inspect, item

# fmt: off
CASES: dict[str, list[Bad]] = {
    "prompts over a limit": [
        Bad("characters", {"prompt": "a" * 2001}, "prompt", "prompt has 2001 characters; at most 2000 are accepted here"),
        Bad("characters of a negative prompt", {"negative_prompt": "a" * 2001}, "negative_prompt", "negative_prompt has 2001 characters; at most 2000 are accepted here"),
        Bad("characters of an inspection", inspect(prompt="a" * 2001), "prompt", "prompt has 2001 characters; at most 2000 are accepted here"),
        Bad("characters of four bytes", {"prompt": "🦊" * 2001}, "prompt", "prompt has 2001 characters; at most 2000 are accepted here"),
        Bad("characters in an item", item({**GOOD, "prompt": "a" * 2001}), "prompt", "prompt has 2001 characters; at most 2000 are accepted here", status=200),
        Bad("chunks", {"prompt": "a " * 400}, "prompt", "prompt fills 6 chunks of 75 tokens; at most 4 are accepted here", code="invalid_prompt"),
        Bad("chunks of a negative prompt", {"negative_prompt": "a " * 400}, "negative_prompt", "negative_prompt fills 6 chunks of 75 tokens; at most 4 are accepted here", code="invalid_prompt"),
        Bad("chunks of an inspection", inspect(prompt="a " * 400), "prompt", "prompt fills 6 chunks of 75 tokens; at most 4 are accepted here", code="invalid_prompt"),
        Bad("chunks that BREAK makes", {"prompt": "a BREAK " * 9}, "prompt", "prompt fills 9 chunks of 75 tokens; at most 4 are accepted here", code="invalid_prompt"),
        Bad("chunks of an embedding", {"prompt": "glow " * 399}, "prompt", "prompt fills 6 chunks of 75 tokens; at most 4 are accepted here", code="invalid_prompt"),
        Bad("depth of round brackets", {"prompt": "(" * 65 + "a"}, "prompt", "brackets nest deeper than the limit of 64 at character 64", code="invalid_prompt"),
        Bad("depth of square brackets", {"prompt": "[" * 65 + "a"}, "prompt", "brackets nest deeper than the limit of 64 at character 64", code="invalid_prompt"),
        Bad("depth of both", {"negative_prompt": "([" * 33 + "a"}, "negative_prompt", "brackets nest deeper than the limit of 64 at character 64", code="invalid_prompt"),
        Bad("depth of an inspection", inspect(negative_prompt="(" * 65), "negative_prompt", "brackets nest deeper than the limit of 64 at character 64", code="invalid_prompt"),
        Bad("depth in another style", {"prompt": "(" * 65 + "a", "prompt_style": "comfy"}, "prompt", "brackets nest deeper than the limit of 64 at character 64", code="invalid_prompt"),
    ],
    "weights over the limit": [
        Bad("a large one", {"prompt": "(a:101)"}, "prompt", "the weight at character 1 is outside the limit of -100 to 100", code="invalid_prompt"),
        Bad("one below 0", {"prompt": "(a:-101)"}, "prompt", "the weight at character 1 is outside the limit of -100 to 100", code="invalid_prompt"),
        Bad("a product", {"prompt": "((a:50):50)"}, "prompt", "the weight at character 2 is outside the limit of -100 to 100", code="invalid_prompt"),
        Bad("a product of many brackets", {"prompt": "(" * 49 + "a"}, "prompt", "the weight at character 49 is outside the limit of -100 to 100", code="invalid_prompt"),
        Bad("one of 400 digits", {"prompt": "(a:" + "9" * 400 + ")"}, "prompt", "the weight at character 1 is outside the limit of -100 to 100", code="invalid_prompt"),
        Bad("one of a negative prompt", {"negative_prompt": "b (a:1000)"}, "negative_prompt", "the weight at character 3 is outside the limit of -100 to 100", code="invalid_prompt"),
        Bad("one of an inspection", inspect(prompt="a (b:200)"), "prompt", "the weight at character 3 is outside the limit of -100 to 100", code="invalid_prompt"),
        Bad("one with spaces, in a1111", {"prompt": "(a : 200)", "prompt_style": "a1111"}, "prompt", "the weight at character 1 is outside the limit of -100 to 100", code="invalid_prompt"),
        Bad("one in an item", item({**GOOD, "prompt": "(a:900)"}), "prompt", "the weight at character 1 is outside the limit of -100 to 100", status=200, code="invalid_prompt"),
    ],
    "NUL": [
        Bad("in a prompt", {"prompt": "a\0b"}, "prompt", "prompt holds a NUL character (U+0000), which the text in an image file can't carry; leave it out"),
        Bad("in a negative prompt", {"negative_prompt": "\0"}, "negative_prompt", "negative_prompt holds a NUL character (U+0000), which the text in an image file can't carry; leave it out"),
        Bad("in an inspection", inspect(prompt="a\0b"), "prompt", "prompt holds a NUL character (U+0000), which the text in an image file can't carry; leave it out"),
        Bad("in an item", item({**GOOD, "prompt": "\0"}), "prompt", "prompt holds a NUL character (U+0000), which the text in an image file can't carry; leave it out", status=200),
    ],
}

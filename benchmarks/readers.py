"""Every reader of text that others write, and texts that are as bad for it as we know to make them.

A pattern is what stands before, what is repeated before the middle, what is repeated after it, and
what stands behind. benchmarks/growth.py measures how the time of each reader grows with the text;
tests/benchmarks/test_growth.py does so at smaller sizes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from lpw_sdxl.api.access_tokens import AccessTokens
from lpw_sdxl.api.endpoint_table import EndpointTable
from lpw_sdxl.api.endpoints import HeadCheck, Payload
from lpw_sdxl.api.head import refuse_body_headers, refuse_headers
from lpw_sdxl.api.native import native_endpoints
from lpw_sdxl.api.native_schemas import ServedLimits
from lpw_sdxl.api.origins import Origins
from lpw_sdxl.checkpoint.tokenizer_files import (
    END_TOKEN,
    START_TOKEN,
    build_vocabulary,
    read_merges,
)
from lpw_sdxl.conditioning.mentions import MentionForm
from lpw_sdxl.conditioning.prompt_reader import PromptReader
from lpw_sdxl.conditioning.tokenizer import ClipTokenizer
from lpw_sdxl.download.answers import Asked, check_answer
from lpw_sdxl.download.filename import name_download, safe_file_name
from lpw_sdxl.download.sources.civitai import parse_version
from lpw_sdxl.errors import LpwSdxlError
from lpw_sdxl.imaging.exif_texts import read_exif_texts
from lpw_sdxl.lora.left_out import harmless_reason, is_foreign
from lpw_sdxl.lora.names import split_name
from lpw_sdxl.parameters import Offered, read_text, to_request
from lpw_sdxl.parameters.text_reader import LONGEST_BLOCK
from lpw_sdxl.prompt import PromptLimits, PromptStyle, Steps, parse, parse_schedule
from lpw_sdxl.schema import ImageSize
from lpw_sdxl.settings import Settings
from lpw_sdxl.store.kind import slug
from lpw_sdxl.weights.header_json import parse_header_json
from lpw_sdxl.weights.text import clean_text

UNLIMITED = PromptLimits(
    max_characters=10**9, max_depth=10**9, max_weight=math.inf, max_parts=10**9
)

LONGEST_HEADER = 300_000  # characters, some times what a server takes


class Pattern(NamedTuple):
    """A text that can be made of any length."""

    before: str = ""
    left: str = ""
    right: str = ""
    behind: str = ""

    def text(self, characters: int) -> str:
        """Repeat the halves to about so many characters."""
        count = max(1, characters // len(self.left + self.right))
        return f"{self.before}{self.left * count}x{self.right * count}{self.behind}"


CLASSES: Mapping[str, str] = {
    "blanks": " ",
    "tabs": "\t",
    "line ends": "\n",
    "no-break spaces": "\u00a0",
    "letters": "a",
    "capitals": "Q",
    "digits": "1",
    "commas": ",",
    "semicolons": ";",
    "colons": ":",
    "dots": ".",
    "slashes": "/",
    "backslashes": "\\",
    "quotes": '"',
    "apostrophes": "'",
    "percents": "%",
    "escaped percents": "%25",
    "equals": "=",
    "underscores": "_",
    "hyphens": "-",
    "plus signs": "+",
    "stars": "*",
    "round openings": "(",
    "round closings": ")",
    "square openings": "[",
    "braces": "{",
    "angles": "<",
    "ends of tags": ">",
    "letters with diaereses": "ä",
    "Chinese": "\u732b",
    "emoji": "\U0001f98a",
    "combining accents": "\u0301",
    "capital i with a dot": "\u0130",
    "invisible joiners": "\u200d",
    "words": "cat ",
    "words with commas": "cat, ",
    "escaped quotes": '\\"',
}
"""Repeated characters of each class."""

PROMPT_PATTERNS: Mapping[str, tuple[str, str]] = {
    "ordinary": ("1girl, (smile:1.2), tag_\\(x\\), [hat] BREAK <lora:a:1> ", ""),
    "openings": ("(", ""),
    "unclosed text": ("(a[b", ""),
    "nest": ("(", ")"),
    "text at each depth": ("(a", "b)"),
    "weights at each depth": ("(a", "b:.99)"),
    "spaced weights at each depth": ("(a", "b : .99 )"),
    "crossing": ("([a", ")]"),
    "idle weights": ("(a:1)", ""),
    "closings": (")", ""),
    "blanks": (" ", ""),
    "blanks after a colon": ("(a:", " "),
    "colons and blanks": (": ", ""),
    "breaks": (" BREAK", ""),
    "words like breaks": ("break,", ""),
    "colons": (":1", ""),
    "one number": ("1", ""),
    "a number behind blanks": (":", "1 "),
    "malformed numbers": ("(a:1..2)", ""),
    "LoRA beginnings": ("<lora:", ""),
    "LoRA names": ("<lora:a:", ""),
    "LoRA beginnings and ends": ("<lora:", ">"),
    "LoRA tags that are refused": ("<lora:a:1:dyn=8>", ""),
    "tags": ("<a:b", ""),
    "backslashes": ("\\", ""),
}
"""Repeated parts of a prompt before its middle and after it."""

SCHEDULE_PATTERNS: Mapping[str, tuple[str, str]] = {
    "edits": ("[a:b:.5]", ""),
    "edits of every step": ("[:a:7][a::9]", ""),
    "alternations": ("[a|b]", ""),
    "alternatives": ("[a|", "]"),
    "bars": ("|", ""),
    "nested edits": ("[a:", "b:3]"),
    "nested edits that are not whole": ("[a:", "b:]"),
    "crossing edits": ("[a:(", "b:3])"),
    "edits that stay open": ("[a:b", ""),
    "numbers of edits": ("[a:b: 1", "]"),
    "parts": ("a :1.2 AND ", ""),
    "colons of parts": ("AND : ", ""),
    "blanks of parts": (" ", " :2"),
    "comments": ("#a\n", ""),
    "comments that end no line": ("#", ""),
    "escapes": ("\\[\\|", ""),
}
"""The same of what changes by step, stands side by side or is a comment."""

_HEADERS = {
    "parameters": ";a=",
    "blanks and semicolons": " ; ",
    "quoted parameters": '; a="b"',
    "unclosed quotes": '; filename="',
    "names of files": "; filename=a",
    "extended names": "; filename*=utf-8''",
    "bearers": "bearer ",
    "colons and slashes": "://",
    "hosts": "a.",
}
_JSON = {
    "unknown fields": '"k":0,',
    "known fields": '"prompt":"a",',
    "objects": "{},",
    "lists": "[],",
    "numbers": "0,",
    "strings": '"",',
}
_PAIRS = {
    "pairs": ", ab: c",
    "known keys": "Steps: 2, Seed: 1\n",
    "known keys of one line": "Steps: 2, ",
    "pieces without a key": "b c, ",
    "open quotes": ', ab: "c',
    "open lists": ", ab: [[",
    "lists of texts": '"ab: [", ',
    "keys with stars": "**Seed:** 1 **",
    "negative prompts": "Negative prompt:",
    "templates": "\nTemplate: a",
    "other steps": "Hires steps: 2, ",
    "tags": "<lora:a:1>",
    "refused tags": "<lora:a:1:dyn=8>",
}
_NAMES = {
    "kohya": "lora_unet_",
    "blocks": "blocks_0_",
    "dotted blocks": "down_blocks.0.",
    "factors": ".lora_down.weight",
    "adapters": ".lora_A.default",
    "controlnets": "blocks.1.img_mod.",
}


@dataclass(frozen=True)
class Reader:
    """A reader, and the patterns that it is measured with.

    Attributes:
        name: of the reader.
        read: reads a text.
        patterns: by their names.
        largest: characters of the longest text that is worth measuring.
    """

    name: str
    read: Callable[[str], object]
    patterns: Mapping[str, Pattern]
    largest: int = 1_000_000


def all_readers() -> list[Reader]:
    """List every reader, with a tokenizer of SDXL's vocabulary."""
    return [
        *_prompt_readers(),
        *_http_readers(),
        *_json_readers(),
        *_file_readers(),
        *_parameters_readers(),
    ]


def _repeated(extra: Mapping[str, str], before: str = "", behind: str = "") -> dict[str, Pattern]:
    """Make a pattern of each class of characters and of each extra one."""
    named = {**CLASSES, **extra}
    return {name: Pattern(before, part, "", behind) for name, part in named.items()}


def _prompts() -> dict[str, Pattern]:
    nested = {f"{name} in a bracket": Pattern("(a:", *two) for name, two in PROMPT_PATTERNS.items()}
    return _repeated({}) | nested


def _prompt_readers() -> Iterator[Reader]:
    patterns = _prompts()
    merges = read_merges()
    tokenizers = [
        ClipTokenizer.from_merges(build_vocabulary(merges), merges, (START_TOKEN, END_TOKEN, pad))
        for pad in (END_TOKEN, "!")
    ]
    reader = PromptReader(dict.fromkeys(MentionForm, tokenizers), max_clip_skip=0, limits=UNLIMITED)
    for style in PromptStyle:
        yield Reader(f"prompt, {style}", partial(_parse_prompt, style), patterns, 200_000)
        yield Reader(
            f"explanation, {style}", partial(_explain_prompt, reader, style), patterns, 20_000
        )

    by_step = {name: Pattern("", *two) for name, two in SCHEDULE_PATTERNS.items()}
    yield Reader("prompt by step", _schedule_prompt, patterns | by_step, 200_000)


def _schedule_prompt(text: str) -> None:
    parse_schedule(text, Steps(30), UNLIMITED, style=PromptStyle.A1111)


def _parse_prompt(style: PromptStyle, text: str) -> None:
    parse(text, UNLIMITED, style=style)


def _explain_prompt(reader: PromptReader, style: PromptStyle, text: str) -> None:
    reader.explain(text, "", style)


def _http_readers() -> Iterator[Reader]:
    served = _served()
    endpoints = native_endpoints(served)
    table = EndpointTable(endpoints)
    body = next(one.body for one in endpoints if one.body is not None)
    assert body.head_check is HeadCheck.STRICT
    tokens, origins = AccessTokens(frozenset({b"0" * 32})), Origins(("https://a.example",), True)

    def read_header(name: bytes, text: str) -> None:
        value = text.encode("latin-1", errors="replace")
        headers = [(b"host", b"a"), (name, value)]
        scope = {"headers": headers, "path": "/generate", "query_string": b""}
        refuse_headers(scope)
        refuse_body_headers(scope, body)
        origins.refuse(scope)
        tokens.allow([value])

    def read_host(text: str) -> None:
        value = text.encode("latin-1", errors="replace")
        scope = {"headers": [(b"host", value), (b"origin", b"https://" + value)]}
        origins.refuse(scope)

    for name, before in (
        ("content-type", "application/json"),
        ("content-encoding", ""),
        ("authorization", "Bearer "),
        ("origin", "https://"),
    ):
        read = partial(read_header, name.encode())
        yield Reader(f"header {name}", read, _repeated(_HEADERS, before), LONGEST_HEADER)
    yield Reader("header host", read_host, _repeated(_HEADERS), LONGEST_HEADER)
    yield Reader("path", table.find, _repeated({"levels": "/a"}, "/"), LONGEST_HEADER)


def _json_readers() -> Iterator[Reader]:
    patterns = {
        **_repeated({}, '{"prompt":"', '"}'),
        **{f"names of {name}": one for name, one in _repeated({}, '{"', '":0}').items()},
        **{f"values, {name}": Pattern('{"a":[', part, "", "0]}") for name, part in _JSON.items()},
        **{f"fields, {name}": Pattern("{", part, "", '"a":0}') for name, part in _JSON.items()},
        **{
            f"items, {name}": Pattern('{"requests":[', part, "", "0]}")
            for name, part in _JSON.items()
        },
        "many fields": Pattern("{", '"k":0,', "", '"a":0}'),
        "nested lists": Pattern('{"prompt":', "[", "]", "}"),
        "nested objects": Pattern('{"loras":', '{"a":', "}", "}"),
        "unclosed lists": Pattern('{"requests":', "[", "", ""),
        "LoRAs": Pattern('{"prompt":"a","loras":[', '{"name":"a"},', "", '{"name":"a"}]}'),
        "escapes": Pattern('{"prompt":"', "\\u0061", "", '"}'),
    }
    for endpoint in native_endpoints(_served()):
        if endpoint.body is not None:
            parse_body = endpoint.body.parse

            def read(text: str, parse_body: Callable[[Payload], object] = parse_body) -> None:
                parse_body(Payload(text.encode(errors="replace"), "application/json", b""))

            yield Reader(f"body of {endpoint.path}", read, patterns)
    yield Reader("safetensors header", _read_header, patterns)
    yield Reader("answer of Civitai", _read_version, patterns)


def _read_header(text: str) -> None:
    with suppress(ValueError):
        parse_header_json(text.encode(errors="replace"))


def _read_version(text: str) -> None:
    parse_version(text.encode(errors="replace"), 1)


def _file_readers() -> Iterator[Reader]:
    yield Reader("name of a file", safe_file_name, _repeated({}, "", ".safetensors"))
    yield Reader(
        "content-disposition",
        partial(name_download, "https://a.example/b"),
        _repeated(_HEADERS, "attachment"),
    )
    yield Reader(
        "address of a download",
        lambda text: name_download(f"https://a.example/{text}", ""),
        _repeated(_HEADERS),
    )
    yield Reader("headers of an answer", _check_answer, _repeated(_HEADERS))
    yield Reader("name of a LoRA's tensor", _read_tensor_name, _repeated(_NAMES))
    yield Reader("name of an add-on", slug, _repeated({}))
    yield Reader("note of a file", clean_text, _repeated({}))


def _parameters_readers() -> Iterator[Reader]:
    offered = Offered("a", "0" * 64, {"detail": "0" * 64}, {"hands": "0" * 64})

    def read(text: str) -> None:
        to_request(read_text(text), offered)

    patterns = {
        **_repeated(_PAIRS),
        **{
            f"pairs, {name}": one
            for name, one in _repeated(_PAIRS, "a\nSteps: 2, Seed: 1, ").items()
        },
        **{
            f"a string, {name}": one
            for name, one in _repeated(_PAIRS, 'a\nSteps: 2, Seed: 1, Model: "', '"').items()
        },
        **{
            f"prompts, {name}": one
            for name, one in _repeated(_PAIRS, "a", "\nSteps: 2, Seed: 1, Size: 8x8").items()
        },
        "hashes": Pattern('Steps: 2, Seed: 1, Lora hashes: "', "ab: 00, ", "", '"'),
        "names of hashes": Pattern('Steps: 2, Seed: 1, Lora hashes: "', "ab, ", "", '"'),
        "a deep list": Pattern("Steps: 2, Seed: 1, Civitai resources: ", "[", "]"),
        "a list": Pattern("Steps: 2, Seed: 1, Civitai resources: [", '{"type":"lora"},', "", "]"),
    }
    # A block of pairs is at most 64 Ki characters: beyond that all of it is a prompt.
    yield Reader("parameters text", read, patterns, LONGEST_BLOCK // 2)
    yield Reader("Exif", lambda text: read_exif_texts(b"MM" + text.encode()), _repeated({}))


def _check_answer(text: str) -> None:
    asked = Asked("a.example", None, has_key=False)
    for headers in ({"content-type": text}, {"content-encoding": text}):
        with suppress(LpwSdxlError):
            check_answer(asked, 200, headers)
    check_answer(asked, 429, {"retry-after": text})


def _read_tensor_name(text: str) -> None:
    split_name(text)
    is_foreign(text)
    harmless_reason(text)


def _served() -> ServedLimits:
    settings = Settings(max_prompt_characters=10_000_000, max_batch_items=1024)
    return ServedLimits.from_settings(settings, ImageSize(1024, 1024))

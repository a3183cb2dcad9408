"""Bodies as a whole: no JSON, or JSON of the wrong shape."""

# A row for each case, however long.  # ruff: noqa: E501
from __future__ import annotations

from bad_requests.case import Bad, item, to, wire

# fmt: off
CASES: dict[str, list[Bad]] = {
    "malformed JSON": [
        Bad("nothing at all", "", None, "the body is not valid JSON: EOF while parsing a value at line 1 column 0"),
        Bad("white space", "  \n", None, "the body is not valid JSON: EOF while parsing a value at line 2 column 0"),
        Bad("an open brace", "{", None, "the body is not valid JSON: EOF while parsing an object at line 1 column 1"),
        Bad("a text that is cut off", '{"prompt": "a', None, "the body is not valid JSON: EOF while parsing a string at line 1 column 13"),
        Bad("a trailing comma", '{"prompt": "a",}', None, "the body is not valid JSON: trailing comma at line 1 column 16"),
        Bad("single quotes", "{'prompt': 'a'}", None, "the body is not valid JSON: key must be a string at line 1 column 2"),
        Bad("a comment", '{"prompt": "a"} // b', None, "the body is not valid JSON: trailing characters at line 1 column 17"),
        Bad("two documents", '{"prompt": "a"}{"prompt": "b"}', None, "the body is not valid JSON: trailing characters at line 1 column 16"),
        Bad("a bare word", "prompt", None, "the body is not valid JSON: expected value at line 1 column 1"),
        Bad("a name without quotes", '{prompt: "a"}', None, "the body is not valid JSON: key must be a string at line 1 column 2"),
        Bad("a byte order mark", '\ufeff{"prompt": "a"}', None, "the body is not valid JSON: expected value at line 1 column 1"),
        Bad("UTF-16", '{"prompt": "a"}'.encode("utf-16"), None, "the body is not valid JSON: expected value at line 1 column 1"),
        Bad("bytes that are not UTF-8", b'{"prompt": "\xff\xfe"}', None, "the body is not valid JSON: invalid unicode code point at line 1 column 13"),
        Bad("an overlong NUL", b'{"prompt": "\xc0\x80"}', None, "the body is not valid JSON: invalid unicode code point at line 1 column 13"),
        Bad("a raw line end in a text", '{"prompt": "a\nb"}', None, "the body is not valid JSON: control character (\\u0000-\\u001F) found while parsing a string at line 2 column 0"),
        Bad("a raw tab in a text", '{"prompt": "a\tb"}', None, "the body is not valid JSON: control character (\\u0000-\\u001F) found while parsing a string at line 1 column 14"),
        Bad("a raw NUL in a text", '{"prompt": "\0"}', None, "the body is not valid JSON: control character (\\u0000-\\u001F) found while parsing a string at line 1 column 13"),
        Bad("an unknown escape", '{"prompt": "\\x41"}', None, "the body is not valid JSON: invalid escape at line 1 column 14"),
        Bad("half an escape", '{"prompt": "\\u12"}', None, "the body is not valid JSON: invalid escape at line 1 column 17"),
        Bad("a pickle", b"\x80\x04\x95.", None, "the body is not valid JSON: expected value at line 1 column 1"),
        Bad("a zero before a number", '{"prompt": "a", "seed": 01}', None, "the body is not valid JSON: invalid number at line 1 column 26"),
        Bad("a hexadecimal number", '{"prompt": "a", "seed": 0x10}', None, "the body is not valid JSON: expected `,` or `}` at line 1 column 26"),
        Bad("a plus before a number", '{"prompt": "a", "seed": +1}', None, "the body is not valid JSON: expected value at line 1 column 25"),
        Bad("a number without its zero", '{"prompt": "a", "guidance_scale": .5}', None, "the body is not valid JSON: expected value at line 1 column 35"),
        Bad("a number that ends in a dot", '{"prompt": "a", "guidance_scale": 5.}', None, "the body is not valid JSON: invalid number at line 1 column 37"),
        Bad("a number of 5,000 digits", f'{{"prompt": "a", "seed": {"9" * 5000}}}', None, "the body is not valid JSON: number out of range at line 1 column 4326"),
        Bad("nan in small letters", '{"prompt": "a", "guidance_scale": nan}', None, "the body is not valid JSON: expected ident at line 1 column 36"),
    ],
    "nested too deep": [
        Bad("60,000 lists", "[" * 60_000, None, "the body is not valid JSON: recursion limit exceeded at line 1 column 202"),
        Bad("8,000 objects", '{"a":' * 8_000, None, "the body is not valid JSON: recursion limit exceeded at line 1 column 1006"),
        Bad("lists in a field", f'{{"prompt": "a", "loras": {"[" * 20_000}{"]" * 20_000}}}', None, "the body is not valid JSON: recursion limit exceeded at line 1 column 226"),
        Bad("lists in an item", item("[" * 20_000 + "]" * 20_000), None, "the body is not valid JSON: recursion limit exceeded at line 1 column 214"),
        Bad("lists in an inspection", to("/inspect_prompt", "[" * 300), None, "the body is not valid JSON: recursion limit exceeded at line 1 column 202"),
    ],
    "no object": [
        Bad("null", "null", None, "the body is null; an object would be right"),
        Bad("a list", "[]", None, "the body is a list; an object would be right"),
        Bad("a text", '"a"', None, "the body is a string; an object would be right"),
        Bad("a number", "1", None, "the body is 1; an object would be right"),
        Bad("true", "true", None, "the body is true; an object would be right"),
        Bad("a list of one request", '[{"prompt": "a"}]', None, "the body is a list; an object would be right"),
        Bad("a list for an inspection", to("/inspect_prompt", []), None, "the body is a list; an object would be right"),
        Bad("null for the server's state", to("/info", None), None, "the body is null; an object would be right"),
    ],
    "lone surrogates": [
        Bad("a high one", '{"prompt": "a\\ud800"}', None, "the body is not valid JSON: unexpected end of hex escape at line 1 column 20"),
        Bad("a low one", '{"prompt": "\\udc00"}', None, "the body is not valid JSON: lone leading surrogate in hex escape at line 1 column 18"),
        Bad("a swapped pair", '{"prompt": "\\udc00\\ud800"}', None, "the body is not valid JSON: lone leading surrogate in hex escape at line 1 column 18"),
        Bad("one in UTF-8", b'{"prompt": "\xed\xa0\x80"}', None, "the body is not valid JSON: invalid unicode code point at line 1 column 13"),
        Bad("one in a negative prompt", '{"prompt": "a", "negative_prompt": "\\ud83d"}', None, "the body is not valid JSON: unexpected end of hex escape at line 1 column 43"),
        Bad("one in a field's name", '{"prompt": "a", "\\ud800": 1}', None, "the body is not valid JSON: unexpected end of hex escape at line 1 column 24"),
        Bad("one in an item", item('{"prompt": "\\ud800"}'), None, "the body is not valid JSON: unexpected end of hex escape at line 1 column 33"),
    ],
    "too large": [
        Bad("a prompt of 70,000 bytes", '{"prompt": "' + "a" * 70_000 + '"}', None, "the body is larger than the 65536 bytes accepted here", status=413, code="body_too_large"),
        Bad("white space of 66,000 bytes", " " * 66_000 + '{"prompt": "a"}', None, "the body is larger than the 65536 bytes accepted here", status=413, code="body_too_large"),
        Bad("an inspection", to("/inspect_prompt", "a" * 70_000), None, "the body is larger than the 65536 bytes accepted here", status=413, code="body_too_large"),
        Bad("a batch", to("/generate_batch", "[" * 70_000), None, "the body is larger than the 65536 bytes accepted here", status=413, code="body_too_large"),
        Bad("an empty object in much white space", to("/info", " " * 70_000 + "{}"), None, "the body is larger than the 1024 bytes accepted here", status=413, code="body_too_large"),
        Bad("chunks without an end", wire(b"transfer-encoding: chunked", body=(b"8000\r\n" + b"a" * 0x8000 + b"\r\n") * 3), None, "the body is larger than the 65536 bytes accepted here", status=413, code="body_too_large"),
    ],
}

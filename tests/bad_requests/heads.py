"""Errors before a body is read: path, method, headers, and HTTP itself."""

# A row for each case, however long.  # ruff: noqa: E501
from __future__ import annotations

import gzip

from bad_requests.case import Bad, Http, Wire, at, bare, typed, wire

# fmt: off
CASES: dict[str, list[Bad]] = {
    "unknown paths": [
        Bad("nowhere", at("/nowhere"), None, "there is nothing at this path; POST /generate makes an image", status=404, code="not_found"),
        Bad("a slash too many", at("/generate/"), None, "there is nothing at this path; POST /generate makes an image", status=404, code="not_found"),
        Bad("capitals", at("/Generate"), None, "there is nothing at this path; POST /generate makes an image", status=404, code="not_found"),
        Bad("a blank at the end", at("/generate%20"), None, "there is nothing at this path; POST /generate makes an image", status=404, code="not_found"),
        Bad("a NUL at the end", at("/generate%00"), None, "there is nothing at this path; POST /generate makes an image", status=404, code="not_found"),
        Bad("a parameter", at("/generate;a"), None, "there is nothing at this path; POST /generate makes an image", status=404, code="not_found"),
        Bad("a version", at("/v2/generate"), None, "there is nothing at this path; POST /generate makes an image", status=404, code="not_found"),
        Bad("a hidden file", at("/.env", "GET"), None, "there is nothing at this path; POST /generate makes an image", status=404, code="not_found"),
        Bad("a way out of the static files", at("/ui/%2e%2e/%2e%2e/service.py", "GET"), None, "there is nothing at this path; POST /generate makes an image", status=404, code="not_found"),
        Bad("3,000 characters", at("/" + "a" * 3000), None, "there is nothing at this path; POST /generate makes an image", status=404, code="not_found"),
        Bad("emoji", at("/%F0%9F%A6%8A", "GET"), None, "there is nothing at this path; POST /generate makes an image", status=404, code="not_found"),
        Bad("no path but a proxy's address", Wire(b"GET http://elsewhere/livez HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n"), None, "there is nothing at this path; POST /generate makes an image", status=404, code="not_found"),
        Bad("a tunnel", Wire(b"CONNECT elsewhere:443 HTTP/1.1\r\nhost: elsewhere\r\nconnection: close\r\n\r\n"), None, "there is nothing at this path; POST /generate makes an image", status=404, code="not_found"),
    ],
    "methods": [
        Bad("GET of an endpoint", at("/generate", "GET"), None, "this path does not take this method; it takes POST", status=405, code="method_not_allowed"),
        Bad("PUT of an endpoint", at("/generate", "PUT"), None, "this path does not take this method; it takes POST", status=405, code="method_not_allowed"),
        Bad("DELETE of an endpoint", at("/generate_batch", "DELETE"), None, "this path does not take this method; it takes POST", status=405, code="method_not_allowed"),
        Bad("PATCH of an endpoint", at("/inspect_prompt", "PATCH"), None, "this path does not take this method; it takes POST", status=405, code="method_not_allowed"),
        Bad("OPTIONS of an endpoint", at("/info", "OPTIONS"), None, "this path does not take this method; it takes POST", status=405, code="method_not_allowed"),
        Bad("TRACE of an endpoint", at("/generate", "TRACE"), None, "this path does not take this method; it takes POST", status=405, code="method_not_allowed"),
        Bad("an unknown method", at("/generate", "BREW"), None, "this path does not take this method; it takes POST", status=405, code="method_not_allowed"),
        Bad("POST to a probe", at("/livez"), None, "this path does not take this method; it takes GET, HEAD", status=405, code="method_not_allowed"),
        Bad("POST to the metrics", at("/metrics"), None, "this path does not take this method; it takes GET, HEAD", status=405, code="method_not_allowed"),
        Bad("PUT of this document", at("/docs.json", "PUT"), None, "this path does not take this method; it takes GET, HEAD", status=405, code="method_not_allowed"),
        Bad("DELETE of the page", at("/", "DELETE"), None, "this path does not take this method; it takes GET, HEAD", status=405, code="method_not_allowed"),
        Bad("POST to a static file", at("/ui/main.js"), None, "this path does not take this method; it takes GET, HEAD, OPTIONS", status=405, code="method_not_allowed"),
    ],
    "media types": [
        Bad("none", bare(None), None, "the body must be application/json, in UTF-8", status=415, code="unsupported_media_type"),
        Bad("text", bare("text/plain"), None, "the body must be application/json, in UTF-8", status=415, code="unsupported_media_type"),
        Bad("a form", bare("application/x-www-form-urlencoded", b"prompt=a"), None, "the body must be application/json, in UTF-8", status=415, code="unsupported_media_type"),
        Bad("a form of parts", bare("multipart/form-data; boundary=x", b"--x--"), None, "the body must be application/json, in UTF-8", status=415, code="unsupported_media_type"),
        Bad("a pickle", bare("application/vnd.bentoml+pickle"), None, "the body must be application/json, in UTF-8", status=415, code="unsupported_media_type"),
        Bad("XML", bare("text/xml"), None, "the body must be application/json, in UTF-8", status=415, code="unsupported_media_type"),
        Bad("bytes", bare("application/octet-stream"), None, "the body must be application/json, in UTF-8", status=415, code="unsupported_media_type"),
        Bad("a kind of JSON", bare("application/json-patch+json"), None, "the body must be application/json, in UTF-8", status=415, code="unsupported_media_type"),
        Bad("nothing", bare(""), None, "the body must be application/json, in UTF-8", status=415, code="unsupported_media_type"),
        Bad("anything", bare("*/*"), None, "the body must be application/json, in UTF-8", status=415, code="unsupported_media_type"),
        Bad("two of them", bare("application/json, text/plain"), None, "the body must be application/json, in UTF-8", status=415, code="unsupported_media_type"),
        Bad("JSON second", Wire(b"POST /generate HTTP/1.1\r\nhost: here\r\ncontent-type: text/plain\r\ncontent-type: application/json\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}"), None, "the body must be application/json, in UTF-8", status=415, code="unsupported_media_type"),
        Bad("bytes that are no letters", Wire(b"POST /generate HTTP/1.1\r\nhost: here\r\ncontent-type: \xff\xfe\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}"), None, "the body must be application/json, in UTF-8", status=415, code="unsupported_media_type"),
        Bad("text for the server's state", bare("text/plain", path="/info"), None, "the body must be application/json, in UTF-8", status=415, code="unsupported_media_type"),
        Bad("text that is too large", bare("text/plain", b"a" * 70_000), None, "the body must be application/json, in UTF-8", status=415, code="unsupported_media_type"),
    ],
    "encodings and queries": [
        Bad("gzip", Http(body=gzip.compress(b"{}"), headers=typed("application/json", content_encoding="gzip")), None, "a body with a content-encoding is not read; it must be sent as plain JSON", status=415, code="unsupported_media_type"),
        Bad("gzip that is none", Http(headers=typed("application/json", content_encoding="gzip")), None, "a body with a content-encoding is not read; it must be sent as plain JSON", status=415, code="unsupported_media_type"),
        Bad("br", Http(headers=typed("application/json", content_encoding="br")), None, "a body with a content-encoding is not read; it must be sent as plain JSON", status=415, code="unsupported_media_type"),
        Bad("Latin-1", Http(body='{"prompt": "é"}'.encode("latin-1"), headers=typed("application/json")), None, "the body is not valid JSON: invalid unicode code point at line 1 column 13"),
        Bad("a query", at("/generate?seed=7"), None, "the address has a query, which is not read; fields belong into the JSON body"),
        Bad("a query of an inspection", Http(path="/inspect_prompt?prompt=b", body=b'{"prompt": "a"}'), None, "the address has a query, which is not read; fields belong into the JSON body"),
    ],
    "no HTTP": [
        Bad("two lengths", wire(b"content-length: 2", b"content-length: 3", body=b"{}x"), None, "Invalid HTTP request received.", code="no_http"),
        Bad("a length below 0", wire(b"content-length: -1"), None, "Invalid HTTP request received.", code="no_http"),
        Bad("a length in words", wire(b"content-length: ten", body=b"{}"), None, "Invalid HTTP request received.", code="no_http"),
        Bad("a length of 26 digits", wire(b"content-length: 99999999999999999999999999", body=b"{}"), None, "Invalid HTTP request received.", code="no_http"),
        Bad("a header without a colon", wire(b"no colon here"), None, "Invalid HTTP request received.", code="no_http"),
        Bad("a NUL in a header", wire(b"x-a: a\0b", b"content-length: 2", body=b"{}"), None, "Invalid HTTP request received.", code="no_http"),
        Bad("another transfer encoding", wire(b"transfer-encoding: gzip, chunked", body=b"2\r\n{}\r\n0\r\n\r\n"), None, "Invalid HTTP request received.", code="no_http"),
        Bad("no host", Wire(b"GET /livez HTTP/1.1\r\nconnection: close\r\n\r\n"), None, "Invalid HTTP request received.", code="no_http"),
        Bad("no version", Wire(b"GET /livez\r\n\r\n"), None, "Invalid HTTP request received.", code="no_http"),
        Bad("TLS", Wire(b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n"), None, "Invalid HTTP request received.", code="no_http"),
        Bad("a method with a control character", Wire(b"GE\x01T / HTTP/1.1\r\nhost: here\r\n\r\n"), None, "Invalid HTTP request received.", code="no_http"),
        Bad("bytes in a path", Wire(b"GET /\xff HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n"), None, "Invalid HTTP request received.", code="no_http"),
    ],
}

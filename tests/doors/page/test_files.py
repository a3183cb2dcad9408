"""The files of the page: small, complete, without markup from data, and with their headers."""

from __future__ import annotations

import gzip
import re

import pytest
from starlette.datastructures import Headers

from lpw_sdxl.doors.page.files import HEADERS, INDEX, PageFile, read_files

FILES = {file.name: file for file in read_files()}
TEXTS = {name: file.content.decode() for name, file in FILES.items()}
MODULES = {name: text for name, text in TEXTS.items() if name.endswith(".js")}
MOST_BYTES = 150 * 1024
LONGEST_FILE = 300
# Ways of text to become markup or a script, and of a page to keep what it should not.
FORBIDDEN = (
    *("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "DOMParser", "srcdoc"),
    *("createContextualFragment", "setHTML", "eval(", "new Function", "javascript:"),
    *("document.cookie", "localStorage"),
)


def ask(file: PageFile, **headers: str) -> tuple[int, bytes, dict[str, str]]:
    given = Headers({name.replace("_", "-"): value for name, value in headers.items()})
    response = file.response(given)
    return response.status_code, bytes(response.body), dict(response.headers)


def test_all_of_it_is_at_most_150_kb_compressed() -> None:
    assert sum(len(file.compressed) for file in FILES.values()) <= MOST_BYTES


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_a_file_is_short_and_says_what_it_holds(name: str) -> None:
    text = TEXTS[name]
    assert len(text.splitlines()) <= LONGEST_FILE
    if name.endswith(".js"):
        assert text.startswith("// ")
    if name.endswith(".css"):
        assert text.startswith("/* ")


@pytest.mark.parametrize("name", sorted(MODULES))
def test_no_data_becomes_markup(name: str) -> None:
    assert [word for word in FORBIDDEN if word in MODULES[name]] == []
    # An element gets attributes by name; none of them is a handler or a style.
    assert not re.search(r"setAttribute\(\"(on|style)", MODULES[name])
    assert not re.search(r"[{,] (on(?!ce)[a-z]+|style): [^{]", MODULES[name])


def test_the_markup_has_no_script_and_no_style_of_its_own() -> None:
    index = TEXTS[INDEX]
    assert not re.search(r"<script(?![^>]* src=)", index)
    assert "<style" not in index
    assert not re.search(r"\s(on\w+|style)=", index)
    assert not re.search(r"(?:src|href)=\"(?:/|https?:)", index)  # relative: behind a prefix, too


def test_every_module_is_loaded_at_once_and_used() -> None:
    preloaded = set(re.findall(r'modulepreload" href="ui/([\w.]+)"', TEXTS[INDEX])) | {"main.js"}
    assert preloaded == set(MODULES)
    imported = {
        name for text in MODULES.values() for name in re.findall(r'from "\./([\w.]+)"', text)
    }
    assert imported | {"main.js"} == set(MODULES)
    named = set(re.findall(r'="ui/([\w.]+)"', TEXTS[INDEX]))
    assert named | {INDEX} == set(FILES)


def test_what_a_module_imports_is_there_and_used() -> None:
    for name, text in MODULES.items():
        for names, source in re.findall(r'^import \{([^}]*)\} from "\./([\w.]+)";', text, re.M):
            for one in filter(None, (word.strip() for word in names.split(","))):
                exported = rf"export (?:async )?(?:function\*?|class|const) {one}\b"
                assert re.search(exported, TEXTS[source]), (name, one)
                assert len(re.findall(rf"\b{one}\b", text)) > 1, (name, one)


def test_every_exported_name_is_used_elsewhere() -> None:
    for name, text in MODULES.items():
        for one in re.findall(r"^export (?:async )?(?:function\*?|class|const) (\w+)", text, re.M):
            others = [other for other_name, other in MODULES.items() if other_name != name]
            namespace = f"json.{one}" if name == "json.js" else one
            inside = len(re.findall(rf"\b{one}\b", text)) > 1
            assert inside or any(re.search(rf"\b{namespace}\b", other) for other in others), (
                name,
                one,
            )


def test_the_policy_allows_files_of_the_server_only() -> None:
    policy = HEADERS["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"https?:|\*|data:", policy)


@pytest.mark.parametrize(
    ("accepted", "is_compressed"),
    [
        ("gzip", True),
        ("br, GZIP;q=0.5", True),
        ("*", True),
        ("", False),
        ("br", False),
        ("gzip;q=0", False),
        ("gzip; q=0.000, br", False),
    ],
)
def test_a_file_is_compressed_where_it_is_accepted(accepted: str, is_compressed: bool) -> None:
    file = FILES["main.js"]
    status, body, headers = ask(file, accept_encoding=accepted)
    assert status == 200
    assert (gzip.decompress(body) if is_compressed else body) == file.content
    assert ("content-encoding" in headers) == is_compressed
    assert headers["vary"] == "accept-encoding"


def test_a_client_that_has_a_file_gets_none() -> None:
    file = FILES["main.js"]
    tag = ask(file)[2]["etag"]
    packed_tag = ask(file, accept_encoding="gzip")[2]["etag"]
    assert tag != packed_tag
    for known in (tag, f"W/{tag}", f'"other", {tag}'):
        status, body, headers = ask(file, if_none_match=known)
        assert (status, body) == (304, b"")
        assert headers["etag"] == tag
        assert "content-length" not in headers
    assert ask(file, if_none_match='"other"')[0] == 200
    assert ask(file, if_none_match=packed_tag, accept_encoding="gzip")[0] == 304

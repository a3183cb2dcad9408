"""What SOURCE means, and which URLs are refused before anything is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from lpw_sdxl.download.filename import DEFAULT_NAME, name_download, safe_file_name
from lpw_sdxl.download.source import (
    LocalSource,
    Source,
    parse_source,
    read_kinds,
    source_modules,
    usage,
)
from lpw_sdxl.download.sources.civitai import CivitaiSource
from lpw_sdxl.download.sources.https import UrlSource
from lpw_sdxl.errors import CheckpointError

CANARY = "c4nary-0f-a-key"
MIRROR = "http://127.0.0.1:9000"

SOURCES = {
    "plain path": ("model.safetensors", LocalSource(Path("model.safetensors"))),
    "path with colon": ("./a:b.safetensors", LocalSource(Path("./a:b.safetensors"))),
    "drive": ("C:\\models\\a.safetensors", LocalSource(Path("C:\\models\\a.safetensors"))),
    "title": (
        "my model v1: final.safetensors",
        LocalSource(Path("my model v1: final.safetensors")),
    ),
    "Civitai": ("civitai:2514310", CivitaiSource(2514310, MIRROR)),
    "Civitai in capitals": ("Civitai:2514310", CivitaiSource(2514310, MIRROR)),
    "https": ("https://example.org/a.safetensors", UrlSource("https://example.org/a.safetensors")),
    "fragment": ("https://example.org/a#part", UrlSource("https://example.org/a")),
    "host in capitals": ("HTTPS://Example.ORG/A", UrlSource("https://example.org/A")),
    "loopback name": ("http://localhost:80/a", UrlSource("http://localhost:80/a")),
    "loopback": ("http://127.3.2.1/a", UrlSource("http://127.3.2.1/a")),
    "loopback of IPv6": ("http://[::1]:3000/a", UrlSource("http://[::1]:3000/a")),
    "presigned": (
        "https://s3.example.org/a?X-Amz-Security-Token=a&X-Amz-Signature=b&sig=c",
        UrlSource("https://s3.example.org/a?X-Amz-Security-Token=a&X-Amz-Signature=b&sig=c"),
    ),
    "page": ("https://civitai.com/models/1/a-name?modelVersionId=456", CivitaiSource(456, MIRROR)),
    "page without name": (
        "https://www.civitai.com/models/1?modelVersionId=456",
        CivitaiSource(456, MIRROR),
    ),
    "page on .red": (
        "https://civitai.red/models/1/n?modelVersionId=456",
        CivitaiSource(456, MIRROR),
    ),
    "page of the mirror": (
        "http://127.0.0.1:9000/models/1?modelVersionId=456",
        CivitaiSource(456, MIRROR),
    ),
    "another port": (
        "http://127.0.0.1:9001/models/1?modelVersionId=456",
        UrlSource("http://127.0.0.1:9001/models/1?modelVersionId=456"),
    ),
    "download": ("https://civitai.com/api/download/models/456", CivitaiSource(456, MIRROR)),
    "download from an advert": (
        "https://civitai.com/api/download/models/456?utm_source=x",
        CivitaiSource(456, MIRROR),
    ),
    "download of another file": (
        "https://civitai.com/api/download/models/456?type=Model&format=SafeTensor&size=full&fp=fp32",
        UrlSource(
            "https://civitai.com/api/download/models/456?type=Model&format=SafeTensor&size=full&fp=fp32"
        ),
    ),
    "page elsewhere": (
        "https://civitai.com.example.org/models/1?modelVersionId=2",
        UrlSource("https://civitai.com.example.org/models/1?modelVersionId=2"),
    ),
}


@pytest.fixture(autouse=True)
def _mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LPW_SDXL_CIVITAI_URL", MIRROR)


def parse(text: str) -> LocalSource | Source:
    return parse_source(text, read_kinds())


@pytest.mark.parametrize(("text", "source"), SOURCES.values(), ids=SOURCES.keys())
def test_source_is_understood(text: str, source: object):
    assert parse(text) == source


def test_every_module_of_sources_is_found_and_the_one_for_any_url_is_asked_last():
    assert len(source_modules()) == len(read_kinds()) >= 2
    assert [kind.takes_any_url for kind in read_kinds()][-1]
    assert usage().startswith("a .safetensors file, ")


def test_no_two_sources_share_a_folder():
    texts = ("civitai:1", "civitai:11", "https://civitai/1", "https://a/1", "https://a/1?b=2")
    folders = {parse(text).folder_name for text in texts}
    assert len(folders) == len(texts)


def test_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/home/someone")
    assert parse("~/a.safetensors") == LocalSource(Path("/home/someone/a.safetensors"))
    with pytest.raises(CheckpointError, match="not known"):
        parse("~nobody-of-this-name/a.safetensors")


REFUSED = {
    "empty": (" ", "empty"),
    "Civitai without a number": (f"civitai:{CANARY}", "modelVersionId="),
    "Civitai with a model too": ("civitai:1@2", "modelVersionId="),
    "Civitai 0": ("civitai:0", "modelVersionId="),
    "Civitai with other digits": ("civitai:١٢", "modelVersionId="),
    "page of all versions": ("https://civitai.com/models/123/a-name", "civitai:VERSION_ID"),
    "page with no number": ("https://civitai.com/models/1?modelVersionId=x", "civitai:VERSION_ID"),
    "http": ("http://example.org/a", "https is needed"),
    "http of a private network": ("http://192.168.0.2/a", "https is needed"),
    "http that looks like loopback": ("http://127.0.0.1.example.org/a", "https is needed"),
    "user": (f"https://me:{CANARY}@example.org/a", "before the @"),
    "ftp": ("ftp://example.org/a", "of ftp: is not supported"),
    "s3": ("s3://bucket/a", "of s3: is not supported"),
    "hf": ("hf://org/model", "of hf: is not supported"),
    "file": ("file:///a.safetensors", "an https URL or civitai:VERSION_ID is right"),
    "no host": ("https:///a", "can't be read"),
    "port": ("https://example.org:99999/a", "can't be read"),
    "brackets": ("https://[::1/a", "can't be read"),
    "space": ("https://example.org/a b", "%20"),
    "line break": ("https://example.org/a\nb", "can't be read"),
}


@pytest.mark.parametrize(("text", "part"), REFUSED.values(), ids=REFUSED.keys())
def test_other_sources_are_refused_in_one_sentence(text: str, part: str):
    with pytest.raises(CheckpointError) as refused:
        parse(text)
    assert part in str(refused.value)
    assert str(refused.value).endswith(".")
    assert CANARY not in repr(refused.value)


@pytest.mark.parametrize(
    "name",
    [
        *("token", "TOKEN", "t%6Fken", "access_token", "private_token", "Authorization", "auth"),
        *("key", "api_key", "ApiKey", "api-key", "client_secret", "password"),
    ],
)
@pytest.mark.parametrize("form", ["?{}={}", "?a=1&{}={}", "?a=1;{}={}"])
def test_key_in_a_url_is_refused_without_repeating_it(name: str, form: str):
    url = "https://civitai.com/api/download/models/4" + form.format(name, CANARY)
    with pytest.raises(CheckpointError, match="CIVITAI_TOKEN") as refused:
        parse(url)
    assert name.replace("%6F", "o") in str(refused.value)
    assert CANARY not in repr(refused.value)


def test_public_form_holds_nothing_private():
    source = parse(f"https://example.org:8443/folder/a?sig={CANARY}#part")
    assert source.public == "https://example.org:8443/folder/a"
    assert CANARY not in repr(source)
    assert parse("civitai:456").public == "civitai:456"
    assert parse("/home/someone/a.safetensors").public == "file:a.safetensors"


NAMES = {
    "plain": ("a.safetensors", "a.safetensors"),
    "capitals": ("A.SafeTensors", "A.safetensors"),
    "folder": ("../../etc/a.safetensors", "a.safetensors"),
    "Windows folder": ("C:\\x\\a.safetensors", "a.safetensors"),
    "hidden": ("...a.safetensors", "a.safetensors"),
    "spaces": ("  a  b .safetensors ", "a  b.safetensors"),
    "control characters": ("a\x1b[2J\u202eb.safetensors", "a[2Jb.safetensors"),
    "reserved": ('a<>:"|?*.safetensors', "a_______.safetensors"),
    "other letters": ("模型.safetensors", "模型.safetensors"),
    "only the ending": (".safetensors", None),
    "nothing": ("", None),
    "folder only": ("a.safetensors/", None),
    "pickle": ("a.ckpt", None),
    "surrogate": ("a\ud800.safetensors", "a.safetensors"),
}


@pytest.mark.parametrize(("text", "name"), NAMES.values(), ids=NAMES.keys())
def test_file_name_is_made_safe(text: str, name: str | None):
    assert safe_file_name(text) == name


@pytest.mark.parametrize("letter", ["a", "模"])
def test_long_name_fits_a_file_system(letter: str):
    name = safe_file_name(letter * 400 + ".safetensors")
    assert name is not None
    assert name.startswith(letter * 50)
    assert name.endswith(".safetensors")
    assert len(name) <= 150
    assert len(f"{name}.part".encode()) <= 255


DISPOSITIONS = {
    "none": ("", "in-url.safetensors"),
    "token": ("attachment; filename=a.safetensors", "a.safetensors"),
    "quoted": ('attachment; filename="a \\"b\\".safetensors"', "a _b_.safetensors"),
    "extended": (
        "attachment; filename=\"x.safetensors\"; filename*=UTF-8''%E6%A8%A1.safetensors",
        "模.safetensors",
    ),
    "Latin 1": ("attachment; filename*=iso-8859-1'en'%E9.safetensors", "é.safetensors"),
    "path": ('attachment; filename="/etc/a.safetensors"', "a.safetensors"),
    "other ending": ("attachment; filename=a.zip", "in-url.safetensors"),
    "nonsense": ("filename", "in-url.safetensors"),
}


@pytest.mark.parametrize(("header", "name"), DISPOSITIONS.values(), ids=DISPOSITIONS.keys())
def test_server_names_the_file_and_else_the_url(header: str, name: str):
    assert name_download("https://example.org/x/in%2Durl.safetensors?a=b.zip", header) == name


def test_file_without_a_name_has_one():
    assert name_download("https://example.org/x/", "") == DEFAULT_NAME
    assert name_download("https://example.org/x/a.zip?n=b.safetensors", "") == DEFAULT_NAME

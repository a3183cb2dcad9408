"""A model version's record: what is read from it, and what a strange one can't do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from lpw_sdxl.download.answers import TransientError
from lpw_sdxl.download.http import open_client
from lpw_sdxl.download.remote import RemoteFile
from lpw_sdxl.download.sources.civitai import (
    CivitaiSettings,
    CivitaiSource,
    make_kind,
    parse_version,
)
from lpw_sdxl.errors import CheckpointError, SettingsError, UnsupportedCheckpointError
from lpw_sdxl.settings import read_settings
from lpw_sdxl.store.origin import AuthorNotes
from web import Endless, Status, WebServer, civitai_record, json_answer, login_page, redirect

URL = "https://civitai.com/api/download/models/456"
PATH = "/api/v1/model-versions/456"
SHA256 = "A5F58EB1C336" + "0" * 52


@pytest.fixture
def server() -> Iterator[WebServer]:
    with WebServer() as server:
        yield server


def ask(server: WebServer, token: str = "") -> RemoteFile:
    kind = make_kind(CivitaiSettings(civitai_token=token, civitai_url=server.url()))
    assert kind.key is not None
    with open_client([kind.key]) as client:
        return CivitaiSource(456, server.url()).describe(client)


def parse(**changes: Any) -> RemoteFile:
    return parse_version(json.dumps(civitai_record(456, URL, **changes)).encode(), 456)


def test_record_as_documented_is_read(server: WebServer):
    file = {"sizeKB": 6775430.35, "hashes": {"SHA256": SHA256, "CRC32": "DAEE95B7"}}
    server.on(PATH, json_answer(civitai_record(456, URL, file=file)))
    assert ask(server) == RemoteFile(
        url=URL,
        file_name="waiIllustriousSDXL_v160.safetensors",
        size=6938040678,
        sha256=SHA256.lower(),
        notes=AuthorNotes(
            "WAI-illustrious-SDXL v16.0", "Illustrious", ("masterpiece", "best quality")
        ),
    )
    assert server.requests[0].headers["accept-encoding"] == "identity"
    assert server.requests[0].key is None


def test_key_is_sent_in_a_header_only(server: WebServer):
    server.on(PATH, json_answer(civitai_record(456, URL)))
    ask(server, token="secret-key")
    assert server.requests[0].key == "Bearer secret-key"
    assert server.requests[0].query == ""


def test_record_with_nulls_and_gaps_is_read():
    version = parse(baseModel=None, trainedWords=None, model=None, name=None, file={"hashes": {}})
    assert version.notes == AuthorNotes()
    assert version.size is None
    assert version.sha256 is None


def test_usual_safetensors_file_is_chosen():
    def file(name: str, kind: str, dialect: str | None, **more: object) -> dict[str, object]:
        metadata = {"format": dialect} if dialect else {}
        return {
            "name": name,
            "type": kind,
            "metadata": metadata,
            "downloadUrl": URL + "?" + name,
        } | more

    files = [
        file("a.yaml", "Config", "Other"),
        file("b.ckpt", "Model", "PickleTensor", primary=True),
        file("c.safetensors", "VAE", "SafeTensor"),
        file("d.safetensors", "Pruned Model", None),
        file("e.safetensors", "Model", "SafeTensor", primary=True),
    ]
    assert parse(files=files).file_name == "e.safetensors"
    assert parse(files=files).url.endswith("?e.safetensors")
    assert parse(files=files[:4]).file_name == "d.safetensors"
    with pytest.raises(UnsupportedCheckpointError) as refused:
        parse(files=files[:3])
    for named in ("a.yaml (Config, format Other)", "b.ckpt (Model", "c.safetensors (VAE"):
        assert named in str(refused.value)
    with pytest.raises(UnsupportedCheckpointError, match="no files at all"):
        parse(files=[])
    with pytest.raises(UnsupportedCheckpointError, match="95 more"):
        parse(files=files[:1] * 100)
    # An embedding for negative prompts, and one for both whose usual half is a pickle.
    negative = file("f.safetensors", "Negative", "SafeTensor")
    assert parse(files=[files[0], negative]).file_name == "f.safetensors"
    assert parse(files=[negative, files[4]]).file_name == "e.safetensors"
    with pytest.raises(UnsupportedCheckpointError, match="no model file in safetensors"):
        parse(files=[files[1], negative])


def test_text_of_strangers_is_cut_and_cleaned():
    version = parse(
        name="v\x1b[31m1\n2\u202e" + "x" * 1000,
        trainedWords=["w" * 1000, "two\nlines"] + ["more"] * 1000,
        file={"name": "../../\x07etc/.passwd"},
    )
    assert version.notes.title.startswith("WAI-illustrious-SDXL v[31m1 2xxx")
    assert len(version.notes.title) == len("WAI-illustrious-SDXL ") + 200
    assert len(version.notes.trained_words) == 100
    assert version.notes.trained_words[:2] == ("w" * 200, "two lines")
    assert version.file_name == "civitai-456.safetensors"


STRANGE = {
    "no JSON": (b"hello", "the whole"),
    "no object": (b"[]", "the whole"),
    "deep": (b'{"files":' + b"[" * 100_000, "the whole"),
    "long number": (b'{"id":' + b"9" * 10_000 + b"}", "is not"),
    "NaN": (b'{"id": 456, "files": [{"sizeKB": NaN}]}', "is not"),
    "no files": ({"files": None}, "files"),
    "files no list": ({"files": {}}, "files"),
    "file no object": ({"files": [3]}, "files.0"),
    "words no list": ({"trainedWords": "a"}, "trainedWords"),
    "word no text": ({"trainedWords": [3]}, "trainedWords.0"),
    "name no text": ({"name": 3}, "name"),
    "model no object": ({"model": "a"}, "model"),
    "id no number": ({"id": "456"}, "id"),
    "another version": ({"id": 457}, "457"),
    "size no number": ({"file": {"sizeKB": "3"}}, "sizeKB"),
    "size true": ({"file": {"sizeKB": True}}, "sizeKB"),
    "size negative": ({"file": {"sizeKB": -3}}, "size"),
    "size of 1 EB": ({"file": {"sizeKB": 1e15}}, "size"),
    "hash no text": ({"file": {"hashes": {"SHA256": 3}}}, "SHA256"),
    "hash too short": ({"file": {"hashes": {"SHA256": "A5F58EB1C3"}}}, "SHA-256"),
    "hash no digits": ({"file": {"hashes": {"SHA256": "x" * 64}}}, "SHA-256"),
    "no URL": ({"file": {"downloadUrl": None}}, "address"),
    "http": ({"file": {"downloadUrl": "http://example.org/a"}}, "https is needed"),
    "file URL": ({"file": {"downloadUrl": "file:///etc/passwd"}}, "address"),
    "password": ({"file": {"downloadUrl": "https://a:b@example.org/"}}, "address"),
}


@pytest.mark.parametrize(("changes", "part"), STRANGE.values(), ids=STRANGE.keys())
def test_strange_record_is_refused_in_one_sentence(changes: Any, part: str):
    is_raw = isinstance(changes, bytes)
    answer = changes if is_raw else json.dumps(civitai_record(456, URL, **changes)).encode()
    with pytest.raises(CheckpointError) as refused:
        parse_version(answer, 456)
    assert str(refused.value).startswith("Civitai answered something that is not ")
    assert part in str(refused.value)
    assert len(str(refused.value)) < 300
    assert "\n" not in str(refused.value)


FAILURES = {
    "unknown": (Status(404), "", "no model version 456"),
    "key wanted": (Status(401), "", "set CIVITAI_TOKEN"),
    "key wanted (403)": (Status(403), "", "set CIVITAI_TOKEN"),
    "key refused": (Status(401), "k", "refuses the key in CIVITAI_TOKEN"),
    "no access": (Status(403), "k", "early access"),
    "login page": (login_page(), "", "web page"),
    "login": (redirect("/login?returnUrl=/x&reason=download-auth"), "", "set CIVITAI_TOKEN"),
    "too long": (Endless(), "", "8,388,608"),
    "empty": (Status(200, b""), "", "is not a model version"),
    "compressed": (Status(200, b"", {"Content-Encoding": "gzip"}), "", "compressed"),
    "other status": (Status(418), "", "418"),
}


@pytest.mark.parametrize(("answer", "token", "part"), FAILURES.values(), ids=FAILURES.keys())
def test_failure_is_named(server: WebServer, answer: Any, token: str, part: str):
    server.on(PATH, answer)
    with pytest.raises(CheckpointError, match=part) as refused:
        ask(server, token)
    assert not isinstance(refused.value, TransientError)


def test_busy_server_is_a_failure_for_a_moment(server: WebServer):
    server.on(PATH, Status(503, headers={"Retry-After": "7"}))
    with pytest.raises(TransientError) as failed:
        ask(server)
    assert failed.value.retry_after_s == 7


def test_the_key_is_never_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIVITAI_TOKEN", "canary")
    settings = read_settings(CivitaiSettings)
    assert settings.civitai_token.get_secret_value() == "canary"
    kind = make_kind(settings)
    assert "canary" not in f"{settings!r} {settings} {settings.model_dump()} {kind!r}"


@pytest.mark.parametrize("url", ["civitai.com", "ftp://a", "https://a/b", "https://u@a"])
def test_an_address_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("LPW_SDXL_CIVITAI_URL", url)
    with pytest.raises(SettingsError, match="LPW_SDXL_CIVITAI_URL"):
        read_settings(CivitaiSettings)


def test_an_address_without_encryption_is_refused() -> None:
    with pytest.raises(CheckpointError, match="LPW_SDXL_CIVITAI_URL can't be used"):
        make_kind(CivitaiSettings(civitai_url="http://example.org"))


def test_no_query_of_a_download_is_shown() -> None:
    file = parse(file={"downloadUrl": f"{URL}?token=secret"})
    assert "secret" in file.url
    assert "secret" not in repr(file)

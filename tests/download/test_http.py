"""Where the key goes, which redirects are followed, what is said, and what is never said."""

from __future__ import annotations

import logging
import socket
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from lpw_sdxl.download import failures, http
from lpw_sdxl.download.answers import Asked, RefusedError, TransientError
from lpw_sdxl.download.fetch import fetch
from lpw_sdxl.download.hooks import DownloadHooks
from lpw_sdxl.download.http import open_client
from lpw_sdxl.download.key import Key
from lpw_sdxl.download.sources.civitai import CivitaiSettings, CivitaiSource, make_kind
from lpw_sdxl.download.sources.https import UrlSource
from lpw_sdxl.errors import CheckpointError
from tests.forge.raw import safetensors_bytes
from web import (
    Answer,
    File,
    Keyed,
    Status,
    WebServer,
    civitai_record,
    json_answer,
    login_page,
    redirect,
)

KEY = "c4nary-key-0123456789"
SIGNATURE = "c4nary-signature-0123456789"
CONTENT = safetensors_bytes(
    {"a": {"dtype": "U8", "shape": [50_000], "data_offsets": [0, 50_000]}}, bytes(50_000)
)


@pytest.fixture
def civitai() -> Iterator[WebServer]:
    with WebServer() as server:
        yield server


@pytest.fixture
def storage() -> Iterator[WebServer]:
    with WebServer() as server:
        server.on("/f", File(CONTENT))
        yield server


@pytest.fixture
def keys(civitai: WebServer) -> list[Key]:
    return [key_of(civitai)]


def key_of(civitai: WebServer, value: str = KEY) -> Key:
    settings = CivitaiSettings(civitai_url=civitai.url(), civitai_token=value)
    key = make_kind(settings).key
    assert key is not None
    return key


def read(keys: list[Key], url: str) -> bytes:
    with open_client(keys) as client, client.get(url) as response:
        return b"".join(response.chunks())


# The key


def test_key_goes_to_civitai_and_not_where_it_redirects(
    keys: list[Key], civitai: WebServer, storage: WebServer
):
    civitai.on("/d", Keyed(KEY, redirect("/e")))
    civitai.on("/e", Keyed(KEY, redirect(storage.url("/f"))))
    assert read(keys, civitai.url("/d")) == CONTENT
    assert [request.key for request in civitai.requests] == [f"Bearer {KEY}"] * 2
    assert [request.key for request in storage.requests] == [None]


def test_other_name_of_the_host_is_another_origin(keys: list[Key], civitai: WebServer):
    civitai.on("/d", redirect(civitai.url("/e", host="localhost")))
    civitai.on("/e", File(CONTENT))
    read(keys, civitai.url("/d"))
    assert [request.key for request in civitai.requests] == [f"Bearer {KEY}", None]


def test_key_is_not_sent_again_when_redirects_come_back(
    keys: list[Key], civitai: WebServer, storage: WebServer
):
    civitai.on("/d", redirect(storage.url("/back")))
    storage.on("/back", redirect(civitai.url("/e")))
    civitai.on("/e", File(CONTENT))
    read(keys, civitai.url("/d"))
    assert [request.key for request in civitai.requests] == [f"Bearer {KEY}", None]


def test_stranger_that_redirects_to_civitai_borrows_no_key(
    keys: list[Key], civitai: WebServer, storage: WebServer
):
    storage.on("/d", redirect(civitai.url("/e")))
    civitai.on("/e", File(CONTENT))
    read(keys, storage.url("/d"))
    assert storage.requests[0].key is None
    assert civitai.requests[0].key is None


def test_netrc_and_proxy_of_the_environment_get_nothing(
    keys: list[Key],
    storage: WebServer,
    civitai: WebServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password mine\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert read(keys, storage.url("/f")) == CONTENT
    assert storage.requests[0].key is None
    assert storage.requests[0].headers["user-agent"].startswith("lpw-sdxl/")


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "ключ", "ends "])
def test_key_that_no_header_holds_is_refused_without_repeating_it(
    keys: list[Key], civitai: WebServer, key: str
):
    with pytest.raises(CheckpointError, match="CIVITAI_TOKEN holds") as refused:
        read([key_of(civitai, key)], civitai.url("/d"))
    assert key not in str(refused.value)
    assert civitai.requests == []


# Redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_is_followed(keys: list[Key], storage: WebServer, status: int):
    storage.on("/d", redirect("../f", status))
    assert read(keys, storage.url("/d")) == CONTENT


@pytest.mark.parametrize("count", [10, 11])
def test_ten_redirects_are_enough(keys: list[Key], storage: WebServer, count: int):
    for number in range(count):
        storage.on(f"/{number}", redirect(f"/{number + 1}" if number + 1 < count else "/f"))
    if count == 10:
        assert read(keys, storage.url("/0")) == CONTENT
    else:
        with pytest.raises(CheckpointError, match="more than 10 times"):
            read(keys, storage.url("/0"))


REDIRECTS = {
    "http": (f"http://example.org/a?sig={SIGNATURE}", "begins with http:; https is needed"),
    "file": ("file://localhost/etc/passwd", "begins with file:"),
    "ftp": ("ftp://example.org/a", "begins with ftp:"),
    "nothing": ("", "can't be read"),
    "brackets": ("http://[::1/a", "can't be read"),
    "port": ("https://127.0.0.1:99999/a", "can't be read"),
    "password": (f"http://me:{KEY}@127.0.0.1/a", "before the @"),
    "login": ("https://example.org/login?x", "web page instead of a file"),
    "sign in": ("/users/sign_in", "web page instead of a file"),
}


@pytest.mark.parametrize(("location", "part"), REDIRECTS.values(), ids=REDIRECTS.keys())
def test_redirect_that_is_not_followed_is_named(
    keys: list[Key], storage: WebServer, location: str, part: str
):
    storage.on("/d", redirect(location))
    with pytest.raises(CheckpointError) as refused:
        read(keys, storage.url("/d"))
    assert part in str(refused.value)
    assert_says_nothing(refused.value)
    assert len(storage.requests) == 1


@pytest.mark.parametrize(
    "location", ["http://127.0.0.1/a", "http://localhost/a", "http://example.org/a"]
)
def test_encrypted_site_leads_to_nothing_plain(location: str):
    asked = Asked("example.org", None, has_key=False)
    with pytest.raises(CheckpointError, match="https is needed"):
        http._redirect_target("https://example.org/d", location, asked)


# Failures by name

FAILURES = {
    "401": (Status(401), "wants a login", False),
    "403": (Status(403), "signed URL may have expired", False),
    "404": (Status(404), "has no such file", False),
    "410": (Status(410), "has it no more", False),
    "402": (Status(402), "answered 402", False),
    "204": (Status(204, b""), "answered 204", False),
    "304": (Status(304, b""), "answered 304", False),
    "page": (login_page(), "sent a web page instead of a file", False),
    "key wanted": (Keyed("other", File(b"")), "early access", True),
    "unknown key": (Status(401), "refuses the key in CIVITAI_TOKEN", True),
    "page of Civitai": (login_page(), "CIVITAI_TOKEN", True),
    "login of Civitai": (redirect("/login?reason=download-auth"), "CIVITAI_TOKEN", True),
}


@pytest.mark.parametrize(("answer", "part", "is_civitai"), FAILURES.values(), ids=FAILURES.keys())
def test_refusal_is_named_and_not_tried_again(
    keys: list[Key],
    civitai: WebServer,
    storage: WebServer,
    tmp_path: Path,
    answer: Answer,
    part: str,
    is_civitai: bool,
):
    server = civitai if is_civitai else storage
    server.on("/d", answer)
    with pytest.raises(RefusedError) as refused:
        fetch(UrlSource(server.url("/d")), tmp_path, keys=keys)
    assert part in str(refused.value)
    assert ("CIVITAI_TOKEN" in str(refused.value)) == (is_civitai)
    assert str(refused.value).endswith(".")
    assert len(server.requests) == 1
    assert list(tmp_path.iterdir()) == []


def test_no_key_is_the_advice_where_none_is_set(civitai: WebServer):
    for answer in (Status(401), Status(403), login_page(), redirect("/login")):
        civitai.on("/d", answer)
        with pytest.raises(RefusedError, match="set CIVITAI_TOKEN to it"):
            read([key_of(civitai, "")], civitai.url("/d"))


def test_network_failures_are_named(
    keys: list[Key], storage: WebServer, monkeypatch: pytest.MonkeyPatch
):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with pytest.raises(TransientError, match="refuses the connection"):
            read(keys, f"http://127.0.0.1:{port}/d")
    with pytest.raises(CheckpointError, match="can't be trusted"):
        read(keys, storage.url("/f").replace("http:", "https:"))
    for module in (http, failures):
        monkeypatch.setattr(module, "READ_TIMEOUT_S", 0.2)
    silent = socket.create_server(("127.0.0.1", 0))
    with silent, pytest.raises(TransientError, match=r"sent nothing for 0\.2 s"):
        read(keys, f"http://127.0.0.1:{silent.getsockname()[1]}/d")


def test_unknown_host_is_named(keys: list[Key], monkeypatch: pytest.MonkeyPatch):
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(TransientError, match=r"nothing\.invalid can't be found"):
        read(keys, "https://nothing.invalid/a")
    with pytest.raises(CheckpointError, match=r"can't be asked|can't be found"):
        read(keys, "https://a..b/a")


def test_proxy_that_can_not_be_used_is_named_without_its_password(
    keys: list[Key], storage: WebServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HTTPS_PROXY", f"gopher://me:{KEY}@127.0.0.1:1")
    with pytest.raises(CheckpointError, match="HTTPS_PROXY") as refused:
        read(keys, storage.url("/f"))
    assert_says_nothing(refused.value)


# What is never said


def assert_says_nothing(error: BaseException) -> None:
    """Check an error and all that hang on to it for the key and for signatures."""
    texts = traceback.format_exception(error)
    chain: list[BaseException | None] = [error]
    while chain:
        link = chain.pop()
        if link is not None:
            texts += [str(link), repr(link), repr(link.args), repr(vars(link))]
            assert not type(link).__module__.startswith(("httpx", "httpcore", "h11"))
            chain += [link.__cause__, link.__context__]
    for secret in (KEY, SIGNATURE):
        assert secret not in "\n".join(texts)


@pytest.fixture
def log() -> Iterator[list[str]]:
    """Everything that is logged, at any level, by anyone."""
    lines: list[str] = []

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(f"{record.name} {record.getMessage()} {record.args!r}")

    root, keeper = logging.getLogger(), Keeper()
    loggers = [root, *(logging.getLogger(name) for name in http._LOGGERS)]
    before = [logger.level for logger in loggers]
    root.addHandler(keeper)
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
    yield lines
    root.removeHandler(keeper)
    for logger, level in zip(loggers, before, strict=True):
        logger.setLevel(level)


ENDS = {
    "whole": (File(CONTENT),),
    "gone on with": (File(CONTENT, drop_after=20_000), File(CONTENT)),
    "lost": (File(CONTENT, drop_after=20_000),),
    "busy": (Status(503),),
    "forbidden": (Status(403),),
    "page": (login_page(),),
    "loop": (redirect(f"/f?sig={SIGNATURE}"),),
    "to http": (redirect(f"http://example.org/f?sig={SIGNATURE}"),),
    "no header": (Status(200, b"x", {"X-Line": SIGNATURE, "Content-Range": SIGNATURE}),),
}


@pytest.mark.parametrize("answers", ENDS.values(), ids=ENDS.keys())
def test_key_and_signature_are_nowhere(
    keys: list[Key],
    civitai: WebServer,
    storage: WebServer,
    log: list[str],
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    answers: tuple[Answer, ...],
):
    record = civitai_record(456, civitai.url(f"/d?fileId=1&sig={SIGNATURE}"))
    civitai.on("/api/v1/model-versions/456", Keyed(KEY, json_answer(record)))
    civitai.on("/d", Keyed(KEY, redirect(storage.url(f"/f?sig={SIGNATURE}"))))
    storage.on("/f", *answers)
    lines: list[str] = []
    hooks = DownloadHooks(note=lines.append, progress=lambda *stage: lines.append(repr(stage)))
    for source in (
        CivitaiSource(456, civitai.url()),
        UrlSource(storage.url(f"/f?sig={SIGNATURE}")),
    ):
        lines.append(repr(source))
        try:
            download = fetch(source, tmp_path, keys=keys, hooks=hooks, retry_delay_s=0.001)
            lines.append(repr(download))
        except CheckpointError as error:
            assert_says_nothing(error)
        storage.on("/f", *answers)
    assert any(request.key == f"Bearer {KEY}" for request in civitai.requests)
    assert any(SIGNATURE in request.query for request in storage.requests)
    assert not any(KEY in repr(request) for request in storage.requests)
    written = [path.read_bytes().decode("latin-1") for path in _files(tmp_path)]
    names = [str(path) for path in tmp_path.rglob("*")]
    said = "\n".join([*lines, *log, *written, *names, repr(keys), *capfd.readouterr()])
    assert KEY not in said
    assert SIGNATURE not in said


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_loggers_speak_again_afterwards(keys: list[Key], storage: WebServer, log: list[str]):
    import httpx

    with open_client(keys), open_client(keys):
        pass
    httpx.get(storage.url("/f?heard"))
    assert any(line.startswith("httpx") and "heard" in line for line in log)
    assert any(line.startswith("httpcore") for line in log)
    log.clear()
    with open_client(keys) as client, client.get(storage.url("/f?silent")):
        with open_client(keys):
            pass
        httpx.get(storage.url("/f?silent"))
    assert log == []

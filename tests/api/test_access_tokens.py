from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import os
import re
import threading
import time
from pathlib import Path

import pytest
from pydantic import SecretStr

from lpw_sdxl.api.access_tokens import AccessTokens
from lpw_sdxl.api.watched_file import WatchedFile
from lpw_sdxl.errors import SettingsError
from lpw_sdxl.settings import Settings
from mounts import Mount

FIRST, SECOND, THIRD = ("first-token-of-all", "second-token-+/=~.", "third-token-1234567")


def settings(**values: object) -> Settings:
    if isinstance(values.get("tokens"), str):
        values["tokens"] = SecretStr(str(values["tokens"]))
    return Settings(**values)  # type: ignore[arg-type]


def is_allowed(tokens: AccessTokens | None, token: str) -> bool:
    assert tokens is not None
    return tokens.allow([f"Bearer {token}".encode()])


def tokens_in(file: Path) -> AccessTokens:
    tokens = AccessTokens.from_settings(settings(tokens_file=file))
    assert tokens is not None
    return tokens


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "tokens"
    file.write_text(f"# of the first client\n{FIRST}\n\n  {SECOND}  \n")
    return file


@pytest.mark.parametrize("gap", [",", " ", ", ", "\n", " ,,\t"])
def test_each_of_several_tokens_is_allowed(gap: str) -> None:
    tokens = AccessTokens.from_settings(settings(tokens=gap.join([FIRST, SECOND])))
    assert is_allowed(tokens, FIRST)
    assert is_allowed(tokens, SECOND)
    assert not is_allowed(tokens, THIRD)


def test_any_bearer_is_taken_where_a_proxy_is_trusted_and_nothing_else() -> None:
    tokens = AccessTokens.from_settings(settings(tokens=FIRST, trust_proxy_auth=True))
    assert tokens is not None
    for token in (FIRST, SECOND, "rpa_0123456789", "x"):
        assert is_allowed(tokens, token)
    basic = b"Basic " + base64.b64encode(b"user:password")
    for headers in ([], [b"Bearer "], [b"nonsense"], [b"Bearer a", b"Bearer b"], [basic]):
        assert not tokens.allow(headers)
        assert not tokens.allow(headers, takes_basic=True)
    own = b"Basic " + base64.b64encode(f"user:{FIRST}".encode())
    assert tokens.allow([own], takes_basic=True)
    owners = {tokens.owner([f"Bearer {one}".encode()]) for one in (FIRST, SECOND, THIRD)}
    assert len(owners) == 3  # each key has its own jobs


def test_a_token_may_come_by_basic_where_that_is_taken() -> None:
    tokens = AccessTokens.from_settings(settings(tokens=FIRST))
    assert tokens is not None
    for pair in (f"user:{FIRST}", f"{FIRST}:", f":{FIRST}", FIRST):
        header = [b"Basic " + base64.b64encode(pair.encode())]
        assert tokens.allow(header, takes_basic=True)
        assert not tokens.allow(header)
        assert tokens.owner(header) == tokens.owner([f"Bearer {FIRST}".encode()])
    for other in (f"{FIRST}:{SECOND}", "user:", ":", ""):
        assert not tokens.allow([b"Basic " + base64.b64encode(other.encode())], takes_basic=True)
    assert not tokens.allow([b"Basic ="], takes_basic=True)
    assert not tokens.allow([b"Basic YQ"], takes_basic=True)


def test_no_setting_asks_for_no_token() -> None:
    assert AccessTokens.from_settings(Settings()) is None


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [b""],
        [b"Bearer"],
        [b"Bearer "],
        [FIRST.encode()],
        [f"Basic {FIRST}".encode()],
        [f"Bearer {FIRST[:-1]}".encode()],
        [f"Bearer {FIRST}x".encode()],
        [f"Bearer {FIRST} {FIRST}".encode()],
        [f"Bearer {FIRST.upper()}".encode()],
        [f"Bearer {FIRST}\n".encode()],
        [f"Bearer {FIRST},{SECOND}".encode()],
        [b"Bearer \xff\xfe" + FIRST.encode()],
        [f"Bearer {FIRST}".encode()] * 2,
    ],
)
def test_what_is_not_exactly_one_bearer_token_is_refused(headers: list[bytes]) -> None:
    tokens = AccessTokens.from_settings(settings(tokens=f"{FIRST},{SECOND}"))
    assert tokens is not None
    assert not tokens.allow(headers)


@pytest.mark.parametrize("token", [FIRST, THIRD, "unknown-unknown-unknown", ""])
def test_every_token_is_compared_in_constant_time(
    token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All digests are compared each time, so that the time does not depend on the token."""
    compared: list[tuple[bytes, bytes]] = []
    compare = hmac.compare_digest

    def record(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return compare(one, other)

    tokens = AccessTokens.from_settings(settings(tokens=f"{FIRST},{SECOND},{THIRD}"))
    monkeypatch.setattr(hmac, "compare_digest", record)
    assert is_allowed(tokens, token) == (token in (FIRST, THIRD))
    assert len(compared) == 3
    assert {len(digest) for pair in compared for digest in pair} == {hashlib.sha256().digest_size}


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER  "])
def test_the_scheme_may_be_written_in_any_case(scheme: str) -> None:
    tokens = AccessTokens.from_settings(settings(tokens=FIRST))
    assert tokens is not None
    assert tokens.allow([f"{scheme}{FIRST}".encode()])


BAD = {
    "empty": ("", "holds no token"),
    "blank": (" ,\n", "holds no token"),
    "short": (f"{FIRST}, canary", "token 2 of 2 has 6 characters; 16 to 512"),
    "long": ("canary" * 100, "token 1 of 1 has 600 characters"),
    "not ASCII": ("canary-canary-cänary", "token 1 of 1 has characters other"),
    "too many": ("canary-canary-canary " * 1001, "holds 1001 tokens"),
}


@pytest.mark.parametrize(("text", "words"), BAD.values(), ids=BAD.keys())
def test_a_list_that_cannot_be_used_is_refused_without_its_words(text: str, words: str) -> None:
    with pytest.raises(SettingsError, match=f"LPW_SDXL_TOKENS.*{words}") as refusal:
        AccessTokens.from_settings(settings(tokens=text))
    assert "canary" not in str(refusal.value)
    assert "nary" not in str(refusal.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "holds no token"),
        (b"# nothing\n\n", "holds no token"),
        (b"canary\n", "token 1 of 1 has 6"),
        (b"\xff\xfe" * 20, "is no text"),
        (b"canary-canary-canary\n" * 60_000, "is larger than"),
        (f"{FIRST}\n# {'é' * 600_000}\n{SECOND}\n".encode(), "is larger than"),
        (None, r"can't be read \(No such file"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(
    tmp_path: Path, content: bytes | None, words: str
) -> None:
    file = tmp_path / "tokens"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingsError, match=f"LPW_SDXL_TOKENS_FILE.*{words}") as refusal:
        AccessTokens.from_settings(settings(tokens_file=file))
    assert "canary" not in str(refusal.value)


def test_a_folder_is_no_file_of_tokens(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"LPW_SDXL_TOKENS_FILE.*is a folder"):
        AccessTokens.from_settings(settings(tokens_file=tmp_path))


def test_the_settings_and_the_file_count_together(file: Path) -> None:
    tokens = AccessTokens.from_settings(settings(tokens=THIRD, tokens_file=file))
    assert all(is_allowed(tokens, token) for token in (FIRST, SECOND, THIRD))
    assert not is_allowed(tokens, "# of the first client")


def test_a_file_that_changes_is_read_again(file: Path) -> None:
    tokens = tokens_in(file)
    os.replace(_written(file.with_name("new"), THIRD), file)
    assert is_allowed(tokens, FIRST)
    tokens.check()
    assert not is_allowed(tokens, FIRST)
    assert is_allowed(tokens, THIRD)


def test_a_change_counts_for_the_first_request_after_it(file: Path) -> None:
    tokens = tokens_in(file)
    tokens.watch()
    os.replace(_written(file.with_name("new"), THIRD), file)
    time.sleep(1)
    assert not is_allowed(tokens, FIRST)
    assert is_allowed(tokens, THIRD)


def test_a_request_touches_no_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = tokens_in(file)
    for name in ("stat", "open"):
        monkeypatch.setattr(os, name, None)
    assert is_allowed(tokens, FIRST)
    assert not is_allowed(tokens, THIRD)


def test_a_link_that_points_elsewhere_is_a_change(tmp_path: Path, file: Path) -> None:
    """The way in which Kubernetes renews a mounted secret."""
    link = tmp_path / "link"
    link.symlink_to(file)
    tokens = tokens_in(link)
    newer = tmp_path / "newer"
    newer.symlink_to(_written(tmp_path / "other", THIRD))
    os.replace(newer, link)
    tokens.check()
    assert is_allowed(tokens, THIRD)
    assert not is_allowed(tokens, FIRST)


@pytest.mark.parametrize("content", [None, "", "canary", "# canary", "pipe"])
def test_a_file_that_becomes_bad_leaves_the_old_tokens_and_is_told_once(
    file: Path, caplog: pytest.LogCaptureFixture, content: str | None
) -> None:
    tokens = tokens_in(file)
    file.unlink()
    if content == "pipe":
        os.mkfifo(file)
    elif content is not None:
        file.write_text(content)
    for _ in range(3):
        tokens.check()
        assert is_allowed(tokens, FIRST)
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert re.search("LPW_SDXL_TOKENS_FILE.*the previous tokens stay valid", record.getMessage())
    assert "canary" not in record.getMessage()
    file.unlink(missing_ok=True)
    _written(file, THIRD)
    tokens.check()
    assert is_allowed(tokens, THIRD)
    assert not is_allowed(tokens, FIRST)


def test_tokens_stay_valid_while_their_file_does_not_answer(file: Path) -> None:
    mount = Mount()
    watched = WatchedFile("TOKENS", file, mount.read, patience_s=0.05)
    tokens = AccessTokens(frozenset(), watched)
    tokens.watch(interval_s=0.01)
    mount.hang()
    os.replace(_written(file.with_name("new"), THIRD), file)
    assert mount.is_read.wait(5)
    started = time.monotonic()
    assert is_allowed(tokens, FIRST)
    assert not is_allowed(tokens, THIRD)
    assert time.monotonic() - started < 0.05
    mount.answer()
    deadline = time.monotonic() + 5
    while not is_allowed(tokens, THIRD):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_tokens_are_watched_no_longer_than_they_are_in_use(file: Path) -> None:
    tokens = tokens_in(file)
    tokens.watch(interval_s=0.01)
    assert _watchers() == 1
    del tokens
    deadline = time.monotonic() + 5
    while _watchers():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_no_token_is_written_out(file: Path) -> None:
    chosen = settings(tokens=THIRD, tokens_file=file)
    tokens = AccessTokens.from_settings(chosen)
    assert tokens is not None
    shown = f"{chosen!r} {chosen} {chosen.model_dump()} {tokens!r} {vars(tokens)}"
    assert not any(token in shown for token in (FIRST, SECOND, THIRD))


def _written(file: Path, token: str) -> Path:
    file.write_text(token)
    return file


def _watchers() -> int:
    return sum(thread.name == "lpw-sdxl-tokens" for thread in threading.enumerate())

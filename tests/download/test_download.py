"""Downloads from a real server on this machine: whole, resumed, refused, verified, removed."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from typing_extensions import Buffer

from lpw_sdxl.download import transfer
from lpw_sdxl.download.fetch import Download, fetch, remove
from lpw_sdxl.download.hooks import DownloadHooks
from lpw_sdxl.download.partial import PartialFile
from lpw_sdxl.download.sources.civitai import CivitaiSource
from lpw_sdxl.download.sources.https import UrlSource
from lpw_sdxl.download.state import locked
from lpw_sdxl.errors import CheckpointError, UnsupportedCheckpointError
from lpw_sdxl.store.origin import AuthorNotes
from lpw_sdxl.weights.header import read_header
from tests.forge.raw import safetensors_bytes
from web import (
    Answer,
    Endless,
    File,
    Request,
    Status,
    Waits,
    WebServer,
    civitai_record,
    json_answer,
    redirect,
)

SIZE = 200_000
DELAY_S = 0.01


def payload(seed: int = 7, size: int = SIZE) -> bytes:
    tensor = {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}
    return safetensors_bytes({"a": tensor}, random.Random(seed).randbytes(size))


CONTENT = payload()
SHA256 = hashlib.sha256(CONTENT).hexdigest()
OTHER_SHA256 = "0" * 64


@dataclass
class Watch:
    """Hooks that remember what they were told."""

    stages: list[tuple[str, int, int]] = field(default_factory=list)
    headers: list[tuple[int, int]] = field(default_factory=list)
    spaces: list[int | None] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    @property
    def hooks(self) -> DownloadHooks:
        return DownloadHooks(
            progress=lambda *stage: self.stages.append(stage),
            check_header=lambda path, size: self.headers.append((path.stat().st_size, size)),
            check_space=self.spaces.append,
            note=self.lines.append,
        )


@pytest.fixture
def server() -> Iterator[WebServer]:
    with WebServer() as server:
        yield server


@pytest.fixture
def downloads(tmp_path: Path) -> Path:
    return tmp_path / "a" / "downloads"


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def get(server: WebServer, downloads: Path, watch: Watch) -> Callable[..., Download]:
    def get(*answers: Answer, sha256: str | None = None, path: str = "/m.safetensors") -> Download:
        if answers:
            server.on(path, *answers)
        return fetch(
            UrlSource(server.url(path)),
            downloads,
            expected_sha256=sha256,
            hooks=watch.hooks,
            retry_delay_s=DELAY_S,
        )

    return get


Get = Callable[..., Download]


def files(downloads: Path) -> dict[str, bytes]:
    """Every file of the downloads folder by name, without the locks."""
    paths = downloads.rglob("*") if downloads.exists() else []
    return {
        path.name: path.read_bytes() for path in paths if path.is_file() and path.name != "lock"
    }


def ranges(requests: list[Request]) -> list[str | None]:
    return [request.headers.get("range") for request in requests]


# Whole


def test_file_comes_whole_with_its_progress_and_notes(get: Get, downloads: Path, watch: Watch):
    download = get(File(CONTENT))
    assert download.path.read_bytes() == CONTENT
    assert download.path.parent.parent == downloads
    assert download.path.read_bytes() == CONTENT
    assert download.path.name == "m.safetensors"
    assert (download.notes, download.was_there) == (AuthorNotes(), False)
    assert download.source.endswith("/m.safetensors")
    assert watch.stages[0] == ("download", 0, len(CONTENT))
    assert watch.stages[-1] == ("download", len(CONTENT), len(CONTENT))
    assert {stage for stage, _, _ in watch.stages} == {"download"}
    assert len(watch.headers) == 1
    assert watch.headers[0][0] < len(CONTENT)
    assert watch.headers[0][1] == len(CONTENT)
    assert watch.spaces == [len(CONTENT)]
    assert watch.lines == []
    assert set(files(downloads)) == {"m.safetensors", "download.json"}
    notes = json.loads(files(downloads)["download.json"])
    assert notes["state"] == "finished"
    assert notes["sha256"] == SHA256


def test_folders_are_for_their_owner_only(get: Get, downloads: Path):
    folder = get(File(CONTENT)).path.parent
    assert folder.stat().st_mode & 0o777 == 0o700
    assert downloads.stat().st_mode & 0o777 == 0o700


def test_finished_download_is_found_without_a_request(get: Get, server: WebServer):
    first = get(File(CONTENT))
    server.on("/m.safetensors", Status(500))
    again = get(sha256=SHA256.upper())
    assert again.was_there
    assert (again.path, again.source, again.notes) == (first.path, first.source, first.notes)
    assert len(server.requests) == 1


def test_finished_download_is_found_while_others_hold_its_lock(get: Get):
    first = get(File(CONTENT))
    with locked(first.path.parent, first.source):
        assert get().was_there


def test_finished_download_of_another_sha256_is_an_error(get: Get):
    folder = get(File(CONTENT)).path.parent
    with pytest.raises(CheckpointError) as refused:
        get(sha256=OTHER_SHA256)
    for part in (SHA256, OTHER_SHA256, str(folder)):
        assert part in str(refused.value)


@pytest.mark.parametrize("damage", ["shorter file", "no notes", "strange notes", "escaping name"])
def test_damaged_download_is_fetched_anew(get: Get, server: WebServer, damage: str):
    path = get(File(CONTENT)).path
    notes = path.parent / "download.json"
    if damage == "shorter file":
        path.write_bytes(CONTENT[:-1])
    elif damage == "no notes":
        notes.unlink()
    elif damage == "strange notes":
        notes.write_text('{"state": 3}')
    else:
        notes.write_text(notes.read_text().replace('"m.safetensors"', '"../m.safetensors"'))
    assert not get().was_there
    assert path.read_bytes() == CONTENT
    assert len(server.requests) == 2


def test_urls_that_differ_by_query_are_different_downloads(server: WebServer, downloads: Path):
    server.on("/m", File(CONTENT), File(payload(8)))
    one = fetch(UrlSource(server.url("/m?file=1")), downloads)
    two = fetch(UrlSource(server.url("/m?file=2")), downloads)
    assert one.path != two.path
    assert one.path.read_bytes() != two.path.read_bytes()
    assert one.path.name == "checkpoint.safetensors"


def test_server_names_the_file(get: Get):
    header = {"Content-Disposition": 'attachment; filename="../my model.safetensors"'}
    assert get(File(CONTENT, headers=header)).path.name == "my model.safetensors"


@pytest.mark.parametrize("chunked", [True, False], ids=["chunked", "until the end"])
def test_file_of_unknown_size_comes_whole(get: Get, watch: Watch, chunked: bool):
    download = get(File(CONTENT, length=None, chunked=chunked))
    assert download.path.read_bytes() == CONTENT
    assert download.path.read_bytes() == CONTENT
    assert watch.stages[-1] == ("download", len(CONTENT), 0)
    assert watch.spaces == [None]
    assert [size for _, size in watch.headers] == [len(CONTENT)], "as its header has it"


# Connections that are lost


def test_lost_connection_is_gone_on_with(get: Get, server: WebServer, watch: Watch):
    download = get(
        File(CONTENT, drop_after=100_000), File(CONTENT, drop_after=50_000), File(CONTENT)
    )
    assert download.path.read_bytes() == CONTENT
    assert download.path.read_bytes() == CONTENT
    assert ranges(server.requests) == [None, "bytes=100000-", "bytes=150000-"]
    assert server.requests[1].headers["if-range"] == '"v1"'
    assert len(watch.lines) == 2
    assert "at 0.1 MB; trying again in 0 s." in watch.lines[0]
    assert len(watch.headers) == 1
    assert watch.spaces == [len(CONTENT)]


def test_date_serves_where_there_is_no_strong_etag(get: Get, server: WebServer):
    date = "Wed, 21 Oct 2015 07:28:00 GMT"
    weak = {"etag": 'W/"v1"', "modified": date}
    get(File(CONTENT, drop_after=100_000, **weak), File(CONTENT, **weak))
    assert ranges(server.requests) == [None, "bytes=100000-"]
    assert server.requests[1].headers["if-range"] == date


def test_without_a_validator_it_starts_again(get: Get, server: WebServer):
    download = get(File(CONTENT, drop_after=100_000, etag=None), File(CONTENT, etag=None))
    assert ranges(server.requests) == [None, None]
    assert download.path.read_bytes() == CONTENT


def test_server_that_ignores_ranges_starts_again(get: Get, server: WebServer, watch: Watch):
    download = get(File(CONTENT, drop_after=100_000), File(CONTENT, ranges=False))
    assert ranges(server.requests) == [None, "bytes=100000-"]
    assert download.path.read_bytes() == CONTENT
    assert download.path.read_bytes() == CONTENT
    assert len(watch.headers) == 1, "the same header was checked"
    assert any("beginning" in line for line in watch.lines)


def test_changed_file_starts_again_and_is_checked_again(get: Get, server: WebServer, watch: Watch):
    other = payload(8, SIZE + 5)
    download = get(File(CONTENT, drop_after=100_000), File(other, etag='"v2"'))
    assert download.path.read_bytes() == other
    assert download.path.read_bytes() == other
    assert len(watch.headers) == 2
    assert ranges(server.requests) == [None, "bytes=100000-"]


@pytest.mark.parametrize(
    "wrong",
    [
        File(CONTENT, content_range=f"bytes 99999-{len(CONTENT) - 1}/{len(CONTENT)}"),
        File(CONTENT, content_range=f"bytes 100000-{len(CONTENT) - 1}/{len(CONTENT) + 1}"),
        File(CONTENT, content_range="bytes"),
        File(CONTENT[:90_000]),
        Status(416, b"", {"Content-Range": f"bytes */{len(CONTENT)}"}),
        Status(206, CONTENT, {"Content-Range": f"bytes 100000-200000/{len(CONTENT)}"}),
        Status(206, CONTENT[100_000:], {"ETag": '"v2"', "Content-Range": "bytes 100000-1/*"}),
    ],
    ids=["start", "total", "header", "shorter", "416", "too much", "other ETag"],
)
def test_wrong_part_starts_again(get: Get, server: WebServer, wrong: Answer):
    download = get(File(CONTENT, drop_after=100_000), wrong, File(CONTENT))
    assert ranges(server.requests) == [None, "bytes=100000-", None]
    assert download.path.read_bytes() == CONTENT
    assert download.path.read_bytes() == CONTENT


def test_part_that_was_not_asked_for_is_an_error(get: Get):
    with pytest.raises(CheckpointError, match="206"):
        get(Status(206, CONTENT, {"Content-Range": f"bytes 0-9/{len(CONTENT)}"}))


def test_complete_file_of_unknown_size_ends_with_416(get: Get, server: WebServer):
    without_end = File(CONTENT, length=None, chunked=True, drop_after=len(CONTENT))
    download = get(without_end, File(CONTENT))
    assert ranges(server.requests) == [None, f"bytes={len(CONTENT)}-"]
    assert download.path.read_bytes() == CONTENT


@pytest.mark.parametrize("length", [None, len(CONTENT)], ids=["none declared", "too long"])
def test_end_that_comes_early_is_gone_on_with(get: Get, server: WebServer, length: int | None):
    download = get(File(CONTENT[:120_000], length=length), File(CONTENT))
    assert ranges(server.requests) == [None, "bytes=120000-"]
    assert download.path.read_bytes() == CONTENT


def test_file_that_is_shorter_than_its_header_says_is_refused(get: Get, downloads: Path):
    with pytest.raises(CheckpointError, match="its own header asks for"):
        get(File(CONTENT[:-1]))
    assert files(downloads) == {}


def test_length_that_is_declared_too_short_is_refused(get: Get, downloads: Path):
    with pytest.raises(CheckpointError, match="its own header asks for"):
        get(File(CONTENT, length=150_000))
    assert files(downloads) == {}


def test_server_that_always_hangs_up_is_given_up(get: Get, server: WebServer, watch: Watch):
    with pytest.raises(CheckpointError, match=r"at 0\.1 MB \(tried 5 times"):
        get(File(CONTENT, drop_after=100_000, etag=None))
    assert len(server.requests) == 6, (
        "the first attempt brought something, five brought nothing new"
    )
    assert len(watch.lines) >= 4


def test_progress_gives_new_attempts(get: Get, server: WebServer):
    steps = [File(CONTENT, drop_after=20_000)] * 9
    assert get(*steps, File(CONTENT)).path.read_bytes() == CONTENT
    assert len(server.requests) == 10


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_busy_server_is_asked_again(get: Get, server: WebServer, watch: Watch, status: int):
    assert get(Status(status), Status(status), File(CONTENT)).path.read_bytes() == CONTENT
    assert len(server.requests) == 3
    assert f"({status})" in watch.lines[0]


def test_retry_after_is_respected(get: Get, watch: Watch):
    began = time.monotonic()
    get(Status(429, headers={"Retry-After": "1"}), File(CONTENT))
    assert time.monotonic() - began >= 1
    assert watch.lines == ["127.0.0.1 is busy or out of order (429); trying again in 1 s."]


def test_busy_server_is_given_up_after_five_attempts(get: Get, server: WebServer):
    with pytest.raises(CheckpointError, match=r"\(503\) \(tried 5 times"):
        get(Status(503))
    assert len(server.requests) == 5


# What is refused


def test_header_is_refused_before_the_rest_comes(get: Get, downloads: Path):
    content = payload(size=30_000_000)
    seen = []

    def refuse(path: Path, size: int) -> None:
        seen.append((path.stat().st_size, size))
        raise UnsupportedCheckpointError("A Flux checkpoint is not served.")

    with WebServer() as server:
        server.on("/m", File(content))
        with pytest.raises(UnsupportedCheckpointError, match="Flux"):
            fetch(UrlSource(server.url("/m")), downloads, hooks=DownloadHooks(check_header=refuse))
    assert len(seen) == 1
    assert seen[0][0] < 1_000_000
    assert seen[0][1] == len(content)
    assert files(downloads) == {}


@pytest.mark.parametrize(
    "content",
    [b"\x80\x02}q\x00" + bytes(50_000), b"PK\x03\x04" + b"z" * 50_000, b"GGUF", b""],
    ids=["pickle", "zip", "short", "empty"],
)
def test_what_is_no_safetensors_is_checked_at_once(
    get: Get, server: WebServer, downloads: Path, content: bytes
):
    hooks = DownloadHooks(check_header=lambda path, size: read_header(path) and None)
    server.on("/m", File(content))
    with pytest.raises(CheckpointError, match=r"m\.safetensors\.part|checkpoint\.safetensors"):
        fetch(UrlSource(server.url("/m")), downloads, hooks=hooks)
    assert files(downloads) == {}


@pytest.mark.parametrize("length", [0x0280, 0x0480, 0x3C20, 0x8B1F])
@pytest.mark.parametrize("is_declared", [True, False], ids=["with its size", "without its size"])
def test_a_header_whose_length_begins_like_another_format_is_awaited(
    server: WebServer, downloads: Path, length: int, is_declared: bool
):
    numbers = 30_000
    entries = {"a": {"dtype": "U8", "shape": [numbers], "data_offsets": [0, numbers]}}
    text = json.dumps(entries).encode().ljust(length)
    content = safetensors_bytes(text, bytes(numbers))
    found = []
    hooks = DownloadHooks(check_header=lambda path, size: found.append(read_header(path, size)))
    server.on("/m", File(content, length=-1 if is_declared else None))
    assert fetch(UrlSource(server.url("/m")), downloads, hooks=hooks).path.read_bytes() == content
    assert [header.file_size for header in found] == [len(content)]


def test_a_header_beyond_the_declared_size_is_not_awaited(server: WebServer, downloads: Path):
    """Its length fits the limit of headers and not the file, so the file is no safetensors file."""
    content = b"PK\x03\x04\x00\x00\x00\x00{}" + bytes(8_000_000)
    sizes = []

    def refuse(path: Path, size: int) -> None:
        sizes.append(path.stat().st_size)
        read_header(path, size)

    server.on("/m", File(content))
    with pytest.raises(UnsupportedCheckpointError, match="a zip archive"):
        fetch(UrlSource(server.url("/m")), downloads, hooks=DownloadHooks(check_header=refuse))
    assert sizes[0] < 1_000_000


def test_what_the_check_lets_pass_goes_on(get: Get, watch: Watch):
    content = b"no safetensors at all" * 1000
    assert get(File(content)).path.read_bytes() == content
    assert len(watch.headers) == 1


def test_wrong_sha256_is_removed(get: Get, server: WebServer, downloads: Path):
    with pytest.raises(CheckpointError) as refused:
        get(File(CONTENT), sha256=OTHER_SHA256)
    assert SHA256 in str(refused.value)
    assert OTHER_SHA256 in str(refused.value)
    assert files(downloads) == {}
    assert get(sha256=SHA256).path.read_bytes() == CONTENT
    assert len(server.requests) == 2


def test_declared_size_over_the_limit_is_refused(get: Get, watch: Watch, downloads: Path):
    with pytest.raises(CheckpointError, match="a checkpoint has 100,000,000,000 at most"):
        get(File(CONTENT, length=100_000_000_001))
    assert watch.spaces == []
    assert files(downloads) == {}


def test_endless_file_is_stopped(get: Get, downloads: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(transfer, "MAX_FILE_BYTES", 300_000)
    with pytest.raises(CheckpointError, match="at most"):
        get(Endless())
    assert files(downloads) == {}


def test_no_space_is_said_before_a_byte_is_written(server: WebServer, downloads: Path):
    def refuse(size: int | None) -> None:
        assert files(downloads) == {}
        raise CheckpointError(f"{size} bytes are needed.")

    server.on("/m", File(CONTENT))
    with pytest.raises(CheckpointError, match=f"{len(CONTENT)} bytes are needed"):
        fetch(UrlSource(server.url("/m")), downloads, hooks=DownloadHooks(check_space=refuse))
    assert list(downloads.iterdir()) == []


def test_full_disk_is_said_and_nothing_is_left(server: WebServer, downloads: Path):
    def fill(size: int | None) -> None:
        (folder,) = downloads.iterdir()
        (folder / "m.safetensors.part").symlink_to("/dev/full")  # every write: no space left

    server.on("/m.safetensors", File(CONTENT))
    with pytest.raises(CheckpointError, match=r"is full.*LPW_SDXL_DOWNLOADS"):
        fetch(
            UrlSource(server.url("/m.safetensors")),
            downloads,
            hooks=DownloadHooks(check_space=fill),
        )
    assert list(downloads.iterdir()) == []


def test_disk_that_takes_a_part_of_a_write_gets_the_rest(tmp_path: Path):
    class Stingy(io.FileIO):
        def write(self, data: Buffer) -> int:
            return super().write(memoryview(data)[:1000])

    part = PartialFile(tmp_path / "m.part")
    part.start()
    part.close()
    part._file = Stingy(part.path, "r+")
    part.append(CONTENT)
    part.finish(tmp_path / "m")
    assert (tmp_path / "m").read_bytes() == CONTENT
    assert part.sha256 == SHA256


def test_folder_that_can_not_be_made_is_said(get: Get, downloads: Path):
    downloads.parent.write_text("a file")
    with pytest.raises(CheckpointError, match="LPW_SDXL_DOWNLOADS"):
        get(File(CONTENT))


# Processes that end, and that meet

CHILD = """
import sys
from pathlib import Path
from lpw_sdxl.download.fetch import fetch
from lpw_sdxl.download.sources.https import UrlSource
fetch(UrlSource(sys.argv[1]), Path(sys.argv[2]))
"""


@pytest.mark.processes
def test_killed_download_is_gone_on_with_and_two_at_once_are_refused(
    get: Get, server: WebServer, downloads: Path, watch: Watch
):
    server.on("/m.safetensors", File(CONTENT, wait_s=0.1), File(CONTENT))
    url = server.url("/m.safetensors")
    child = subprocess.Popen([sys.executable, "-c", CHILD, url, str(downloads)])
    try:
        deadline = time.monotonic() + 20
        while len(files(downloads).get("m.safetensors.part", b"")) < 50_000:
            assert time.monotonic() < deadline
            assert child.poll() is None
            time.sleep(0.02)
        with pytest.raises(CheckpointError, match=r"Another download of http.*/m\.safetensors is"):
            get()
        assert len(server.requests) == 1
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    position = len(files(downloads)["m.safetensors.part"])
    assert 50_000 <= position < len(CONTENT)
    download = get()
    assert download.path.read_bytes() == CONTENT
    assert download.path.read_bytes() == CONTENT
    assert ranges(server.requests) == [None, f"bytes={position}-"]
    assert watch.stages[0] == ("hash", position, position)
    assert watch.spaces == [len(CONTENT) - position]
    assert watch.headers == [(position, len(CONTENT))]


def test_interrupt_keeps_what_has_come(server: WebServer, downloads: Path, get: Get):
    def interrupt(stage: str, done: int, total: int) -> None:
        if done >= 50_000:
            raise KeyboardInterrupt

    server.on("/m.safetensors", File(CONTENT))
    with pytest.raises(KeyboardInterrupt):
        fetch(
            UrlSource(server.url("/m.safetensors")),
            downloads,
            hooks=DownloadHooks(progress=interrupt),
        )
    position = len(files(downloads)["m.safetensors.part"])
    assert get().path.read_bytes() == CONTENT
    assert ranges(server.requests) == [None, f"bytes={position}-"]


def test_complete_part_is_verified_without_a_request(get: Get, server: WebServer, downloads: Path):
    path = get(File(CONTENT)).path
    # As a process leaves it that dies between its notes and the rename.
    path.rename(path.with_name("m.safetensors.part"))
    download = get()
    assert not download.was_there
    assert download.path.read_bytes() == CONTENT
    assert len(server.requests) == 1
    path.rename(path.with_name("m.safetensors.part"))
    with path.with_name("m.safetensors.part").open("r+b") as file:
        file.seek(100_000)
        file.write(b"damage")
    with pytest.raises(CheckpointError, match="SHA-256"):
        get(sha256=SHA256)
    assert files(downloads) == {}


@pytest.mark.parametrize("change", ["too long", "no validator", "no notes", "symlink"])
def test_part_that_can_not_be_gone_on_with_starts_again(
    get: Get, server: WebServer, watch: Watch, tmp_path: Path, change: str
):
    path = get(File(CONTENT)).path
    part, notes = path.with_name("m.safetensors.part"), path.with_name("download.json")
    content = json.loads(notes.read_text()) | {"state": "partial", "sha256": None}
    path.unlink()
    part.write_bytes(b"x" * 1000)
    if change == "too long":
        part.write_bytes(CONTENT + b"x")
    elif change == "no validator":
        content["validator"] = None
    elif change == "symlink":
        part.unlink()
        (tmp_path / "other").write_bytes(b"x" * 1000)
        part.symlink_to(tmp_path / "other")
    notes.write_text(json.dumps(content))
    if change == "no notes":
        notes.unlink()
    assert get().path.read_bytes() == CONTENT
    assert ranges(server.requests) == [None, None]
    assert not part.exists()
    assert "hash" not in {stage for stage, _, _ in watch.stages}
    assert change != "symlink" or (tmp_path / "other").read_bytes() == b"x" * 1000


def test_damaged_part_of_a_killed_download_is_removed_by_its_hash(
    get: Get, server: WebServer, downloads: Path
):
    path = get(File(CONTENT)).path
    notes = path.with_name("download.json")
    content = json.loads(notes.read_text()) | {"state": "partial", "sha256": None}
    notes.write_text(json.dumps(content))
    damaged = bytearray(CONTENT[:90_000])
    damaged[50_000] ^= 1
    path.unlink()
    path.with_name("m.safetensors.part").write_bytes(damaged)
    with pytest.raises(CheckpointError, match="SHA-256"):
        get(sha256=SHA256)
    assert ranges(server.requests)[1:] == ["bytes=90000-"]
    assert files(downloads) == {}


def test_waiting_server_holds_up_no_other_source(get: Get, server: WebServer, downloads: Path):
    event = threading.Event()
    server.on("/slow", Waits(event, File(CONTENT)))
    done: list[Download] = []
    slow = threading.Thread(
        target=lambda: done.append(fetch(UrlSource(server.url("/slow")), downloads))
    )
    slow.start()
    assert get(File(CONTENT)).path.read_bytes() == CONTENT
    event.set()
    slow.join()
    assert done[0].path.read_bytes() == CONTENT


# Civitai


def test_civitai_version_is_fetched_and_remembered(server: WebServer, downloads: Path):
    record = civitai_record(
        456,
        server.url("/api/download/models/456?type=Model&format=SafeTensor"),
        file={"sizeKB": round(len(CONTENT) / 1024, 1), "hashes": {"SHA256": SHA256.upper()}},
    )
    server.on("/api/v1/model-versions/456", json_answer(record))
    server.on("/api/download/models/456", redirect("/signed?X-Amz-Signature=s"))
    server.on("/signed", File(CONTENT, drop_after=100_000), File(CONTENT))
    download = fetch(CivitaiSource(456, server.url()), downloads, retry_delay_s=DELAY_S)
    assert download.path == downloads / "civitai-456" / "waiIllustriousSDXL_v160.safetensors"
    assert download.path.read_bytes() == CONTENT
    assert download.source == "civitai:456"
    assert download.notes.base_model == "Illustrious"
    assert server.of("/api/download/models/456")[0].query == "type=Model&format=SafeTensor"
    assert ranges(server.of("/signed")) == [None, "bytes=100000-"]
    count = len(server.requests)
    again = fetch(CivitaiSource(456, server.url()), downloads, expected_sha256=SHA256)
    assert again.was_there
    assert again.notes.trained_words == ("masterpiece", "best quality")
    assert len(server.requests) == count


@pytest.mark.parametrize(
    ("file", "sha256", "part"),
    [
        ({"sizeKB": (SIZE + 3000) / 1024}, None, "the record of civitai:456 says"),
        ({"hashes": {"SHA256": OTHER_SHA256}}, None, "is in its record"),
        ({"hashes": {"SHA256": SHA256}}, OTHER_SHA256, "was asked for; correct one"),
    ],
    ids=["size", "SHA-256", "both SHA-256"],
)
@pytest.mark.parametrize("length", [-1, None], ids=["declared", "chunked"])
def test_file_that_is_not_as_its_record_says_is_refused(
    server: WebServer,
    downloads: Path,
    file: dict[str, object],
    sha256: str | None,
    part: str,
    length: int | None,
):
    record = civitai_record(456, server.url("/m"), file=file)
    server.on("/api/v1/model-versions/456", json_answer(record))
    server.on("/m", File(CONTENT, length=length, chunked=length is None))
    with pytest.raises(CheckpointError, match=part):
        fetch(
            CivitaiSource(456, server.url()),
            downloads,
            expected_sha256=sha256,
            retry_delay_s=DELAY_S,
        )
    assert files(downloads) == {}


def test_version_that_is_known_is_left_before_its_file(server: WebServer, downloads: Path):
    class Known(Exception):
        pass

    def leave(sha256: str | None) -> None:
        raise Known(sha256)

    record = civitai_record(456, server.url("/m"), file={"hashes": {"SHA256": SHA256.upper()}})
    server.on("/api/v1/model-versions/456", json_answer(record))
    server.on("/m", File(CONTENT))
    with pytest.raises(Known, match=SHA256):
        fetch(CivitaiSource(456, server.url()), downloads, hooks=DownloadHooks(check_sha256=leave))
    assert server.of("/m") == []
    assert list(downloads.iterdir()) == []


def test_civitai_that_is_busy_is_asked_again(server: WebServer, downloads: Path):
    record = json_answer(civitai_record(456, server.url("/m")))
    server.on("/api/v1/model-versions/456", Status(503), Status(429), record)
    server.on("/m", File(CONTENT))
    download = fetch(CivitaiSource(456, server.url()), downloads, retry_delay_s=DELAY_S)
    assert download.path.read_bytes() == CONTENT


def test_version_whose_file_was_replaced_starts_again(server: WebServer, downloads: Path):
    def offer(content: bytes, *answers: Answer) -> None:
        sha256 = hashlib.sha256(content).hexdigest()
        record = civitai_record(456, server.url("/m"), file={"hashes": {"SHA256": sha256}})
        server.on("/api/v1/model-versions/456", json_answer(record))
        server.on("/m", *answers)

    offer(CONTENT, File(CONTENT, drop_after=90_000), Status(404))
    with pytest.raises(CheckpointError, match="404"):
        fetch(CivitaiSource(456, server.url()), downloads, retry_delay_s=DELAY_S)
    assert len(files(downloads)["waiIllustriousSDXL_v160.safetensors.part"]) == 90_000
    other = payload(8)
    offer(other, File(other))
    assert fetch(CivitaiSource(456, server.url()), downloads).path.read_bytes() == other
    assert ranges(server.of("/m")) == [None, "bytes=90000-", None]


# Removal


def test_removed_download_leaves_nothing(get: Get, downloads: Path, server: WebServer):
    download = get(File(CONTENT))
    other = get(File(CONTENT), path="/other.safetensors")
    remove(download.path)
    assert not download.path.parent.exists()
    assert other.path.read_bytes() == CONTENT
    assert not get().was_there


def test_removal_touches_only_downloads(get: Get, tmp_path: Path):
    mine = tmp_path / "mine.safetensors"
    mine.write_bytes(CONTENT)
    stranger = get(File(CONTENT)).path.with_name("stranger.txt")
    stranger.write_text("kept")
    for path in (mine, stranger):
        with pytest.raises(CheckpointError, match="it stays"):
            remove(path)
    remove(stranger.with_name("m.safetensors"))
    assert mine.exists()
    assert [path.name for path in stranger.parent.iterdir() if path.name != "lock"] == [
        "stranger.txt"
    ]

"""Every secret is a canary, searched for in all output of a server at level DEBUG."""

from __future__ import annotations

import base64
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import httpx
import psutil
import pytest

from conftest import ROOT, Store, store_environment
from serving import Server, free_port, running
from web import File, WebServer

pytestmark = pytest.mark.processes

CANARY = "qzcanaryzq77"  # no word of any vocabulary, and four times three characters for base64
TOKENS = (f"{CANARY}-of-settings-1", f"{CANARY}-of-settings-2")
FILE_TOKEN = f"{CANARY}-of-the-file-1"
WRONG = f"{CANARY}-that-is-wrong"
PATHS = ["/", "/docs.json", "/schema.json", "/metrics", "/livez", "/readyz", "/healthz", "/nowhere"]
PATHS += ["/jobs", "/jobs/absent"]
ENDPOINTS = ["/generate", "/generate_stream", "/generate_batch", "/inspect_prompt", "/info"]
ENDPOINTS += ["/read_parameters"]


class Scene(NamedTuple):
    """A server with canaries, the folder it writes to, and its answers."""

    server: Server
    home: Path
    answers: dict[str, bytes]  # all that clients received


def secret_environment(home: Path, tokens_file: Path) -> dict[str, str]:
    return store_environment(home) | {
        "LPW_SDXL_TOKENS": ",".join(TOKENS),
        "LPW_SDXL_TOKENS_FILE": str(tokens_file),
        "CIVITAI_TOKEN": f"{CANARY}-of-civitai",
        "TMPDIR": str(home / "tmp"),
    }


@pytest.fixture(scope="module")
def scene(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    home = tmp_path_factory.mktemp("home")
    (home / "tmp").mkdir()
    shutil.copytree(store.home / "models", home / "models")
    tokens_file = tmp_path_factory.mktemp("secret") / "file-of-tokens"
    tokens_file.write_text(f"{FILE_TOKEN}\n")
    log_file = tmp_path_factory.mktemp("log") / "log"
    environment = secret_environment(home, tokens_file)
    port = free_port()
    command = [
        *(sys.executable, "-m", "bentoml", "serve", "service:LpwSdxl", "--verbose"),
        *("--host", "127.0.0.1", "--port", str(port)),
    ]
    with running(command, port, ROOT, environment, log_file) as server:
        answers = dict(ask_everything(server))
        tokens_file.write_text(f"{CANARY[:15]}\n")  # too short: a line in the log
        time.sleep(1.1)
        answers["after a bad file"] = httpx.get(server.url, headers=bearer(FILE_TOKEN)).content
        yield Scene(server, home, answers)


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def ask_everything(server: Server) -> Iterator[tuple[str, bytes]]:
    """Send all kinds of requests, with valid and invalid tokens, well-formed and not."""
    headers: Mapping[str, Mapping[str, str]] = {
        "none": {},
        "right": bearer(TOKENS[0]),
        "of the file": bearer(FILE_TOKEN),
        "wrong": bearer(WRONG),
        "another scheme": {"authorization": f"Basic {TOKENS[1]}"},
        "in a cookie": {"cookie": f"token={TOKENS[1]}", **bearer(TOKENS[1])},
    }
    bodies = {"/generate": {"prompt": "a", "num_inference_steps": 1}, "/info": {}}
    bodies["/generate_stream"] = bodies["/generate"] | {"preview_every": 1}
    bodies["/read_parameters"] = {"parameters": "a\nSteps: 1, Seed: 2"}
    bodies |= {"/generate_batch": {"requests": [bodies["/generate"]]}}
    with httpx.Client(base_url=server.url, timeout=120) as client:
        for name, sent in headers.items():
            for path in PATHS:
                response = client.get(path, headers=sent)
                yield f"GET {path} {name}", head_and_body(response)
            for path in ENDPOINTS:
                body = bodies.get(path, {"prompt": "a"})
                yield (
                    f"POST {path} {name}",
                    head_and_body(client.post(path, json=body, headers=sent)),
                )
                broken = client.post(path, content=b"{", headers={**sent, "content-type": "a/b"})
                yield f"POST {path} {name} broken", head_and_body(broken)
                bad = client.post(path, json={"widht": 1}, headers=sent)
                yield f"POST {path} {name} bad", head_and_body(bad)


def head_and_body(response: httpx.Response) -> bytes:
    return b"%r %r" % (response.status_code, response.headers.raw) + response.content


def found_in(content: bytes) -> bool:
    return CANARY.encode() in content.lower() or base64.b64encode(CANARY.encode()) in content


def files_with_canary(folder: Path) -> list[str]:
    return [
        str(file)
        for file in folder.rglob("*")
        if found_in(str(file.name).encode())
        or (file.is_file() and not file.is_symlink() and found_in(file.read_bytes()))
    ]


def test_every_way_of_asking_was_tried(scene: Scene) -> None:
    """Otherwise the canaries could be missing only because no request was sent."""
    statuses = {answer[:3] for answer in scene.answers.values()}
    assert {b"200", b"400", b"401", b"404", b"415"} <= statuses


def test_the_log_has_no_secret_at_debug(scene: Scene) -> None:
    log = scene.server.log
    assert "[DEBUG]" in log
    assert "the previous tokens stay valid" in log
    assert not found_in(log.encode())


def test_no_answer_has_a_secret(scene: Scene) -> None:
    assert [name for name, answer in scene.answers.items() if found_in(answer)] == []


def test_the_store_and_all_that_lies_in_bentomls_home_have_no_secret(scene: Scene) -> None:
    assert any(scene.home.rglob("*.db"))  # metrics
    assert files_with_canary(scene.home) == []


def test_no_command_line_has_a_secret(scene: Scene) -> None:
    parent = psutil.Process(scene.server.process.pid)
    processes = [parent, *parent.children(recursive=True)]
    assert len(processes) >= 2
    assert not any(found_in("\0".join(process.cmdline()).encode()) for process in processes)


def test_a_bento_has_no_secret(store: Store, tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    shutil.copytree(store.home / "models", tmp_path / "models")
    tokens_file = tmp_path.parent / "tokens-of-the-build"
    tokens_file.write_text(f"{FILE_TOKEN}\n")
    command = [
        sys.executable,
        "-m",
        "bentoml",
        "build",
        "--output",
        "tag",
        "--arg",
        f"model={store.tag}",
    ]
    built = subprocess.run(
        [*command, str(ROOT)],
        env=secret_environment(tmp_path, tokens_file),
        cwd=ROOT,
        capture_output=True,
        timeout=280,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    assert not found_in(built.stdout + built.stderr)
    bentos = tmp_path / "bentos"
    assert list(bentos.rglob("bento.yaml"))
    assert files_with_canary(tmp_path) == []


def test_an_address_with_a_password_is_refused_without_its_words(tmp_path: Path) -> None:
    with WebServer() as web:
        web.on("/model.safetensors", File(b"x" * 64))
        address = web.url("/model.safetensors").replace("://", f"://me:{CANARY}@")
        command = [sys.executable, "model_import.py", "checkpoint", address]
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=store_environment(tmp_path) | {"LPW_SDXL_DOWNLOADS": str(tmp_path / "downloads")},
            capture_output=True,
            timeout=120,
            check=False,
        )
        assert web.requests == []
    assert done.returncode == 1
    assert not found_in(done.stdout + done.stderr)
    assert files_with_canary(tmp_path) == []

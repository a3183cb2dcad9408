"""README's words are run: its blocks against a real service, its commands as they stand."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from conftest import ROOT, Store, store_environment
from demo.looking import look, nearest_colour
from demo.scene import COLOURS, Scene
from forks import Forks
from serving import Server, free_port, running
from tests.forge.checkpoint import SyntheticSize, write_checkpoint

pytestmark = pytest.mark.processes

README = (ROOT / "README.md").read_text(encoding="utf-8")
ADDRESS = "http://localhost:3000"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("newcomer")


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[Server]:
    """What README's first command starts, on a machine where nothing is imported yet."""
    assert "make serve" in blocks("sh")[0]
    port = free_port()
    command = ["make", "serve", f"PORT={port}"]
    with running(command, port, ROOT, store_environment(home), home / "log") as server:
        yield server


def test_make_serve_says_what_it_does(server: Server) -> None:
    assert "The demo model draws one shape on a background" in server.log
    assert f"Starting the service on {server.url}" in server.log


def assert_picture(file: Path) -> None:
    with Image.open(file) as image:
        assert image.size == (128, 128)


def test_make_serve_reads_the_configuration(server: Server) -> None:
    httpx.post(f"{server.url}/info", json={}, timeout=60)
    assert 'le="600.0"' in httpx.get(f"{server.url}/metrics", timeout=60).text


def test_the_first_request_draws_the_picture_that_readme_opens_with(
    server: Server, tmp_path: Path
) -> None:
    """Within what processors differ by in twenty steps and more."""
    body = json.loads(re.search(r"-d '(\{.*?\})'", CURL_BLOCKS[0])[1])
    answer = httpx.post(f"{server.url}/generate", json=body, timeout=120)
    drawn = np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGB"))
    shown = np.asarray(Image.open(ROOT / "docs" / "first-picture.png").convert("RGB"))
    assert np.abs(drawn.astype(int) - shown).mean() < 3
    assert look(drawn).scene == Scene("white", "green", "triangle", "large", "center")


CURL_BLOCKS = [block for block in blocks("sh") if block.startswith("curl")]
OF_DEMO_ADDONS = [block for block in CURL_BLOCKS if "demo-" in block]


def run_curl(block: str, server: Server, folder: Path) -> str:
    script = block.replace(ADDRESS, server.url).replace("examples/", f"{ROOT}/examples/")
    script = script.replace("curl -s ", "curl -s --fail-with-body ")
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "block",
    [block for block in CURL_BLOCKS if block not in OF_DEMO_ADDONS],
    ids=lambda block: block.split()[2][-20:],
)
def test_a_curl_block_works(server: Server, tmp_path: Path, block: str) -> None:
    output = run_curl(block, server, tmp_path)
    for name in re.findall(r"-o (\S+)", block):
        assert_picture(tmp_path / name)
    if "inspect_prompt" in block:
        assert json.loads(output)["prompt"]["token_count"] == 5


def test_the_demos_addons_do_what_readme_says(
    demo_store: Store, forks: Forks, tmp_path: Path
) -> None:
    home = shutil.copytree(demo_store.home, tmp_path / "home")
    environment = store_environment(home)
    (block,) = [block for block in blocks("sh") if "model_import.py lora demo/" in block]
    for line in block.splitlines():
        words = line.split("model_import.py ")[1].replace("demo/addons", f"{ROOT}/demo/addons")
        assert forks.run(tuple(words.split()), environment).status == 0
    port = free_port()
    command = ["make", "serve", f"PORT={port}"]
    (block,) = OF_DEMO_ADDONS
    with running(command, port, ROOT, environment, tmp_path / "log") as server:
        run_curl(block, server, tmp_path)
    framed, sun = (
        np.asarray(Image.open(tmp_path / name).convert("RGB"))
        for name in ("framed.png", "midnight-sun.png")
    )
    assert nearest_colour(look(framed).background) == "white", "its frame"
    inside = np.median(framed[16:24, 30:98], axis=(0, 1))
    assert inside.mean() > np.mean(COLOURS["purple"]) + 15, "pastel is lighter"
    assert look(sun).scene == Scene("yellow", "black", "circle", "large", "top")


@pytest.mark.parametrize("block", blocks("python"), ids=["sync", "async", "engine"])
def test_a_python_block_works(server: Server, home: Path, tmp_path: Path, block: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", block.replace(ADDRESS, server.url)],
        cwd=tmp_path,
        env=store_environment(home),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for name in re.findall(r'"([a-z]+\.png)"', block):
        assert_picture(tmp_path / name)
    if "Listener" in block:
        assert [line for line in done.stdout.splitlines() if " of " in line] == [
            f"{call} of 8" for call in range(1, 9)
        ]
    if "generate_batch" in block:
        assert {"batch-0.png", "batch-1.png"} <= set(os.listdir(tmp_path))
        assert "2 invalid_request width" in done.stdout


def test_the_long_example_has_more_than_500_tokens(server: Server) -> None:
    request = json.loads((ROOT / "examples" / "long_prompt.json").read_text(encoding="utf-8"))
    body = {"prompt": request["prompt"]}
    explained = httpx.post(f"{server.url}/inspect_prompt", json=body, timeout=60).json()
    assert explained["prompt"]["token_count"] > 500
    assert explained["prompt"]["warnings"] == []


def test_the_import_of_ones_own_checkpoint_works(forks: Forks, tmp_path: Path) -> None:
    """README's block of commands, on a file of the name that it uses."""
    (block,) = [block for block in blocks("sh") if "my_model.safetensors" in block]
    commands = [line for line in block.splitlines() if "model_import.py" in line]
    assert len(commands) == 2
    environment = store_environment(tmp_path)
    write_checkpoint(tmp_path / "my_model.safetensors", SyntheticSize.TINY, seed=3)
    for command in commands:
        arguments = command.partition("#")[0].split("model_import.py ")[1]
        arguments = arguments.replace("my_model", str(tmp_path / "my_model"))
        finished = forks.run(tuple(arguments.split()), environment)
        assert finished.status == 0, finished.sentence
    assert re.fullmatch(r"sdxl:[0-9a-f]{12}", finished.tag)


def test_every_target_and_subcommand_that_readme_names_exists(store: Store) -> None:
    helped = subprocess.run(
        ["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    ).stdout
    for target in set(re.findall(r"`make ([a-z-]+)", README)):
        assert re.search(rf"^{target}\s", helped, flags=re.MULTILINE), target
    usage = subprocess.run(
        [sys.executable, "model_import.py", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env=store.environment,
    ).stdout
    for subcommand in set(re.findall(r"`model_import.py ([a-z]+)", README)):
        assert subcommand in usage

"""The pages' code blocks are run: against a service that README's own command starts."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from conftest import ROOT, Store, store_environment
from demo.looking import look, nearest_colour
from demo.scene import COLOURS, Scene
from pages import BLOCKS, PAGES, README, Block
from serving import Server, free_port, running
from stores import run_here
from tests.forge.checkpoint import SyntheticSize, write_checkpoint
from tests.forge.upscalers import EsrganRecipe

pytestmark = pytest.mark.processes

ADDRESS = "http://localhost:3000"
START = ["make install", "make serve"]
IMPORT = ".venv/bin/python model_import.py "
OF_DOORS = [["openai"], ["a1111"]]  # tags of operations; those have pages of their own
EXPLAIN = (".venv/bin/python -m lpw_sdxl.prompt ", ".venv/bin/python -m lpw_sdxl.parameters ")
NOT_RUN = {
    "make test-fast": "would run the tests in a test",
    "make bundle": "locks packages for minutes; `make test-bundle` builds a bento and serves it",
    "make install": "needs PyTorch's index; tests/test_makefile.py has one of its own",
    "make image": "needs docker or podman; `make test-container` builds the image and runs it",
    "LPW_SDXL_LORA_DIR /data/loras": "needs such folders; tests/test_service_folders.py has some",
    "docker run": "the same; tests/container/test_volume.py fills a volume and serves it",
    "from openai": "needs a client of its own; `make test-doors` installs it and runs the block",
    "CIVITAI_TOKEN …": "needs docker; tests/container/test_runpod.py builds such images",
    "export RUNPOD_API_KEY": "needs an account; tests/doors/runpod has a queue in its place",
    "make train-demo": "takes hours",
    "export CIVITAI_TOKEN": "needs Civitai; tests/download has a server in its place",
    "export LPW_SDXL_TOKENS": "is a server on all addresses; test_service_guard.py starts some",
    "kubectl create": "needs a cluster; tests/deploy reads the files",
    "bentoml secret": "needs an account; tests/deploy reads the file",
}
"""Blocks that can't be run here, by their first words; test_pages.py checks what they name."""


def first_words(block: Block) -> str:
    """The program and what it is to do, or the variable that a block begins with."""
    return " ".join(re.split(r"[\s=]+", block.text)[:2])


def blocks(language: str, beginning: str | tuple[str, ...] = "") -> list[Block]:
    return [
        block for block in BLOCKS if block.language == language and block.text.startswith(beginning)
    ]


CURLS = blocks("sh", "curl ")
OF_DEMO_ADDONS = [block for block in CURLS if "demo-" in block.text]
IMPORTS = blocks("sh", IMPORT)
ADDON_IMPORTS = [block for block in IMPORTS if block.page == "docs/loras.md"]
EXPLANATIONS = blocks("sh", EXPLAIN)
PROGRAMS = [one for one in blocks("python") if "openai" not in one.text]
SCRIPTS = blocks("js")
REQUESTS = blocks("json")


def test_every_block_is_run_or_listed_with_a_reason() -> None:
    run = [*CURLS, *IMPORTS, *EXPLANATIONS, *PROGRAMS, *SCRIPTS, *REQUESTS]
    others = [block for block in BLOCKS if block not in run and block.commands != START]
    assert sorted(map(first_words, others)) == sorted(NOT_RUN)
    shown = [block for block in BLOCKS if block.shown is not None]
    assert [block for block in shown if block not in [*CURLS, *EXPLANATIONS, *PROGRAMS]] == []


def test_every_shell_block_is_well_formed() -> None:
    script = "\n".join(block.text for block in BLOCKS if block.language == "sh")
    subprocess.run(["bash", "-n"], input=script, text=True, check=True, timeout=60)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's own folder: the files that the pages name, of the kinds that they name."""
    folder = tmp_path_factory.mktemp("folder")
    for name in ("demo", "examples"):
        (folder / name).symlink_to(ROOT / name)
    write_checkpoint(folder / "my_model.safetensors", SyntheticSize.TINY, seed=3)
    for name, addon in (
        ("my_style", "demo-frame"),
        ("my_detail", "demo-pastel"),
        ("my_negative", "demo-midnight-sun"),
    ):
        source = ROOT / "demo" / "addons" / f"{addon}.safetensors"
        shutil.copy(source, folder / f"{name}.safetensors")
    torch.save(EsrganRecipe("first").tensors(), folder / "4x-UltraSharp.pth")
    vectors = load_file(folder / "my_negative.safetensors")
    for name, key in (("learned_embeds", "clip_l"), ("learned_embeds_2", "clip_g")):
        save_file({"<my-token>": vectors[key]}, folder / f"{name}.safetensors")
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("newcomer")


@pytest.fixture(scope="module")
def addon_home(demo_store: Store, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the demo model and all that docs/loras.md imports for it."""
    home = shutil.copytree(demo_store.home, tmp_path_factory.mktemp("addons") / "home")
    for block in ADDON_IMPORTS:
        run_imports(block, home, folder)
    return home


@pytest.fixture(scope="module")
def server(home: Path, addon_home: Path) -> Iterator[Server]:
    """What README's first block starts, on a machine where no model is imported yet.

    The LoRAs of docs/loras.md are there.
    """
    port = free_port()
    assert README.blocks[0].commands == START
    script = " && ".join(START) + f" PORT={port}"
    no_model = shutil.ignore_patterns("sdxl")
    shutil.copytree(addon_home / "models", home / "models", ignore=no_model, dirs_exist_ok=True)
    environment = store_environment(home)
    with running(["bash", "-c", script], port, ROOT, environment, home / "log") as server:
        yield server


def run_imports(block: Block, home: Path, folder: Path) -> list[str]:
    """Run a block's commands of model_import.py, and return what each printed."""
    outputs = []
    for command in block.commands:
        if command == "make serve":
            continue
        assert command.startswith(IMPORT), command
        with contextlib.chdir(folder):
            finished = run_here(home, *shlex.split(command.removeprefix(IMPORT)))
        assert finished.status == 0, finished.sentence
        outputs.append(finished.output)
    return outputs


def run_block(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run_curl(block: Block, server: Server, folder: Path) -> str:
    script = block.text.replace(ADDRESS, server.url)
    if block.shown is None:
        script = script.replace("curl -s ", "curl -s --fail-with-body ")
    return run_block(["bash", "-euo", "pipefail", "-c", script], folder, {**os.environ})


def assert_picture(file: Path, side: int = 128) -> None:
    with Image.open(file) as image:
        assert image.size == (side, side)


def test_make_serve_says_what_it_does(server: Server) -> None:
    assert "The demo model draws one shape on a background" in server.log
    assert f"Starting the service on {server.url}" in server.log


def test_make_serve_reads_the_configuration(server: Server) -> None:
    httpx.post(f"{server.url}/info", json={}, timeout=60)
    assert 'le="600.0"' in httpx.get(f"{server.url}/metrics", timeout=60).text


def test_the_first_request_draws_the_picture_that_readme_opens_with(server: Server) -> None:
    """Within what processors differ by in twenty steps and more."""
    body = json.loads(re.search(r"-d '(\{.*?\})'", CURLS[0].text)[1])
    answer = httpx.post(f"{server.url}/generate", json=body, timeout=120)
    drawn = np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGB"))
    shown = np.asarray(Image.open(ROOT / "docs" / "first-picture.png").convert("RGB"))
    assert np.abs(drawn.astype(int) - shown).mean() < 3
    assert look(drawn).scene == Scene("white", "green", "triangle", "large", "center")


@pytest.mark.parametrize("block", [one for one in CURLS if one not in OF_DEMO_ADDONS], ids=str)
def test_a_curl_block_works(server: Server, folder: Path, block: Block) -> None:
    output = run_curl(block, server, folder)
    for name in re.findall(r"-o (\S+)", block.text):
        assert_picture(folder / name, 192 if '"scale": 1.5' in block.text else 128)
    if "inspect_prompt" in block.text:
        assert json.loads(output)["prompt"]["token_count"] == 5
    if block.shown is not None:
        assert output.strip() == block.shown.strip()


def test_the_demos_addons_draw_what_the_page_says(server: Server, folder: Path) -> None:
    (block,) = OF_DEMO_ADDONS
    run_curl(block, server, folder)
    framed, sun = (
        np.asarray(Image.open(folder / name).convert("RGB"))
        for name in ("framed.png", "midnight-sun.png")
    )
    assert nearest_colour(look(framed).background) == "white", "its frame"
    inside = np.median(framed[16:24, 30:98], axis=(0, 1))
    assert inside.mean() > np.mean(COLOURS["yellow"]) + 15, "pastel is lighter"
    assert look(sun).scene == Scene("yellow", "black", "circle", "large", "top")


@pytest.mark.parametrize("block", REQUESTS, ids=str)
def test_a_json_block_is_a_request(server: Server, block: Block) -> None:
    body = json.loads(block.text) | {"num_inference_steps": 2}
    answer = httpx.post(f"{server.url}/generate", json=body, timeout=120)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("block", PROGRAMS, ids=str)
def test_a_python_block_works(server: Server, home: Path, tmp_path: Path, block: Block) -> None:
    command = [sys.executable, "-c", block.text.replace(ADDRESS, server.url)]
    output = run_block(command, tmp_path, store_environment(home))
    for name in re.findall(r'"([a-z]+\.png)"', block.text):
        assert_picture(tmp_path / name, 512 if name == "enlarged.png" else 128)
    if block.shown is not None:
        assert output == block.shown
    if "generate_batch" in block.text:
        assert {"batch-0.png", "batch-1.png"} <= set(os.listdir(tmp_path))


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node, in a browser's place")
@pytest.mark.parametrize("block", SCRIPTS, ids=str)
def test_a_javascript_block_works(server: Server, tmp_path: Path, block: Block) -> None:
    script = tmp_path / "script.mjs"
    script.write_text(block.text.replace(ADDRESS, server.url))
    output = run_block(["node", str(script)], tmp_path, {**os.environ})
    assert "image/png" in output


@pytest.mark.parametrize("block", EXPLANATIONS, ids=str)
def test_a_prompt_is_explained_as_shown(folder: Path, block: Block) -> None:
    script = block.text.replace(".venv/bin/python", sys.executable)
    assert run_block(["bash", "-c", script], folder, {**os.environ}) == block.shown


@pytest.mark.parametrize("block", [one for one in IMPORTS if one not in ADDON_IMPORTS], ids=str)
def test_a_file_is_imported(folder: Path, tmp_path: Path, block: Block) -> None:
    outputs = run_imports(block, tmp_path, folder)
    name = "upscaler-4x-ultrasharp" if f"{IMPORT}upscaler " in block.text else "sdxl"
    assert re.fullmatch(rf"{name}:[0-9a-f]{{12}}", outputs[1].splitlines()[-1])


def test_the_long_example_has_more_than_500_tokens(server: Server) -> None:
    request = json.loads((ROOT / "examples" / "long_prompt.json").read_text(encoding="utf-8"))
    body = {"prompt": request["prompt"]}
    explained = httpx.post(f"{server.url}/inspect_prompt", json=body, timeout=60).json()
    assert explained["prompt"]["token_count"] > 500
    assert explained["prompt"]["warnings"] == []


def test_the_table_of_endpoints_has_all_that_take_a_body(server: Server) -> None:
    (page,) = [page for page in PAGES if page.name == "docs/requests.md"]
    paths = httpx.get(f"{server.url}/docs.json", timeout=60).json()["paths"]
    taken = {
        path
        for path, methods in paths.items()
        if "post" in methods and methods["post"]["tags"] not in OF_DOORS
    }
    assert set(re.findall(r"^\| `(/\w+)` \|", page.text, re.MULTILINE)) == taken

"""An embedding in two files, one for each text encoder, into the store as one."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from conftest import Store
from stores import run_here, snapshot
from web import File, WebServer

from .test_lora_options import Home

TOKEN = "<my-token>"
FIRST, SECOND = torch.randn(2, 32), torch.randn(2, 64)


@pytest.fixture
def home(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("LPW_SDXL_DOWNLOADS", str(tmp_path / "downloads"))
    return Home(shutil.copytree(store.home, tmp_path / "bentoml"))


def write(folder: Path, name: str, tensor: Tensor, token: str = TOKEN) -> str:
    save_file({token: tensor}, folder / name)
    return str(folder / name)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[str, str]:
    """As Diffusers' script leaves them."""
    return (
        write(tmp_path, "learned_embeds.safetensors", FIRST),
        write(tmp_path, "learned_embeds_2.safetensors", SECOND),
    )


def joined(*paths: str) -> str:
    """As docs/loras.md has it."""
    digests = [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in paths]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


@pytest.mark.parametrize("is_turned", [False, True], ids=["in order", "turned"])
def test_two_files_become_one_entry_in_either_order(home: Home, pair, is_turned: bool):
    words = pair[::-1] if is_turned else pair
    done = home.done("embedding", *words, "--name", "mine")
    assert done.tag == f"embedding-mine:{joined(*pair)[:12]}"
    rows = done.output.splitlines()
    assert {"vectors: 2", "names: Diffusers, a file for each text encoder"} <= set(rows)
    entry = home.path / "models" / done.tag.replace(":", "/")
    stored = load_file(entry / "embedding.safetensors")
    assert torch.equal(stored["text_encoder"], FIRST)
    assert torch.equal(stored["text_encoder_2"], SECOND)
    manifest = home.manifest(done.tag)
    names = "learned_embeds.safetensors + learned_embeds_2.safetensors"
    assert (manifest["source_file"], manifest["source_sha256"]) == (names, joined(*pair))
    assert manifest["source"] == (
        "file:learned_embeds.safetensors + file:learned_embeds_2.safetensors"
    )
    assert manifest["source_size"] == sum(os.path.getsize(path) for path in pair)
    assert home.done("verify", done.tag).tag == done.tag
    before = snapshot(home.path)
    for again in (pair, pair[::-1]):
        known = home.done("embedding", *again, "--name", "mine")
        assert ("Already imported" in known.output, known.tag) == (True, done.tag)
        assert "hash" not in known.output
    assert snapshot(home.path) == before
    forced = home.done("embedding", *words, "--name", "mine", "--force")
    assert ("Imported and verified." in forced.output, forced.tag) == (True, done.tag)
    assert f"{done.tag}  embedding 'mine'  2 vectors  " in home.done("list").output


def test_copies_are_known_by_their_bytes(home: Home, pair, tmp_path: Path):
    tag = home.done("embedding", *pair, "--name", "mine").tag
    (tmp_path / "copies").mkdir()
    copies = [shutil.copy(path, tmp_path / "copies") for path in pair]
    known = home.done("embedding", *copies, "--name", "mine")
    assert ("Already imported" in known.output, known.tag) == (True, tag)
    mixed = home.done("embedding", copies[1], pair[0], "--name", "mine")
    assert ("Already imported" in mixed.output, mixed.tag) == (True, tag)


def test_another_second_file_is_another_version(home: Home, pair, tmp_path: Path):
    tag = home.done("embedding", *pair, "--name", "mine").tag
    other = write(tmp_path, "other.safetensors", SECOND + 1)
    new = home.done("embedding", pair[0], other, "--name", "mine")
    assert ("Imported and verified." in new.output, new.tag != tag) == (True, True)


def test_files_of_one_name_in_two_folders_are_joined(home: Home, tmp_path: Path):
    paths = []
    for folder, tensor in (("one", FIRST), ("two", SECOND)):
        (tmp_path / folder).mkdir()
        paths.append(write(tmp_path / folder, "learned_embeds.safetensors", tensor))
    assert home.done("embedding", *paths).tag.startswith("embedding-learned_embeds:")


def test_sdxls_own_pair_needs_no_model(tmp_path: Path):
    paths = [write(tmp_path, f"{w}.safetensors", torch.ones(1, w)) for w in (1280, 768)]
    done = run_here(tmp_path / "empty", "embedding", *paths, "--name", "mine")
    assert (done.status, "fits: SDXL" in done.output) == (0, True), done.sentence
    assert done.tag == f"embedding-mine:{joined(*paths[::-1])[:12]}"


def test_the_joined_sha256_is_what_the_option_means(home: Home, pair):
    before = snapshot(home.path)
    wrong = home.run("embedding", *pair, "--sha256", hashlib.sha256(b"").hexdigest())
    assert f"has the SHA-256 {joined(*pair)}; " in wrong.sentence
    assert snapshot(home.path) == before
    tag = home.done("embedding", *pair, "--sha256", joined(*pair)).tag
    assert home.done("embedding", *pair, "--sha256", joined(*pair)).tag == tag


WRONG = {
    "one width twice": ((FIRST, TOKEN), (FIRST, TOKEN), "of the widths 32 and 32; one file for "),
    "another base": ((torch.ones(1, 768), TOKEN), (torch.ones(1, 1024), TOKEN), "768 and one for"),
    "two tokens": ((FIRST, "<a>"), (SECOND, "<b\x1b>"), "is for the token '<a>' and second.safe"),
    "other counts": ((FIRST, TOKEN), (SECOND[:1], TOKEN), "has 2 vectors and second.safetensors"),
    "a number": ((FIRST, TOKEN), (torch.tensor(1.0), TOKEN), "has the shape []; [vectors, width]"),
    "whole numbers": ((FIRST, TOKEN), (SECOND.long(), TOKEN), "has the dtype I64; numbers with a"),
    "too many": ((torch.ones(76, 32), TOKEN), (torch.ones(76, 64), TOKEN), "has 76 vectors; 1 to"),
    "no number": ((FIRST, TOKEN), (SECOND * torch.nan, TOKEN), f"tensor {TOKEN} holds NaN"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_pair_is_refused_and_the_store_is_as_it_was(home: Home, tmp_path: Path, name):
    first, second, sentence = WRONG[name]
    paths = (
        write(tmp_path, "first.safetensors", *first),
        write(tmp_path, "second.safetensors", *second),
    )
    before = snapshot(home.path)
    for words in (paths, paths[::-1]):
        done = home.run("embedding", *words)
        assert done.status == 1
        assert sentence in done.sentence or words != paths, done.sentence
        assert done.sentence.count("\n") == 1
    assert snapshot(home.path) == before


def test_a_whole_embedding_beside_another_is_no_pair(home: Home, pair, tmp_path: Path):
    whole = tmp_path / "whole.safetensors"
    save_file({"clip_l": FIRST, "clip_g": SECOND}, whole)
    done = home.run("embedding", pair[0], str(whole))
    assert "whole.safetensors has 2 tensors; each of two files that are joined" in done.sentence


def test_halves_in_stabilitys_words_are_joined(home: Home, tmp_path: Path):
    paths = (
        write(tmp_path, "l.safetensors", FIRST, "clip_l"),
        write(tmp_path, "g.safetensors", SECOND, "clip_g"),
    )
    alone = home.run("embedding", paths[0])
    assert "clip_g is missing; if that is another file, `python model_import.py" in alone.sentence
    home.done("embedding", *paths)


def test_one_alone_is_refused_with_the_command_that_joins(home: Home, pair):
    command = "`python model_import.py embedding FIRST SECOND`"
    for path in pair:
        done = home.run("embedding", path)
        assert (done.status, command in done.sentence) == (1, True)
        rows = home.done("inspect", path).output.splitlines()
        assert rows[-1] == "import it with: python model_import.py embedding FIRST SECOND"


def test_two_files_are_a_pair_for_embeddings_alone(home: Home, pair):
    done = home.run("lora", *pair)
    assert done.status == 1
    assert "2 of 2 files could not be imported, for the reasons above." in done.sentence


def test_a_file_that_changes_meanwhile_is_refused(home: Home, pair, monkeypatch):
    from lpw_sdxl.importing.console import ImportConsole

    for path in pair:
        before = snapshot(home.path)
        with monkeypatch.context() as patch:
            patch.setattr(ImportConsole, "progress", lambda *_, path=path: os.utime(path))
            done = home.run("embedding", *pair)
        assert f"{Path(path).name} changed while it was imported" in done.sentence
        assert snapshot(home.path) == before


def test_a_pair_from_the_web_is_downloaded_joined_and_removed(home: Home, pair, tmp_path: Path):
    names = [Path(path).name for path in pair]
    with WebServer() as server:
        for name, path in zip(names, pair, strict=True):
            server.on(f"/{name}", File(Path(path).read_bytes()))
        urls = [server.url(f"/{name}") for name in names]
        refused = home.run("embedding", urls[1], pair[0], "--remove-source")
        assert "--remove-source is for downloads; learned_embeds.safetensors" in refused.sentence
        mixed = home.done("embedding", urls[1], pair[0], "--name", "mine")
        again = home.done("embedding", *urls, "--name", "mine", "--remove-source")
        assert ("Already imported" in again.output, again.tag) == (True, mixed.tag)
        assert not [*(tmp_path / "downloads").rglob("*.safetensors")]
        source = json.dumps(home.manifest(mixed.tag)["source"])
        assert source == f'"file:{names[0]} + {urls[1]}"'


def test_a_download_that_is_no_half_is_left_at_its_header(home: Home, pair, tmp_path: Path):
    whole = tmp_path / "whole.safetensors"
    save_file({"clip_l": torch.ones(75, 32), "clip_g": torch.ones(75, 64)}, whole)
    with WebServer() as server:
        server.on("/whole.safetensors", File(whole.read_bytes(), wait_s=0.01))
        done = home.run("embedding", pair[0], server.url("/whole.safetensors"))
    assert "has 2 tensors; each of two files" in done.sentence
    assert not [*(tmp_path / "downloads").rglob("*.safetensors")]

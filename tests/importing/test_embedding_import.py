"""Embeddings from a file, Civitai and a URL into the store, as a process of its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from web import File, WebServer, civitai_record, json_answer

from .conftest import CommandLine

Save = Callable[..., Path]
TINY = {"clip_l": torch.ones(8, 32), "clip_g": torch.full((8, 64), 2.0)}
FULL = {"clip_l": torch.ones(2, 768), "clip_g": torch.full((2, 1280), 2.0)}


def test_an_embedding_goes_all_the_way(command_line: CommandLine, save: Save):
    path = save(TINY, "Bad-Hands.safetensors", **{"modelspec.title": "Bad Hands v1"})
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    done = command_line.run("embedding", str(path))
    assert (done.status, done.sentence) == (0, "")
    assert done.tag == f"embedding-bad-hands:{sha256[:12]}"
    lines = done.output.splitlines()
    assert lines[0].startswith("needs: 0.07 GB for the entry in ")
    assert lines[1:3] == ["file: Bad-Hands.safetensors", "is: an embedding"]
    assert {"vectors: 8", "title: Bad Hands v1", f"fits: {command_line.model}"} <= set(lines)
    assert lines[-3:-1] == ["Imported and verified.", "Use it in a prompt by its name: Bad-Hands"]
    stored = load_file(command_line.entry(done.tag) / "embedding.safetensors")
    assert torch.equal(stored["text_encoder"], TINY["clip_l"])
    assert torch.equal(stored["text_encoder_2"], TINY["clip_g"])

    again = command_line.run("embedding", str(path), "--sha256", sha256)
    assert (again.status, again.tag) == (0, done.tag)
    assert "Already imported; nothing changed." in again.output
    listed = command_line.run("list").output.splitlines()
    expected = (
        f"{done.tag}  embedding 'Bad-Hands'  8 vectors  {command_line.model}  "
        "Bad-Hands.safetensors  latest"
    )
    assert expected in listed
    assert len(listed) == 2
    assert command_line.run("list", "embedding").output.splitlines() == [expected]
    assert command_line.run("list", "model").output.startswith("sdxl:")
    checked = command_line.run("verify", "embedding-bad-hands")
    assert (checked.status, checked.tag) == (0, done.tag)
    assert {"vectors: 8", "name: Bad-Hands", "fits: 32+64"} <= set(checked.output.splitlines())
    assert command_line.run("remove", done.tag).tag == done.tag
    assert command_line.run("list").output.splitlines() == [
        line for line in listed if line != expected
    ]


def test_a_damaged_entry_is_listed_verified_and_mended_by_the_advice(
    command_line: CommandLine, save: Save
):
    path = save(TINY, "its.safetensors")
    tag = command_line.run("embedding", str(path)).tag
    file = command_line.entry(tag) / "embedding.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    done = command_line.run("verify", tag)
    assert (done.status, done.output) == (1, "")
    assert f"The embedding {tag} has other bytes in embedding.safetensors" in done.sentence
    file.write_bytes(content[:-1])
    assert command_line.run("list", "embedding").output == (
        f"{tag}  damaged: `verify` shows what is wrong\n"
    )
    assert "embedding FILE --name its --force`" in done.sentence
    mended = command_line.run("embedding", str(path), "--name", "its", "--force")
    assert (mended.status, mended.tag) == (0, tag)
    assert command_line.run("verify", tag).status == 0


def test_sdxls_own_is_imported_into_a_store_of_a_tiny_model(command_line: CommandLine, save: Save):
    path = save(FULL, "unaesthetic.safetensors")
    done = command_line.run("embedding", str(path))
    assert done.status == 0, done.sentence
    assert "fits: SDXL" in done.output.splitlines()
    before = command_line.snapshot()
    refused = command_line.run("embedding", str(path), "--name", "x", "--model", "sdxl:latest")
    assert refused.status == 1
    assert refused.sentence == (
        "model_import: unaesthetic.safetensors is for text encoders of the widths 768 and 1280; "
        f"the 32 and 64 of {command_line.model} would be right.\n"
    )
    assert command_line.snapshot() == before


@pytest.mark.parametrize(
    ("tensors", "sentence"),
    [
        ({"emb_params": torch.ones(4, 768)}, "is a Stable Diffusion 1.x embedding; an SDXL"),
        ({"clip_l": torch.ones(4, 768), "clip_g": torch.ones(4, 2048)}, "768 and 2048; the 768 a"),
        ({"clip_l": torch.ones(2, 32), "clip_g": torch.full((2, 64), torch.nan)}, "clip_g holds N"),
    ],
)
def test_what_is_refused_leaves_the_store_as_it_was(
    command_line: CommandLine, save: Save, tensors, sentence: str
):
    before = command_line.snapshot()
    done = command_line.run("embedding", str(save(tensors, "wrong.safetensors")))
    assert done.status == 1
    assert sentence in done.sentence
    assert done.sentence.count("\n") == 1
    assert command_line.snapshot() == before


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--name", "a:b"], "The name 'a:b' can't be used; 1 to 100 characters on one line"),
        (["--name", "!!!"], "The name '!!!' has neither a letter nor a digit;"),
        (["--name", ""], "The name '' can't be used"),
        (["--name=-Good-one"], "is the same in the store as 'good-one', which is taken by"),
        (["--name", "Good one"], "letters A to Z, digits, '.', '_' and '-' are right: give one w"),
        (["--name", "négatif"], "such as --name n-gatif-635cc4da."),
        (["--sha256", "0" * 64], "has the SHA-256 "),
        (["--model", "none"], "No model none is in the store"),
        (["--model", "embedding-good-one"], "is the tag of an embedding, and a model is needed"),
        (["--remove-source"], "--remove-source is for downloads"),
    ],
    ids=lambda value: "" if isinstance(value, str) else " ".join(value),
)
def test_options_that_cannot_be_used_are_told(
    good_store: CommandLine, save: Save, words: list[str], sentence: str
):
    before = good_store.snapshot()
    done = good_store.run("embedding", str(save(TINY, "style.safetensors")), *words)
    assert done.status == 1
    assert sentence in done.sentence
    assert done.sentence.count("\n") == 1
    assert good_store.snapshot() == before


@pytest.fixture
def good_store(command_line: CommandLine, save: Save) -> CommandLine:
    path = save(TINY, "other.safetensors")
    assert command_line.run("embedding", str(path), "--name", "good-one").status == 0
    return command_line


def test_an_embedding_is_not_a_model_to_serve_and_no_models_name(
    good_store: CommandLine, save: Save
):
    from lpw_sdxl.errors import CheckpointError
    from lpw_sdxl.store.entries import check_name

    for kind in ("lora", "embedding"):
        with pytest.raises(CheckpointError, match=f"python model_import.py {kind}`; use another"):
            check_name(f"{kind}-x")
    path = save(TINY, "model.safetensors")
    done = good_store.run("checkpoint", str(path))
    assert "is a textual inversion embedding; import it with" in done.sentence


def test_inspect_says_what_an_embedding_is(command_line: CommandLine, save: Save):
    done = command_line.run("inspect", str(save(FULL, "a.safetensors")))
    assert done.output.splitlines()[1:2] == ["is: an embedding"]
    assert {"vectors: 2", "text encoders: of the widths 768 and 1280"} <= set(
        done.output.splitlines()
    )
    done = command_line.run("inspect", str(save({"emb_params": torch.ones(1, 768)}, "b.safeten")))
    assert (done.status, "is a Stable Diffusion 1.x embedding" in done.sentence) == (1, True)


@pytest.fixture
def civitai():
    with WebServer() as server:
        yield server


def test_civitais_words_are_kept_and_a_known_version_is_not_downloaded_again(
    command_line: CommandLine, civitai: WebServer, save: Save
):
    content = save(TINY, "made.safetensors").read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    file = {
        "name": "unaestheticXL.safetensors",
        "type": "Negative",
        "sizeKB": len(content) / 1024,
        "hashes": {"SHA256": sha256.upper()},
    }
    record = civitai_record(
        77,
        civitai.url("/file"),
        file=file,
        baseModel="SDXL 1.0",
        model={"name": "unaesthetic", "type": "TextualInversion"},
    )
    civitai.on("/api/v1/model-versions/77", json_answer(record))
    civitai.on("/file", File(content))
    settings = {"LPW_SDXL_CIVITAI_URL": civitai.url()}
    done = command_line.run("embedding", "civitai:77", "--remove-source", **settings)
    assert done.status == 0, done.sentence
    assert done.tag == f"embedding-unaestheticxl:{sha256[:12]}"
    manifest = json.loads((command_line.entry(done.tag) / "manifest.json").read_text())
    told = ("source", "title", "base_model", "trained_words", "source_sha256", "name")
    assert [manifest[key] for key in told] == [
        "civitai:77",
        "unaesthetic v16.0",
        "SDXL 1.0",
        ["masterpiece", "best quality"],
        sha256,
        "unaestheticXL",
    ]
    again = command_line.run("embedding", "civitai:77", **settings)
    assert (again.status, again.tag) == (0, done.tag)
    assert "Already imported; nothing changed." in again.output
    assert len(civitai.of("/file")) == 1


def test_a_url_that_names_no_file_asks_for_a_name(
    command_line: CommandLine, civitai: WebServer, save: Save
):
    civitai.on("/blob", File(save(TINY, "made.safetensors").read_bytes()))
    done = command_line.run("embedding", civitai.url("/blob"))
    assert done.status == 1
    assert "is no name for requests to use; give one with --name" in done.sentence
    assert command_line.run("embedding", civitai.url("/blob"), "--name", "blob").status == 0

"""Upscalers from files, pickles and URLs into the store, as a process of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tests.forge.upscalers import CompactRecipe, EsrganRecipe
from web import File, WebServer

from .conftest import CommandLine

OLD, NEW = (EsrganRecipe(naming, blocks=2).tensors() for naming in ("first", "basic"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """ESRGAN's first names, as most files have them."""
    save_file(OLD, tmp_path / "4x-UltraSharp.safetensors")
    return tmp_path / "4x-UltraSharp.safetensors"


@pytest.fixture
def pickled(tmp_path: Path) -> Path:
    torch.save({"params_ema": NEW, "iter": 400}, tmp_path / "RealESRGAN x4+.pth")
    return tmp_path / "RealESRGAN x4+.pth"


def assert_stored(command_line: CommandLine, tag: str) -> None:
    stored = load_file(command_line.entry(tag) / "upscaler.safetensors")
    assert stored.keys() == NEW.keys()
    assert all(torch.equal(stored[name], tensor) for name, tensor in NEW.items())


def test_an_upscaler_goes_all_the_way(command_line: CommandLine, path: Path):
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    done = command_line.run("upscaler", str(path))
    assert (done.status, done.sentence) == (0, "")
    assert done.tag == f"upscaler-4x-ultrasharp:{sha256[:12]}"
    lines = done.output.splitlines()
    assert lines[1:3] == ["file: 4x-UltraSharp.safetensors", "is: an upscaler (ESRGAN)"]
    facts = {"names: ESRGAN's first ones", "scale: 4", "channels: 8", "blocks: 2"}
    assert facts <= set(lines)
    assert lines[-3:-1] == ["Imported and verified.", "Requests name it: 4x-UltraSharp"]
    assert_stored(command_line, done.tag)

    again = command_line.run("upscaler", str(path))
    assert (again.status, again.tag) == (0, done.tag)
    assert "Already imported; nothing changed." in again.output
    listed = command_line.run("list", "upscaler").output.splitlines()
    assert listed == [
        f"{done.tag}  upscaler '4x-UltraSharp'  ESRGAN x4  any model  4x-UltraSharp.safetensors  "
        "latest"
    ]
    checked = command_line.run("verify", "upscaler-4x-ultrasharp")
    assert (checked.status, checked.tag) == (0, done.tag)
    assert {"scale: 4", "kind: upscaler"} <= set(checked.output.splitlines())
    assert command_line.run("remove", done.tag).tag == done.tag
    assert command_line.run("list", "upscaler").output == ""


def test_a_pickle_becomes_safetensors(command_line: CommandLine, pickled: Path):
    done = command_line.run("upscaler", str(pickled))
    assert (done.status, done.sentence) == (0, "")
    assert done.tag.startswith("upscaler-realesrgan-x4:")
    assert_stored(command_line, done.tag)
    assert "Already imported" in command_line.run("upscaler", str(pickled)).output
    other = command_line.run("upscaler", str(pickled), "--name", "other")
    assert other.tag.startswith("upscaler-other:")


def test_a_pickle_of_more_than_tensors_is_refused(command_line: CommandLine, tmp_path: Path):
    torch.save(nn.Conv2d(3, 3, 3), tmp_path / "model.pth")
    before = command_line.snapshot()
    done = command_line.run("upscaler", str(tmp_path / "model.pth"))
    assert (done.status, done.sentence) == (
        1,
        "model_import: model.pth is a pickle that holds more than tensors, or is damaged, and "
        "nothing of a pickle is run; its .safetensors version would be right.\n",
    )
    assert command_line.snapshot() == before


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--name", "latent nearest"], "is that of an upscaler that every server has; give"),
        (["--name", "Lanczos"], "is that of an upscaler that every server has; give"),
        (["--name", "a/b"], "The name 'a/b' can't be used"),
        (["--sha256", "0" * 64], "has the SHA-256 "),
    ],
)
def test_options_that_cannot_be_used_are_named(
    command_line: CommandLine, path: Path, words: list[str], sentence: str
):
    before = command_line.snapshot()
    done = command_line.run("upscaler", str(path), *words)
    assert done.status == 1
    assert sentence in done.sentence
    assert done.sentence.count("\n") == 1
    assert command_line.snapshot() == before


def test_a_damaged_entry_is_mended_by_the_advice(command_line: CommandLine, path: Path):
    tag = command_line.run("upscaler", str(path)).tag
    file = command_line.entry(tag) / "upscaler.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\1")
    done = command_line.run("verify", tag)
    assert f"The upscaler {tag} has other bytes in upscaler.safetensors" in done.sentence
    assert "upscaler FILE --name 4x-UltraSharp --force`" in done.sentence
    assert command_line.run("upscaler", str(path), "--force").tag == tag
    assert command_line.run("verify", tag).status == 0


def test_another_network_is_refused_by_its_name(command_line: CommandLine, tmp_path: Path):
    names = ("conv_first.weight", "layers.0.residual_group.blocks.0.norm1.weight")
    save_file({name: torch.ones(4, 3, 3, 3) for name in names}, tmp_path / "swin.safetensors")
    done = command_line.run("upscaler", str(tmp_path / "swin.safetensors"))
    assert "swin.safetensors is a SwinIR network, which is not served;" in done.sentence
    inspected = command_line.run("inspect", str(tmp_path / "swin.safetensors")).output
    assert "is: an upscaler\n" in inspected
    assert "can't be imported: swin.safetensors is a SwinIR network" in inspected


def test_inspect_says_what_an_upscaler_is(
    command_line: CommandLine, path: Path, pickled: Path, tmp_path: Path
):
    save_file(CompactRecipe(2).tensors(), tmp_path / "compact.safetensors")
    for file, facts in (
        (path, {"is: an upscaler (ESRGAN)", "names: ESRGAN's first ones"}),
        (pickled, {"is: an upscaler (ESRGAN)", "names: BasicSR's", "blocks: 2"}),
        (tmp_path / "compact.safetensors", {"is: an upscaler (compact Real-ESRGAN)", "scale: 2"}),
    ):
        done = command_line.run("inspect", str(file))
        assert (done.status, done.sentence) == (0, "")
        assert facts <= set(done.output.splitlines())
        assert "model_import.py upscaler FILE" in done.output
    torch.save({"x": torch.ones(3)}, tmp_path / "other.ckpt")
    done = command_line.run("inspect", str(tmp_path / "other.ckpt"))
    assert "other.ckpt is a zip archive, as PyTorch's .ckpt files are;" in done.sentence


def test_other_commands_name_the_right_one(command_line: CommandLine, path: Path):
    done = command_line.run("checkpoint", str(path))
    assert "is an upscaler; import it with `python model_import.py upscaler FILE`" in done.sentence
    assert (
        "is an upscaler; a LoRA for SDXL is needed" in command_line.run("lora", str(path)).sentence
    )


@pytest.fixture
def web() -> Iterator[WebServer]:
    with WebServer() as server:
        yield server


@pytest.mark.parametrize("is_declared", [True, False], ids=["with its size", "without"])
def test_a_pickle_is_downloaded_and_judged_when_it_is_whole(
    command_line: CommandLine, pickled: Path, web: WebServer, is_declared: bool
):
    web.on("/RealESRGAN.pth", File(pickled.read_bytes(), length=-1 if is_declared else None))
    url = web.url("/RealESRGAN.pth")
    refused = command_line.run("upscaler", url)
    assert "is no name for requests to use; give one with --name." in refused.sentence
    done = command_line.run("upscaler", url, "--name", "Real", "--remove-source")
    assert (done.status, done.sentence) == (0, "")
    assert "is: an upscaler (a pickle, which is judged when it is whole)" in done.output
    assert {"is: an upscaler (ESRGAN)", "scale: 4"} <= set(done.output.splitlines())
    assert_stored(command_line, done.tag)

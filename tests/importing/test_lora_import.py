"""LoRAs from a file into the store, as a process of its own."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from conftest import ROOT, Store
from lpw_sdxl.addon import fit
from lpw_sdxl.addon.entry import EntrySource, Fits
from lpw_sdxl.addon.registry import Registry
from lpw_sdxl.lora.targets import TargetModules, encoder_widths, read_targets, signature
from lpw_sdxl.weights.component import Component
from tests.forge.lora import LoraOptions, write_lora
from tests.forge.lora_factors import SyntheticKind as Kind

from .conftest import CommandLine

ATTENTION = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"


@pytest.fixture(scope="session")
def targets(store: Store) -> TargetModules:
    return read_targets(store.model_directory)


@pytest.fixture(scope="session")
def full_targets() -> TargetModules:
    return fit.sdxl_targets()


def few(targets: TargetModules) -> TargetModules:
    """Two modules, so that a file for SDXL's own size is small."""
    unet = {path: t for path, t in targets[Component.UNET].items() if path.startswith(ATTENTION)}
    assert unet
    return {
        Component.UNET: unet,
        Component.TEXT_ENCODER: {},
        Component.TEXT_ENCODER_2: {},
    }


def test_a_lora_goes_all_the_way(command_line: CommandLine, targets: TargetModules, tmp_path: Path):
    path = tmp_path / "Add Detail.safetensors"
    write_lora(path, targets, LoraOptions(metadata={"ss_base_model_version": "sdxl_base_v1-0"}))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    done = command_line.run("lora", str(path))
    assert (done.status, done.sentence) == (0, "")
    assert done.tag == f"lora-add-detail:{sha256[:12]}"
    lines = done.output.splitlines()
    models = command_line.home / "models"
    assert lines[:3] == [
        f"needs: 0.07 GB for the entry in {models}",
        "file: Add Detail.safetensors",
        "is: a LoRA (LoRA)",
    ]
    assert {"rank: 4", f"fits: {command_line.model}"} <= set(lines)
    assert lines[-3:-1] == [
        "Imported and verified.",
        "Use it in a prompt: <lora:Add Detail:1>",
    ]
    manifest = json.loads((command_line.entry(done.tag) / "manifest.json").read_text())
    assert manifest["fits"] == signature(targets)
    details = manifest["details"]
    assert (details["kinds"], details["ranks"], details["alphas"]) == (["LoRA"], [4], [2.0])
    assert details["modules"].keys() == {"unet", "text_encoder", "text_encoder_2"}
    listed = command_line.run("list", "lora").output
    assert listed.startswith(f"{done.tag}  LoRA 'Add Detail'  LoRA  ")
    assert listed.endswith("  Add Detail.safetensors  latest\n")
    assert command_line.run("verify", done.tag).tag == done.tag

    fits = Fits(signature(targets))
    registry = Registry.of([EntrySource(lambda: [command_line.entry(done.tag)], fits).look()])
    addon = registry.lora("add detail", "loras.0.name")
    stored = addon.load(addon.file)
    assert stored[f"unet/{ATTENTION}/alpha"].item() == 2.0
    assert stored[f"unet/{ATTENTION}/lora_down"].shape[0] == 4

    assert "Already imported" in command_line.run("lora", str(path)).output
    replaced = command_line.run("lora", str(path), "--force")
    assert (replaced.status, replaced.tag) == (0, done.tag)
    assert command_line.run("remove", "lora-add-detail").tag == done.tag
    assert command_line.run("list", "lora").output == ""


def test_several_files_are_imported_in_turn_and_one_bad_one_keeps_none_from_it(
    command_line: CommandLine, targets: TargetModules, tmp_path: Path
):
    paths = [tmp_path / f"{name}.safetensors" for name in ("one", "bad", "two", "three")]
    for seed, path in enumerate(paths):
        write_lora(path, targets, LoraOptions(seed=seed, rank=1))
    paths[1].write_text("<html>moved</html>")
    one, bad, two, three = map(str, paths)
    done = command_line.run("lora", one, bad, two, "--ignore-unknown", three)
    assert done.status == 1
    first, last = done.sentence.splitlines()
    assert first.startswith(f"{bad}: bad.safetensors is a web page")
    assert last == (
        "model_import: 1 of 4 files could not be imported, for the reasons above; the others are."
    )
    listed = command_line.run("list", "lora").output
    assert all(f"LoRA '{name}'" in listed for name in ("one", "two", "three"))
    assert command_line.run("lora", one, two).tag.startswith("lora-two:")
    refused = command_line.run("lora", one, two, "--name", "x")
    assert refused.status == 1
    assert "--name is for one file, and 2 are named" in refused.sentence


def test_a_lora_for_sdxl_is_imported_beside_a_tiny_model(
    command_line: CommandLine, full_targets: TargetModules, tmp_path: Path
):
    path = tmp_path / "style.safetensors"
    write_lora(path, few(full_targets))
    done = command_line.run("lora", str(path))
    assert done.status == 0, done.sentence
    assert "fits: SDXL" in done.output.splitlines()
    manifest = json.loads((command_line.entry(done.tag) / "manifest.json").read_text())
    assert manifest["fits"] == signature(full_targets)
    before = command_line.snapshot()
    refused = command_line.run("lora", str(path), "--name", "other", "--model", "sdxl")
    assert refused.status == 1
    assert refused.sentence.count("\n") == 1
    assert command_line.snapshot() == before
    again = command_line.run("lora", str(path), "--name", "lora of its own", "--sha256", "0" * 64)
    assert (again.status, command_line.snapshot()) == (1, before)


def test_models_of_sdxls_own_size_are_called_sdxl(
    full_targets: TargetModules, targets: TargetModules
):
    assert fit._is_sdxl(full_targets)
    assert encoder_widths(full_targets) == fit.SDXL_WIDTHS
    assert not fit._is_sdxl(targets)


def test_an_empty_store_takes_a_lora_for_sdxl(
    command_line: CommandLine, full_targets: TargetModules, tmp_path: Path
):
    path = tmp_path / "style.safetensors"
    write_lora(path, few(full_targets))
    done = command_line.run("lora", str(path), BENTOML_HOME=str(tmp_path / "empty"))
    assert (done.status, done.sentence) == (0, "")
    assert "fits: SDXL" in done.output.splitlines()


def test_another_base_a_pickle_and_another_kind_are_refused_by_name(
    command_line: CommandLine, save, tmp_path: Path
):
    pickle = tmp_path / "style.pt"
    pickle.write_bytes(b"PK\x03\x04" + bytes(100))
    name = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    pair = {
        f"{name}.lora_down.weight": torch.ones(4, 768),
        f"{name}.lora_up.weight": torch.ones(320, 4),
        f"{name}.alpha": torch.tensor(4.0),
    }
    first = save(pair, "sd15.safetensors")
    flux = save(
        {
            "transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight": torch.ones(4, 3072),
            "transformer.single_transformer_blocks.0.attn.to_q.lora_B.weight": torch.ones(3072, 4),
        },
        "flux.safetensors",
    )
    embedding = save({"clip_l": torch.ones(1, 32), "clip_g": torch.ones(1, 64)}, "e.safetensors")
    before = command_line.snapshot()
    for path, words in (
        (pickle, "a .safetensors file is needed"),
        (first, "Stable Diffusion 1"),
        (flux, "Flux"),
        (embedding, "is a textual inversion embedding; a LoRA for SDXL is needed"),
    ):
        done = command_line.run("lora", str(path))
        assert done.status == 1
        assert words in done.sentence
        assert done.sentence.count("\n") == 1
    assert command_line.snapshot() == before
    told = command_line.run("inspect", str(first)).output.splitlines()[-1]
    assert told.startswith("can't be imported: ")
    assert "Stable Diffusion 1" in told


def test_inspect_shows_what_a_lora_is(
    command_line: CommandLine, targets: TargetModules, tmp_path: Path
):
    path = tmp_path / "style.safetensors"
    write_lora(path, targets, LoraOptions(kind=Kind.LOHA, rank=2))
    done = command_line.run("inspect", str(path))
    assert (done.status, done.sentence) == (0, "")
    needs = (
        "an import needs: 0.07 GB in the model store (BENTOML_HOME); a download also takes the"
        " file's own size, in LPW_SDXL_DOWNLOADS"
    )
    lines = {"is: a LoRA (LoHa)", "rank: 2", f"fits: {command_line.model}", needs}
    assert lines <= set(done.output.splitlines())
    assert done.output.splitlines()[-1] == "import it with: python model_import.py lora FILE"


def test_the_service_is_told_that_a_loras_tag_is_no_model(
    command_line: CommandLine, targets: TargetModules, tmp_path: Path
):
    path = tmp_path / "style.safetensors"
    write_lora(path, targets, LoraOptions(components=(Component.TEXT_ENCODER,)))
    tag = command_line.run("lora", str(path)).tag
    script = "import sys; from lpw_sdxl.store.entries import find; find(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", script, tag],
        env=command_line.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr.splitlines()[-1] == (
        f"lpw_sdxl.errors.ModelError: {tag} is the tag of a LoRA, and a model is needed, such as "
        f"{command_line.model}; requests name the LoRAs."
    )


@pytest.mark.parametrize("share", [0.75, 0.9])
def test_a_kill_leaves_nothing(
    command_line: CommandLine, targets: TargetModules, tmp_path: Path, share: float
):
    """Killed when the entry's file is being made in the staging area, or soon after."""
    path = tmp_path / "style.safetensors"
    write_lora(path, targets, LoraOptions(rank=32, has_convolutions=True))
    before = command_line.snapshot()
    words = [sys.executable, str(ROOT / "model_import.py"), "lora", str(path)]
    staging = command_line.home / "tmp"
    with subprocess.Popen(
        words, env=command_line.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        needed = share * path.stat().st_size
        deadline = time.monotonic() + 60
        while _largest(staging) <= needed:
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    left = command_line.snapshot()
    assert {name for name in left.keys() - before.keys() if not name.startswith("tmp/")} == set()
    assert command_line.run("list", "lora").output == ""
    done = command_line.run("lora", str(path))
    assert done.status == 0, done.sentence
    assert command_line.run("verify", done.tag).tag == done.tag
    assert [file.name for file in staging.iterdir() if file.suffix != ".lock"] == []


def _largest(staging: Path) -> int:
    """Size of the file that is being made; 0 where a folder went away under our eyes."""
    try:
        return max((file.stat().st_size for file in staging.rglob("lora.safetensors")), default=0)
    except FileNotFoundError:
        return 0

"""Spoilt LoRA and embedding files: refused in one sentence, or imported right.

A byte of a weight may be any other and a missing alpha has a meaning, so some files are whole;
these must hold the source's numbers. 40 in `make test`, 200 in `make test-long`. LPW_TEST_SEED
repeats a run.
"""

from __future__ import annotations

import importlib.util
import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import ROOT, Store
from lpw_sdxl.addon import fit
from lpw_sdxl.addon.manifest import read_addon_manifest
from lpw_sdxl.lora.targets import read_targets
from lpw_sdxl.weights.component import Component
from mutations import MUTATIONS, Forgery, add_a_tensor, entries_of, flip_in_the_weights
from stores import run_here, store_at
from tests.forge.lora import LoraOptions, write_lora
from tests.forge.lora_factors import SyntheticKind as Kind

ALL = (*MUTATIONS, flip_in_the_weights)
KINDS = (Kind.LORA, Kind.LOHA, Kind.LOKR, Kind.DORA)


@pytest.fixture
def home(store: Store, tmp_path: Path) -> Iterator[Path]:
    """A store of this test's own with the demo model in it, in this process."""
    with store_at(shutil.copytree(store.home, tmp_path / "bentoml")) as home:
        yield home


@pytest.mark.thorough
@pytest.mark.parametrize(
    "count", [40, pytest.param(200, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])]
)
def test_a_spoilt_lora_is_refused_or_imported_right(
    home: Path, store: Store, tmp_path: Path, capsys, monkeypatch, count: int
):
    spec = importlib.util.spec_from_file_location("model_import", ROOT / "model_import.py")
    command_line = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(command_line)
    # It is built anew for each refusal, in a second.
    sdxl = fit.sdxl_targets()
    monkeypatch.setattr(fit, "sdxl_targets", lambda: sdxl)
    targets = read_targets(store.model_directory)
    whole = {kind: tmp_path / f"{kind}.safetensors" for kind in KINDS}
    for kind, path in whole.items():
        options = LoraOptions(kind=kind, components=(Component.UNET,), is_attention_only=True)
        write_lora(path, targets, options)
        assert command_line.main(["lora", str(path), "--name", "whole"]) == 0, kind
    before = _snapshot(home)

    seed = int(os.environ.get("LPW_TEST_SEED", time.time_ns() % 10**6))
    path = tmp_path / "spoilt.safetensors"
    refused = 0
    for number in range(count):
        mutate, kind = ALL[number % len(ALL)], KINDS[number % len(KINDS)]
        content = whole[kind].read_bytes()
        data = content[8 + int.from_bytes(content[:8], "little") :]
        mutate(Forgery(entries_of(content), random.Random(seed + number), data), path)
        where = f"LPW_TEST_SEED={seed + number} {mutate.__name__} of {kind}"
        capsys.readouterr()
        status = command_line.main(["lora", str(path)])
        printed = capsys.readouterr()
        if status == 0:
            tag = printed.out.splitlines()[-1]
            stored = load_file(home / "models" / tag.replace(":", "/") / "lora.safetensors")
            source, kept = _contents(load_file(path)), _contents(stored)
            assert not kept - source, where
            assert (source - kept).total() <= _left_out(home, tag), where
            assert mutate is add_a_tensor or source == kept, where
            assert command_line.main(["verify", tag]) == 0, where
            assert command_line.main(["remove", tag]) == 0, where
        else:
            refused += 1
            assert status == 1, where
            assert printed.err.startswith("model_import: "), where
            assert printed.err.count("\n") == 1, (where, printed.err)
            assert len(printed.err) < 1000, (where, printed.err)
        assert _snapshot(home) == before, where
    assert refused > count * 0.6, "most of these files are no LoRAs any more"


def _contents(tensors: dict[str, torch.Tensor]) -> Counter[bytes]:
    """Every tensor's bytes but those of single numbers: a missing alpha is put in."""
    return Counter(
        tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
        for tensor in tensors.values()
        if tensor.dim()
    )


def _left_out(home: Path, tag: str) -> int:
    """How many tensors the entry's manifest says were left out."""
    manifest = read_addon_manifest(home / "models" / tag.replace(":", "/"))
    return sum(manifest.details.ignored.values())


def _snapshot(home: Path) -> dict[str, int]:
    return {
        str(path.relative_to(home)): path.stat().st_mtime_ns
        for path in home.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }


@pytest.mark.thorough
@pytest.mark.parametrize(
    "count", [40, pytest.param(200, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])]
)
def test_a_spoilt_embedding_is_refused_or_imported_right(
    home: Path, tmp_path: Path, capsys, count: int
):
    whole = tmp_path / "whole.safetensors"
    save_file({"clip_l": torch.ones(8, 32), "clip_g": torch.full((8, 64), 2.0)}, whole)
    assert run_here(home, "embedding", str(whole)).status == 0
    before = _snapshot(home)
    content = whole.read_bytes()
    data = content[8 + int.from_bytes(content[:8], "little") :]
    seed = int(os.environ.get("LPW_TEST_SEED", time.time_ns() % 10**6))
    path = tmp_path / "spoilt.safetensors"
    refused = 0
    for number in range(count):
        mutate = ALL[number % len(ALL)]
        mutate(Forgery(entries_of(content), random.Random(seed + number), data), path)
        where = f"LPW_TEST_SEED={seed + number} {mutate.__name__}"
        done = run_here(home, "embedding", str(path))
        if done.status == 0:
            file = home / "models" / done.tag.replace(":", "/") / "embedding.safetensors"
            assert _contents(load_file(file)) == _contents(load_file(path)), where
            assert run_here(home, "verify", done.tag).status == 0, where
            assert run_here(home, "remove", done.tag).status == 0, where
        else:
            refused += 1
            assert (done.status, done.sentence.count("\n")) == (1, 1), (where, done.sentence)
            assert done.sentence.startswith("model_import: "), where
            assert len(done.sentence) < 1000, where
        assert _snapshot(home) == before, where
    assert refused > count * 0.6, "most of these files are no embeddings any more"

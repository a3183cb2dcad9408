"""The checkpoint that the demo's training writes: SDXL's names, and nothing lost."""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from conftest import ROOT
from demo.export import read_checkpoint, write_checkpoint
from demo.networks import Networks, make_networks
from demo.train import TITLE
from demo.words import Vocabulary
from lpw_sdxl.checkpoint.inspect import Prediction, PredictionType, summarise
from lpw_sdxl.weights.header import read_header

SHIPPED = ROOT / "demo" / "lpw-sdxl-demo.safetensors"


@pytest.fixture(scope="module")
def networks() -> Networks:
    return make_networks(Vocabulary(), seed=4)


@pytest.fixture(scope="module")
def checkpoint(networks: Networks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("demo") / "untrained.safetensors"
    write_checkpoint(path, networks, "untrained")
    return path


def test_what_was_written_is_read_back(networks: Networks, checkpoint: Path) -> None:
    others = make_networks(Vocabulary(), seed=5)
    read_checkpoint(checkpoint, others)
    for component, module in networks.modules.items():
        found = dict(others.modules[component].named_parameters())
        for name, tensor in module.named_parameters():
            rows = slice(1, None) if name.endswith(".rows") else slice(None)  # the first is unused
            assert torch.equal(found[name][rows], tensor.half().float()[rows]), (component, name)


def test_it_has_the_names_of_the_shipped_one(checkpoint: Path) -> None:
    shapes = []
    for path in (checkpoint, SHIPPED):
        with safe_open(path, "pt") as file:
            shapes.append({name: file.get_slice(name).get_shape() for name in file.keys()})  # noqa: SIM118 - no dict
    assert shapes[0] == shapes[1]


def test_the_shipped_one_says_what_it_is() -> None:
    summary = summarise(read_header(SHIPPED))
    assert summary.prediction == Prediction(PredictionType.V_PREDICTION, has_zero_snr=True)
    assert (summary.native_size.height, summary.native_size.width) == (128, 128)
    with safe_open(SHIPPED, "pt") as file:
        assert file.metadata()["modelspec.title"] == TITLE


def test_the_shipped_one_is_small() -> None:
    content = SHIPPED.read_bytes()
    assert len(content) <= 24e6
    assert len(zlib.compress(content)) <= 12e6

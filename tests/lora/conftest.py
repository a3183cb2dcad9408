"""LoRAs in the canonical form for the demo model's real networks, new for each test."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save_file
from torch import Tensor

from lpw_sdxl.diffusion.pipeline import Pipeline
from lpw_sdxl.lora.library import LoraLibrary
from lpw_sdxl.lora.merging import Network
from lpw_sdxl.settings import Settings
from lpw_sdxl.store.origin import Origin
from lpw_sdxl.weights.component import Component

CPU = torch.device("cpu")
RANK = 4


@dataclass(frozen=True)
class CanonicalFile:
    """A stand-in for a registry's entry, as the library uses it."""

    name: str
    file: Path

    @property
    def manifest(self) -> CanonicalFile:
        return self

    @property
    def origin(self) -> Origin:
        return Origin("", self.file.name, 1, self.name)

    @property
    def key(self) -> str:
        return self.name

    def is_current(self) -> bool:
        return self.file.exists()

    def load(self, file: Path, *, is_checked: bool) -> Mapping[str, Tensor]:
        return load(file.read_bytes())


@pytest.fixture
def pipeline(model_directory: Path) -> Pipeline:
    return Pipeline.load(model_directory, CPU, Settings())


def networks_of(pipeline: Pipeline) -> dict[Component, torch.nn.Module]:
    first, second = pipeline.prompt_encoder.models
    return {
        Component.UNET: pipeline.unet,
        Component.TEXT_ENCODER: first,
        Component.TEXT_ENCODER_2: second,
    }


Matches = Callable[[str, Tensor], bool]


def is_attention(path: str, weight: Tensor) -> bool:
    return ("attn" in path or "ff." in path) and weight.ndim == 2


def is_layer(path: str, weight: Tensor) -> bool:
    return weight.ndim in (2, 4) and "embeddings" not in path


def make_factors(weight: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    """Draw a LoRA or LoCon of rank 4 whose change is a fifth of the weight."""

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    out, rest = weight.shape[0], weight.shape[1:]
    ones = (1,) * (weight.ndim - 2)
    spread = 0.2 * float(weight.std()) / RANK**0.5
    return {
        "lora_down": draw(RANK, *rest),
        "lora_up": draw(out, RANK, *ones) * spread,
        "alpha": torch.tensor(float(RANK)),
    }


def write_canonical(
    path: Path,
    networks: Mapping[Component, torch.nn.Module],
    seed: int,
    matches: Matches = is_attention,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        f"{component}/{layer}/{factor}": tensor.contiguous()
        for component, module in networks.items()
        for layer, weights in Network(component, module).base.items()
        if matches(layer, weights.weight)
        for factor, tensor in make_factors(weights.weight, generator).items()
    }
    save_file(tensors, path)


@pytest.fixture(scope="session")
def canonical_folder(model_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return four LoRAs: a and b of attention, c of everything, d of the UNet alone."""
    folder = tmp_path_factory.mktemp("canonical")
    networks = networks_of(Pipeline.load(model_directory, CPU, Settings()))
    unet_only = {Component.UNET: networks[Component.UNET]}
    kinds = {
        "a": (networks, is_attention),
        "b": (networks, is_attention),
        "c": (networks, is_layer),
        "d": (unet_only, is_attention),
    }
    for seed, (name, (some, matches)) in enumerate(kinds.items()):
        write_canonical(folder / f"{name}.safetensors", some, seed, matches)
    return folder


@pytest.fixture
def library(canonical_folder: Path, tmp_path: Path) -> LoraLibrary:
    """Return the four, in files that a test may damage."""
    files = sorted(Path(shutil.copy(file, tmp_path)) for file in canonical_folder.iterdir())
    sources = {file.stem: CanonicalFile(file.stem, file) for file in files}
    return LoraLibrary(sources, max_bytes=2**30)

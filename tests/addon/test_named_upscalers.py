"""Which upscalers a request can name: imported ones, and files of a folder as they come and go."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lpw_sdxl.addon import loose_file
from lpw_sdxl.addon.catalogue import Catalogue
from lpw_sdxl.addon.entry import EntrySource, Fits
from lpw_sdxl.addon.installed import open_catalogue
from lpw_sdxl.addon.manifest import AddonDetails
from lpw_sdxl.addon.named_upscalers import find_imported, upscaler_names
from lpw_sdxl.addon.registry import Registry
from lpw_sdxl.addon.served import AddonPlaces
from lpw_sdxl.errors import AddonNotReadError, InvalidRequestError
from lpw_sdxl.store.kind import AddonKind
from tests.forge.upscalers import CompactRecipe, EsrganRecipe

from .conftest import Write

FIELD = "hires.upscaler"
PATIENCE_S = 20.0


@pytest.fixture
def registry(write_entry: Write) -> Registry:
    details = AddonDetails(kinds=("ESRGAN",), scale=4, channels=64, blocks=23)
    entries = [
        write_entry(kind=AddonKind.UPSCALER, name=name, fits="", details=details)
        for name in ("4x-UltraSharp", "RealESRGAN_x4plus")
    ]
    source = EntrySource(lambda: [*entries, write_entry()], Fits("another model", "1+2"))
    return Registry.of([source.look()])


@pytest.mark.parametrize("name", ["4x-UltraSharp", "4X-ultrasharp", "4x UltraSharp"])
def test_an_imported_one_is_found_whatever_model_is_served(registry: Registry, name: str):
    found = find_imported(registry, name, FIELD)
    assert (found.manifest.name, found.manifest.details.scale) == ("4x-UltraSharp", 4)
    assert registry.loras == registry.embeddings == {}


def test_the_names_are_the_built_in_ones_and_the_imported(registry: Registry):
    names = upscaler_names(registry)
    assert {"none", "nearest", "lanczos", "latent", "latent_nearest_exact"} <= set(names)
    assert names[-2:] == ["4x-UltraSharp", "RealESRGAN_x4plus"]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("ultrasharp", "No upscaler is named 'ultrasharp'; near are '4x-UltraSharp'."),
        ("zzz", "No upscaler is named 'zzz'; this server has 2 beside latent, latent_antialiased"),
        ("Add Detail XL", "No upscaler is named 'Add Detail XL'; "),
        ("../x", "No upscaler is named '../x'; "),
        ("x" * 100_000, "No upscaler is named 'xxx"),
    ],
)
def test_an_unknown_name_is_refused(registry: Registry, name: str, sentence: str):
    with pytest.raises(InvalidRequestError) as raised:
        find_imported(registry, name, FIELD)
    assert str(raised.value).startswith(sentence)
    assert len(str(raised.value)) < 400
    assert raised.value.field == FIELD


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(loose_file, "STILL_S", 0.1)
    (folder := tmp_path / "upscalers").mkdir()
    save_file(EsrganRecipe("first").tensors(), folder / "4x_Foolhardy.safetensors")
    torch.save(CompactRecipe().tensors(), folder / "pickle.pth")
    torch.save(CompactRecipe().tensors(), folder / "renamed.safetensors")
    return folder


@pytest.fixture
def catalogue(folder: Path, model_directory: Path) -> Iterator[Catalogue]:
    opened = open_catalogue(model_directory, AddonPlaces(upscaler_folder=folder))
    opened.start(lambda _: None)
    yield opened
    opened.close()


def wait_for(catalogue: Catalogue, name: str) -> object:
    """The upscaler of a name, or what is said of it, once its file is read."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        try:
            return find_imported(catalogue.current, name, FIELD)
        except AddonNotReadError as error:
            error.pending.when_read().result(PATIENCE_S)
        except InvalidRequestError as error:
            return str(error)
    raise TimeoutError


def test_a_folders_files_are_served_by_their_names(catalogue: Catalogue):
    found = wait_for(catalogue, "4x_foolhardy")
    assert (found.manifest.name, found.manifest.details.scale) == ("4x_Foolhardy", 4)
    right = EsrganRecipe("basic").tensors()
    loaded = found.load(found.file)
    assert loaded.keys() == right.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in right.items())


def test_a_folders_pickles_are_not_read(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("a pickle was read"))
    assert "is there but can't be used" in wait_for(catalogue, "renamed")
    assert wait_for(catalogue, "pickle").startswith("No upscaler is named 'pickle'")

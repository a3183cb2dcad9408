"""The way from a model's directory to an engine: nothing damaged comes through."""

from __future__ import annotations

import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from conftest import Store
from lpw_sdxl.addon.served import AddonPlaces
from lpw_sdxl.api import engine_start
from lpw_sdxl.api.engine_start import EngineStart
from lpw_sdxl.engine import Engine
from lpw_sdxl.engine.metrics import EngineMetrics
from lpw_sdxl.errors import ModelError, SettingsError
from lpw_sdxl.settings import Settings
from lpw_sdxl.store import verification
from lpw_sdxl.store.manifest import read_manifest
from lpw_sdxl.weights.component import Component

DAMAGE = "has other bytes in {name} than were imported"


def start_of(directory: Path, metrics: EngineMetrics, verify: str = "contents") -> EngineStart:
    settings = Settings(device="cpu", verify=verify)  # type: ignore[arg-type]
    return EngineStart(directory, settings, AddonPlaces(), metrics, pytest.fail)


@pytest.fixture
def metrics() -> EngineMetrics:
    return EngineMetrics(CollectorRegistry())


@pytest.fixture
def copy(store: Store, tmp_path: Path) -> Path:
    """A copy of the tiny model, to damage."""
    return shutil.copytree(store.model_directory, tmp_path / Path(*store.tag.split(":")))


def change_a_byte(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def forget_fast_digests(directory: Path) -> None:
    """Make a manifest one that an earlier version wrote."""
    file = directory / "manifest.json"
    values = json.loads(file.read_text())
    for record in values["files"].values():
        del record["blake3"]
    file.write_text(json.dumps(values))


def test_one_changed_byte_in_any_file_ends_the_start(copy: Path, metrics: EngineMetrics) -> None:
    names = sorted(read_manifest(copy).files)
    assert len(names) >= 15
    for name in names:
        for place in (0, -1):
            change_a_byte(copy / name, place)
            with pytest.raises(ModelError, match=DAMAGE.format(name=name)):
                start_of(copy, metrics).load()
            change_a_byte(copy / name, place)
    start_of(copy, metrics).load().close()  # it is whole again


def test_a_model_of_an_earlier_import_is_verified_as_ever(
    copy: Path, metrics: EngineMetrics
) -> None:
    forget_fast_digests(copy)
    start_of(copy, metrics).load().close()
    name = Component.VAE.weights_file
    change_a_byte(copy / name, -1)
    with pytest.raises(ModelError, match=DAMAGE.format(name=name)):
        start_of(copy, metrics).load()


def test_heads_alone_are_read_where_the_owner_wants_it(
    copy: Path, metrics: EngineMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification, "SMALL_BYTES", 100)
    change_a_byte(copy / Component.VAE.weights_file, -1)
    start_of(copy, metrics, "heads").load().close()
    change_a_byte(copy / Component.VAE.weights_file, 0)
    with pytest.raises(ModelError, match=DAMAGE.format(name=Component.VAE.weights_file)):
        start_of(copy, metrics, "heads").load()


def test_it_is_not_ready_before_every_byte_is_verified(
    copy: Path, metrics: EngineMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, loaded = threading.Event(), threading.Event()
    verify, load = verification.verify_files, Engine.load

    def verify_late(*arguments: Any) -> None:
        assert go_on.wait(60)
        verify(*arguments)

    def load_and_note(*arguments: Any, **options: Any) -> Engine:
        engine = load(*arguments, **options)
        loaded.set()
        return engine

    monkeypatch.setattr(verification, "verify_files", verify_late)
    monkeypatch.setattr(Engine, "load", load_and_note)
    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit(start_of(copy, metrics).load)
        assert loaded.wait(60)
        with pytest.raises(TimeoutError):
            starting.result(0.3)
        go_on.set()
        starting.result(60).close()


def test_a_gpu_that_torch_can_not_use_is_no_silent_cpu(
    copy: Path, metrics: EngineMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_start, "predict_cuda", lambda *_: True)
    with pytest.raises(SettingsError, match="LPW_SDXL_DEVICE=cpu serves without"):
        start_of(copy, metrics).load()

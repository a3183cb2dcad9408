"""LoRAs and embeddings that come, change and go while the engine works."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lpw_sdxl.addon import catalogue as catalogue_module
from lpw_sdxl.addon import loose, loose_file
from lpw_sdxl.addon.installed import open_catalogue
from lpw_sdxl.addon.served import AddonPlaces
from lpw_sdxl.engine import Engine
from lpw_sdxl.engine.job import GeneratedImage
from lpw_sdxl.errors import DeadlineError, InvalidRequestError
from lpw_sdxl.imaging import parameters_text
from lpw_sdxl.lora.targets import TargetModules, encoder_widths, read_targets
from lpw_sdxl.parameters.request import ParametersRequest
from lpw_sdxl.schema import GenerationRequest, InspectionRequest
from lpw_sdxl.settings import Settings
from tests.forge.lora import LoraOptions, write_lora

PATIENCE_S = 30.0


@pytest.fixture(scope="module")
def targets(model_directory: Path) -> TargetModules:
    return read_targets(model_directory)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loose_file, "STILL_S", 0.1)
    monkeypatch.setattr(catalogue_module, "LOOK_EVERY_S", 0.05)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (folder := tmp_path / "folder").mkdir()
    return folder


@pytest.fixture
def open_engine(model_directory: Path, root: Path) -> Iterator[Callable[..., Engine]]:
    engines = []

    def load(**settings: object) -> Engine:
        places = AddonPlaces(lora_folder=root, embedding_folder=root)
        addons = open_catalogue(model_directory, places)
        engine = Engine.load(model_directory, Settings(device="cpu", **settings), addons=addons)
        engines.append(engine)
        return engine

    yield load
    for engine in engines:
        engine.close()


@pytest.fixture
def put(root: Path, targets: TargetModules) -> Callable[[str, int], Path]:
    """Put a LoRA into the folder, in one step."""

    def put(name: str, seed: int) -> Path:
        partial = root.parent / "partial.safetensors"
        write_lora(partial, targets, LoraOptions(seed=seed, rank=1))
        return partial.replace(root / f"{name}.safetensors")

    return put


def put_embedding(path: Path, targets: TargetModules, value: float) -> None:
    widths = zip(("clip_l", "clip_g"), encoder_widths(targets), strict=True)
    partial = path.parent.with_name("partial.safetensors")
    save_file({name: torch.full((2, width), value) for name, width in widths}, partial)
    partial.replace(path)


def request(prompt: str = "a fox", **fields: object) -> GenerationRequest:
    sizes = {"width": 64, "height": 64, "num_inference_steps": 2, "seed": 7}
    return GenerationRequest(prompt=prompt, **sizes | fields)


def pixels(image: GeneratedImage) -> np.ndarray:
    return image.pixels.astype(int)


async def known(engine: Engine, is_so: Callable[[list[str]], bool]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not is_so([lora.name for lora in engine.describe().loras]):
        assert time.monotonic() < until, engine.describe().loras
        await asyncio.sleep(0.02)


async def test_a_lora_that_comes_is_waited_for_replaced_and_removed(
    open_engine: Callable[..., Engine], put: Callable[[str, int], Path]
) -> None:
    engine = open_engine()
    plain = pixels(await engine.generate(request()))
    with pytest.raises(InvalidRequestError, match="No LoRA is named 'ink'"):
        await engine.generate(request("a fox <lora:ink:1>"))
    path = put("ink", 1)
    engine._catalogue.look()
    # It is not read yet, and the request waits for that.
    first = await engine.generate(request("a fox <lora:ink:1>"))
    assert np.abs(pixels(first) - plain).max() > 8
    [told] = engine.describe().loras
    assert (told.name, told.sha256) == ("ink", first.record.loras[0].sha256)

    put("ink", 2)
    # Nobody has looked yet: the request itself finds another file than it was told of.
    second = await engine.generate(request("a fox <lora:ink:1>"))
    assert second.record.loras[0].sha256 != first.record.loras[0].sha256
    assert np.abs(pixels(second) - pixels(first)).max() > 8

    path.unlink()
    with pytest.raises(InvalidRequestError, match="No LoRA is named 'ink'"):
        await engine.generate(request("a fox <lora:ink:1>"))
    assert engine.describe().loras == []
    assert np.array_equal(pixels(await engine.generate(request())), plain)
    put("ink", 1)
    await known(engine, lambda names: names == ["ink"])
    again = await engine.generate(request("a fox <lora:ink:1>"))
    assert np.array_equal(pixels(again), pixels(first))


@pytest.mark.parametrize("kept", [0, 2**30], ids=["nothing cached", "cached"])
@pytest.mark.parametrize("is_replaced", [False, True], ids=["removed", "replaced"])
async def test_requests_under_way_finish_with_the_file_that_they_saw(
    open_engine: Callable[..., Engine],
    put: Callable[[str, int], Path],
    kept: int,
    is_replaced: bool,
) -> None:
    path = put("ink", 1)
    engine = open_engine(lora_files_bytes=kept, lora_weights_bytes=1)
    expected = pixels(await engine.generate(request("a fox <lora:ink:1>", num_inference_steps=4)))
    stepping, go_on = threading.Event(), threading.Event()

    def hold_up(*_: object) -> None:
        stepping.set()
        assert go_on.wait(PATIENCE_S)

    hook = engine.pipeline.unet.register_forward_pre_hook(hold_up)
    try:
        blocking = asyncio.create_task(engine.generate(request("b", num_inference_steps=1)))
        await asyncio.to_thread(stepping.wait, PATIENCE_S)
        waiting = asyncio.create_task(
            engine.generate(request("a fox <lora:ink:1>", num_inference_steps=4))
        )
        until = time.monotonic() + PATIENCE_S
        while engine.queued_jobs < 2 and time.monotonic() < until:
            await asyncio.sleep(0.01)
        path.unlink()
        if is_replaced:
            put("ink", 2)
        engine._catalogue.look()
    finally:
        hook.remove()
        go_on.set()
    await blocking
    image = await waiting
    assert np.array_equal(pixels(image), expected)


async def test_a_request_gives_up_at_its_own_deadline_while_a_file_is_read(
    open_engine: Callable[..., Engine],
    put: Callable[[str, int], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = open_engine()
    go_on = threading.Event()
    hash_file = loose.hash_file
    monkeypatch.setattr(
        loose, "hash_file", lambda *rest: go_on.wait(PATIENCE_S) and hash_file(*rest)
    )
    put("ink", 1)
    engine._catalogue.look()
    try:
        explained = engine.explain(InspectionRequest(prompt="<lora:ink:1>"))
        assert "The LoRA 'ink' is still being read" in explained.prompt.warnings[0]
        with pytest.raises(DeadlineError, match="still being read") as caught:
            await engine.generate(request("a <lora:ink:1>", deadline_s=0.5))
        assert caught.value.field == "deadline_s"
        # Others are made meanwhile, and a client that leaves takes nothing with it.
        await engine.generate(request())
        left = asyncio.create_task(engine.generate(request("a <lora:ink:1>")))
        stays = asyncio.create_task(engine.generate(request("a <lora:ink:1>")))
        await asyncio.sleep(0.2)
        left.cancel()
        with pytest.raises(asyncio.CancelledError):
            await left
    finally:
        go_on.set()
    assert (await stays).record.loras[0].name == "ink"
    assert engine.queued_jobs == 0


async def test_parameters_are_read_with_the_loras_that_are_there_now(
    open_engine: Callable[..., Engine], put: Callable[[str, int], Path]
) -> None:
    path = put("ink", 1)
    engine = open_engine()
    first = await engine.generate(request("a fox <lora:ink:1>"))
    text = ParametersRequest(parameters=parameters_text(first.record))
    answer = engine.read_parameters(text)
    assert answer.not_honoured == []
    assert answer.request["prompt"] == "a fox <lora:ink:1>"

    put("ink", 2)
    await engine.generate(request("a fox <lora:ink:1>"))
    (note,) = engine.read_parameters(text).not_honoured
    assert (note.name, note.value) == ("LoRA", "ink")
    assert "The file of this name has the hash" in note.reason

    path.unlink()
    await known(engine, lambda names: names == [])
    answer = engine.read_parameters(text)
    assert answer.request["prompt"] == "a fox "
    assert answer.not_honoured[0].reason.startswith("No LoRA of this name is here; none is near")
    put("ink", 1)
    engine._catalogue.look()
    assert engine.read_parameters(text).not_honoured == []  # it may be still being read


async def test_an_embedding_that_is_there_at_the_start_is_known_to_the_first_request(
    open_engine: Callable[..., Engine], root: Path, targets: TargetModules
) -> None:
    put_embedding(root / "glow.safetensors", targets, 0.5)
    engine = open_engine()
    first = await engine.generate(request("a glow"))
    assert [one.name for one in first.record.embeddings] == ["glow"]
    put_embedding(root / "glow.safetensors", targets, -0.5)
    until = time.monotonic() + PATIENCE_S
    while (second := await engine.generate(request("a glow"))).record == first.record:
        assert time.monotonic() < until
    assert second.record.embeddings[0].sha256 != first.record.embeddings[0].sha256
    assert not np.array_equal(pixels(second), pixels(first))
    (root / "glow.safetensors").unlink()
    engine._catalogue.look()
    third = await engine.generate(request("a glow"))
    assert third.record.embeddings == ()
    assert not np.array_equal(pixels(third), pixels(second))
    put_embedding(root / "glow.safetensors", targets, 0.5)
    while not (again := await engine.generate(request("a glow"))).record.embeddings:
        assert time.monotonic() < until
    assert np.abs(pixels(again) - pixels(first)).max() <= 1


async def test_many_versions_of_an_embedding_leave_nothing_behind(
    open_engine: Callable[..., Engine], root: Path, targets: TargetModules
) -> None:
    engine = open_engine(conditioning_cache_bytes=0)
    ids = engine.pipeline.prompt_encoder._embedding_ids
    for version in range(5):
        put_embedding(root / "glow.safetensors", targets, float(version))
        until = time.monotonic() + PATIENCE_S
        while ids._next < 49408 + 2 * (version + 1):
            assert time.monotonic() < until
            await asyncio.sleep(0.02)
        await engine.generate(request("a glow"))
    assert len(ids._ids) == 1
    assert len(ids._by_id) == 2

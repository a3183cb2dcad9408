"""LoRAs in the engine: each image has its own, whatever it shares its calls with."""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lora.conftest import is_attention, is_layer, networks_of
from lpw_sdxl.addon.entry import StoredAddon
from lpw_sdxl.addon.registry import Registry
from lpw_sdxl.diffusion.pipeline import Pipeline
from lpw_sdxl.engine import Engine
from lpw_sdxl.errors import InvalidPromptError, InvalidRequestError, LoraUnavailableError
from lpw_sdxl.schema import GenerationRequest
from lpw_sdxl.settings import Settings
from lpw_sdxl.store.origin import Origin
from lpw_sdxl.weights.files import record_file
from stored_loras import store_lora

NAMES = ("ink", "Glow", "noir", "unet-only")


@pytest.fixture(scope="module")
def addons(tmp_path_factory: pytest.TempPathFactory, model_directory: Path) -> Registry:
    pipeline = Pipeline.load(model_directory, torch.device("cpu"), Settings())
    folder = tmp_path_factory.mktemp("loras")
    made = [
        store_lora(
            folder,
            name,
            pipeline,
            seed,
            is_layer if name == "noir" else is_attention,
            has_encoders=name != "unet-only",
        )
        for seed, name in enumerate(NAMES)
    ]
    return Registry({addon.manifest.name.lower(): addon for addon in made}, {}, {})


@pytest.fixture(scope="module")
def lora_engine(model_directory: Path, addons: Registry) -> Iterator[Engine]:
    engine = Engine.load(model_directory, Settings(device="cpu"), addons=addons)
    yield engine
    engine.close()


def request(**fields: object) -> GenerationRequest:
    return GenerationRequest.model_validate(
        {"prompt": "a tower", "num_inference_steps": 3, "seed": 7, "width": 64, "height": 64}
        | fields
    )


REQUESTS = {
    "none": {},
    "ink": {"loras": [{"name": "ink", "weight": 1.5}]},
    "ink in the prompt": {"prompt": "a tower <lora:ink:1.5>"},
    "negative": {"loras": [{"name": "ink", "weight": -1.5}]},
    "two": {"loras": [{"name": "ink"}], "prompt": "a tower <lora:Glow:2>"},
    "three": {"prompt": "a <lora:NOIR:1><lora:glow:-1>tower<lora:unet-only:1.2>"},
    "text encoders only": {"prompt": "a tower<lora:ink:2:0>"},
    "unet alone": {"prompt": "a tower<lora:ink:0:2>"},
    "no guidance": {"prompt": "a tower<lora:ink:1>", "guidance_scale": 1.0},
    "larger": {"prompt": "a tower<lora:ink:1>", "width": 96},
    "long": {"prompt": "a tower, " * 60 + "<lora:noir:1>"},
    "very long": {"prompt": "a tower, " * 130 + "<lora:glow:1>"},
}


async def make(engine: Engine, fields: dict[str, object]) -> np.ndarray:
    return (await engine.generate(request(**fields))).pixels.astype(int)


@pytest.mark.thorough
async def test_among_others_every_image_is_what_it_is_alone(lora_engine: Engine) -> None:
    alone = {name: await make(lora_engine, fields) for name, fields in REQUESTS.items()}
    calls_before = sum(n for jobs, n in lora_engine.counters.unet_calls.items() if jobs > 3)
    for _ in range(2):
        together = await asyncio.gather(*(make(lora_engine, one) for one in REQUESTS.values()))
        for name, pixels in zip(REQUESTS, together, strict=True):
            assert np.abs(pixels - alone[name]).max() <= 1, name
    calls = sum(n for jobs, n in lora_engine.counters.unet_calls.items() if jobs > 3)
    assert calls > calls_before  # sets shared calls
    assert np.array_equal(alone["ink"], alone["ink in the prompt"])
    different = [name for name in REQUESTS if name not in ("ink in the prompt", "larger")]
    for index, one in enumerate(different):
        for other in different[index + 1 :]:
            assert np.abs(alone[one] - alone[other]).max() > 2, (one, other)


@pytest.mark.thorough
async def test_where_a_call_takes_one_set_the_images_are_the_same(
    model_directory: Path, addons: Registry, lora_engine: Engine
) -> None:
    few_bytes = Settings(device="cpu", lora_weights_bytes=1, lora_files_bytes=0)
    engine = Engine.load(model_directory, few_bytes, addons=addons)
    try:
        assert engine.plan.max_lora_sets == 1
        names = ["none", "ink", "two", "three", "text encoders only", "no guidance"]
        together = await asyncio.gather(*(make(engine, REQUESTS[name]) for name in names))
        for name, pixels in zip(names, together, strict=True):
            assert np.abs(pixels - await make(lora_engine, REQUESTS[name])).max() <= 1, name
    finally:
        engine.close()


@pytest.mark.thorough
@pytest.mark.parametrize("offload", ["never", "always"])
async def test_afterwards_the_base_weights_are_bit_for_bit_the_same(
    model_directory: Path, addons: Registry, lora_engine: Engine, offload: str
) -> None:
    engine = Engine.load(model_directory, Settings(device="cpu", offload=offload), addons=addons)
    try:
        before = {
            f"{component}.{name}": tensor.clone()
            for component, module in networks_of(engine.pipeline).items()
            for name, tensor in module.state_dict().items()
        }
        names = ["ink", "three", "none", "very long"]
        together = await asyncio.gather(*(make(engine, REQUESTS[name]) for name in names))
        for name, pixels in zip(names, together, strict=True):
            assert np.abs(pixels - await make(lora_engine, REQUESTS[name])).max() <= 1, name
    finally:
        engine.close()  # its thread is done, and what it holds is at rest
    engine._loop.stages.release_idle_memory()
    for component, module in networks_of(engine.pipeline).items():
        for name, tensor in module.state_dict().items():
            assert torch.equal(tensor, before[f"{component}.{name}"]), (component, name)


@pytest.mark.parametrize(
    ("fields", "field", "message"),
    [
        ({"loras": [{"name": "inc"}]}, "loras.0.name", "near are 'ink'"),
        ({"loras": [{"name": "ink"}, {"name": "x" * 60}]}, "loras.1.name", "/info lists"),
        ({"prompt": "a <lora:gloww:1>"}, "prompt", "near are 'Glow'"),
        ({"prompt": "a <lora:../../etc/passwd:1>"}, "prompt", "No LoRA is named"),
        ({"negative_prompt": "a <lora:ink:1>"}, "negative_prompt", "belongs in the prompt"),
        ({"prompt": "<lora:ink:9><lora:ink:9>"}, "prompt", "add up to 18"),
    ],
    ids=["near", "far", "tag", "path", "negative", "sum"],
)
async def test_what_can_not_be_used_is_refused_by_name(
    lora_engine: Engine, fields: dict[str, object], field: str, message: str
) -> None:
    with pytest.raises((InvalidRequestError, InvalidPromptError), match=message) as refusal:
        await lora_engine.generate(request(**fields))
    assert refusal.value.field == field


async def test_more_different_loras_than_the_limit_are_refused(
    model_directory: Path, addons: Registry
) -> None:
    engine = Engine.load(model_directory, Settings(device="cpu", max_loras=2), addons=addons)
    try:
        with pytest.raises(InvalidRequestError, match="uses 3 different LoRAs; at most 2"):
            engine.decide(request(prompt="<lora:ink:1><lora:glow:1><lora:noir:1>"))
        spec = engine.decide(request(prompt="<lora:ink:1><lora:glow:1><lora:noir:0>"))
        assert [use.name for use in spec.record.loras] == ["Glow", "ink"]
    finally:
        engine.close()


async def test_a_damaged_lora_fails_its_own_requests_only(
    model_directory: Path, addons: Registry, tmp_path: Path
) -> None:
    broken = tmp_path / "lora-broken" / "1"
    broken.mkdir(parents=True)
    whole = addons.loras["ink"]
    content = bytearray(whole.file.read_bytes())
    content[-1] ^= 1
    (broken / whole.file.name).write_bytes(content)
    manifest = dataclasses.replace(
        whole.manifest, name="broken", origin=Origin("", "", 1, "f" * 64)
    )
    some = Registry({**addons.loras, "broken": StoredAddon(manifest, broken)}, {}, {})
    engine = Engine.load(model_directory, Settings(device="cpu"), addons=some)
    try:
        good, bad = await asyncio.gather(
            engine.generate(request(loras=[{"name": "ink"}])),
            engine.generate(request(loras=[{"name": "broken"}])),
            return_exceptions=True,
        )
        assert isinstance(bad, LoraUnavailableError)
        assert "LoRA broken was removed or damaged" in str(bad)
        assert not isinstance(good, BaseException)
    finally:
        engine.close()


def remove_file(file: Path) -> None:
    file.unlink()


def remove_entry(file: Path) -> None:
    shutil.rmtree(file.parent.parent)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def spoil_numbers(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("was_read", [False, True], ids=["unread", "read before"])
@pytest.mark.parametrize("harm", [remove_file, remove_entry, truncate, spoil_numbers])
async def test_a_lora_harmed_under_the_engine_is_unavailable_by_name(
    model_directory: Path,
    addons: Registry,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    harm: Callable[[Path], None],
    was_read: bool,
) -> None:
    folder = tmp_path / "lora-ink" / "1"
    shutil.copytree(addons.loras["ink"].path, folder)
    own = dataclasses.replace(addons.loras["ink"], path=folder)
    some = Registry({**addons.loras, "ink": own}, {}, {})
    # Nothing is kept, so that a file is read for each request.
    engine = Engine.load(model_directory, Settings(device="cpu", lora_files_bytes=0), addons=some)
    try:
        if was_read:
            await engine.generate(request(loras=[{"name": "ink"}]))
        harm(own.file)
        good, bad = await asyncio.gather(
            engine.generate(request(loras=[{"name": "Glow"}])),
            engine.generate(request(loras=[{"name": "ink", "weight": 0.5}])),
            return_exceptions=True,
        )
        assert isinstance(bad, LoraUnavailableError)
        assert (bad.status, bad.code) == (503, "lora_unavailable")
        assert "the LoRA ink was removed or damaged on this server" in str(bad)
        assert str(tmp_path) not in str(bad)
        assert not isinstance(good, BaseException)
        assert not any(record.exc_info for record in caplog.records)
    finally:
        engine.close()


async def test_a_lora_that_overflows_is_refused_and_others_are_not(
    model_directory: Path, addons: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As an earlier version imported it; at 1e-3 its merged weights are finite, and no image is."""
    made = {}
    for name, factor in (("ink", 1e25), ("noir", 1e15)):
        folder = tmp_path / f"lora-{name}" / "1"
        shutil.copytree(addons.loras[name].path, folder)
        addon = dataclasses.replace(addons.loras[name], path=folder)
        tensors = load_file(addon.file)
        save_file({key: one * factor for key, one in tensors.items()}, addon.file)
        files = {addon.file.name: record_file(addon.file)}
        made[name] = dataclasses.replace(
            addon, manifest=dataclasses.replace(addon.manifest, files=files)
        )
    engine = Engine.load(
        model_directory,
        Settings(device="cpu"),
        addons=Registry({**addons.loras, **made}, {}, {}),
    )
    try:
        for name, weight in (("ink", 1.0), ("ink", 0.001), ("noir", 10.0)):
            good, bad = await asyncio.gather(
                engine.generate(request(loras=[{"name": "Glow"}])),
                engine.generate(request(loras=[{"name": name, "weight": weight}])),
                return_exceptions=True,
            )
            assert isinstance(bad, InvalidRequestError), (name, weight, bad)
            assert (bad.status, bad.field) == (400, "loras")
            assert name in str(bad)
            assert not isinstance(good, BaseException)
        assert not any(record.exc_info for record in caplog.records)
    finally:
        engine.close()


@pytest.mark.thorough
async def test_where_merged_weights_leave_no_memory_for_a_call_they_go(
    model_directory: Path, addons: Registry, lora_engine: Engine
) -> None:
    engine = Engine.load(model_directory, Settings(device="cpu"), addons=addons)
    adapters = engine._loop.stages.adapters
    assert adapters is not None
    held = []

    def lack(*_: object) -> None:
        held.append(adapters.counters.entries)
        if held[-1] > 4:
            raise torch.OutOfMemoryError("injected")

    hook = engine.pipeline.unet.register_forward_pre_hook(lack)
    try:
        for strength in (0.5, 0.6, 0.7):  # three sets, each in three networks
            loras = [{"name": "ink", "weight": strength}]
            image = await make(engine, {"loras": loras})
            assert np.abs(image - await make(lora_engine, {"loras": loras})).max() <= 1
    finally:
        hook.remove()
        engine.close()
    assert max(held) > 4
    assert engine.counters.failed == 0

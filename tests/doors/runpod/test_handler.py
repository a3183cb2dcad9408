"""The handler with an engine, and without RunPod's package."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lpw_sdxl.addon.installed import open_catalogue
from lpw_sdxl.addon.served import AddonPlaces
from lpw_sdxl.doors.runpod.delivery import InlineDelivery
from lpw_sdxl.doors.runpod.handler import JobHandler
from lpw_sdxl.doors.runpod.progress import Report
from lpw_sdxl.engine import Engine
from lpw_sdxl.lora.targets import read_targets
from lpw_sdxl.schema import GenerationRequest
from lpw_sdxl.settings import Settings
from runpod_inputs import OLD_INPUTS, OldInput
from tests.forge.lora import LoraOptions, write_lora

SMALL = {"width": 64, "height": 64, "num_inference_steps": 2}
LONG = {"prompt": "a fox", "width": 256, "height": 256, "steps": 150}
DRAWN = {name: old for name, old in OLD_INPUTS.items() if old.meaning}


class Reports:
    """A reporter that keeps what it is given."""

    def __init__(self) -> None:
        self.sent: list[Report] = []

    async def send(self, _job: object, report: Report) -> None:
        self.sent.append(report)


def handler(engine: Engine, most_bytes: int = 10**7, reports: Reports | None = None) -> JobHandler:
    return JobHandler(engine, InlineDelivery(most_bytes), reports)


def decoded(content: bytes) -> Any:
    with Image.open(io.BytesIO(content)) as opened:
        return np.asarray(opened).astype(int)


def failure(output: Any) -> dict[str, Any]:
    assert [*output] == ["error"]
    told: dict[str, Any] = json.loads(output["error"])
    return told


@pytest.fixture(scope="module")
def styled_engine(
    model_directory: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    """An engine with the LoRAs of the old inputs, as files of a folder."""
    folder = tmp_path_factory.mktemp("loras")
    targets = read_targets(model_directory)
    for seed, name in enumerate(("ink", "gold")):
        write_lora(folder / f"{name}.safetensors", targets, LoraOptions(seed=seed))
    addons = open_catalogue(model_directory, AddonPlaces(lora_folder=folder))
    engine = Engine.load(model_directory, Settings(device="cpu"), addons=addons)
    yield engine
    engine.close()


@pytest.mark.parametrize("old", DRAWN.values(), ids=DRAWN.keys())
async def test_an_old_input_draws_what_its_names_meant(
    old: OldInput, styled_engine: Engine
) -> None:
    """The same pixels as our own request of that meaning, in a small size of few steps."""
    assert old.meaning is not None
    small = {name: one for name, one in SMALL.items() if name not in old.meaning[0]}
    output = await handler(styled_engine).handle({"id": "a", "input": old.input | small})
    images = output["images"]
    assert len(images) == len(old.meaning)
    for image, meaning in zip(images, old.meaning, strict=True):
        wanted = {"prompt": "a fox", **SMALL, **meaning, "seed": image["seed"]}
        request = GenerationRequest.model_validate(wanted)
        same = await styled_engine.generate(request)
        drawn = decoded(base64.b64decode(image["image"]))
        assert drawn.shape == (request.height, request.width, 3)
        assert np.abs(drawn - decoded(same.encode())).max() <= 1
        assert meaning.get("seed", image["seed"]) == image["seed"]


async def test_a_lora_that_is_not_there_is_refused_by_its_place(engine: Engine) -> None:
    output = await handler(engine).handle(
        {"id": "a", "input": {"prompt": "a", "loras": [{"path": "ink.safetensors"}]}}
    )
    error = failure(output)
    assert error["field"] == "loras.0.name"
    assert "ink" in error["message"]


@pytest.mark.parametrize("job", [{}, {"input": None}, {"input": "a fox"}])
async def test_a_job_without_an_input_fails_by_it(job: dict[str, Any], engine: Engine) -> None:
    assert failure(await handler(engine).handle(job))["field"] == "input"


async def test_an_output_that_runpod_would_lose_is_an_error(engine: Engine) -> None:
    output = await handler(engine, 1024).handle({"input": {"prompt": "a", **SMALL}})
    error = failure(output)
    assert error["code"] == "output_too_large"
    assert "LPW_SDXL_RUNPOD_OUTPUT_BYTES" in error["message"]


@pytest.fixture(scope="module")
def narrow_engine(model_directory: Path) -> Iterator[Engine]:
    """An engine that holds two jobs."""
    engine = Engine.load(model_directory, Settings(device="cpu", max_queued_jobs=2))
    yield engine
    engine.close()


async def test_a_job_over_the_queues_bound_is_refused_at_once(narrow_engine: Engine) -> None:
    jobs = handler(narrow_engine)
    long = [asyncio.create_task(jobs.handle({"input": LONG})) for _ in range(2)]
    while narrow_engine.queued_jobs < 2:
        await asyncio.sleep(0.01)
    error = failure(await jobs.handle({"input": {"prompt": "a", **SMALL}}))
    assert error["code"] == "overloaded"
    assert error["retry_after_s"] >= 1
    for task in long:
        task.cancel()
    await asyncio.gather(*long, return_exceptions=True)
    await until_idle(narrow_engine)


async def test_a_cancelled_call_ends_all_images_of_its_job(engine: Engine) -> None:
    task = asyncio.create_task(handler(engine).handle({"input": LONG | {"batch_size": 3}}))
    while engine.queued_jobs < 3:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until_idle(engine)


async def test_one_image_that_fails_ends_the_others_of_its_job(narrow_engine: Engine) -> None:
    output = await handler(narrow_engine).handle({"input": LONG | {"batch_size": 3}})
    assert failure(output)["code"] == "overloaded"
    await until_idle(narrow_engine)


async def test_reports_have_all_images_and_their_previews(engine: Engine) -> None:
    reports = Reports()
    fields = LONG | {"steps": 60, "batch_size": 2, "preview_every": 1}
    output = await handler(engine, reports=reports).handle({"input": fields})
    assert len(output["images"]) == 2
    assert reports.sent
    assert {len(report["images"]) for report in reports.sent} == {2}
    assert any("preview" in image for report in reports.sent for image in report["images"])


async def test_a_job_that_asks_for_none_is_not_reported_on(engine: Engine) -> None:
    reports = Reports()
    await handler(engine, reports=reports).handle({"input": {"prompt": "a", **SMALL}})
    assert reports.sent == []


async def until_idle(engine: Engine) -> None:
    """Wait until no job is left; each leaves within one step."""
    async with asyncio.timeout(20):
        while engine.queued_jobs:
            await asyncio.sleep(0.01)

"""Models with defaults of their own: a bare prompt is the request with all of them written out."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lpw_sdxl.engine import Engine
from lpw_sdxl.engine.job import GeneratedImage
from lpw_sdxl.errors import InvalidRequestError, ModelError
from lpw_sdxl.imaging.record import parameters_text
from lpw_sdxl.parameters.request import ParametersRequest
from lpw_sdxl.schema import GenerationRequest, InspectionRequest
from lpw_sdxl.settings import Settings

Serve = Callable[[dict[str, Any]], AbstractContextManager[Engine]]
MODELS: dict[str, dict[str, Any]] = {
    "lightning": {
        "num_inference_steps": 4,
        "guidance_scale": 1.5,
        "scheduler": "Euler",
        "schedule_type": "trailing",
    },
    "distilled": {
        "num_inference_steps": 4,
        "guidance_scale": 1.0,
        "scheduler": "LCM",
        "schedule_type": "trailing",
    },
    "anime": {
        "num_inference_steps": 5,
        "guidance_scale": 6.0,
        "scheduler": "Euler a",
        "negative_prompt": "worst quality, (lowres:1.2)",
        "clip_skip": 1,
    },
    "velocity": {
        "num_inference_steps": 3,
        "guidance_rescale": 0.7,
        "guidance_interval": [0.2, 0.9],
        "width": 64,
        "height": 96,
    },
    "a1111": {
        "num_inference_steps": 3,
        "sampler_implementation": "k_diffusion",
        "scheduler": "DPM++ 2M",
        "schedule_type": "Karras",
        "noise_source": "nv",
        "prompt_style": "a1111",
        "eta_noise_seed_delta": 31337,
    },
    "jpeg": {"num_inference_steps": 2, "image_format": "jpeg", "prompt_style": "comfy"},
}


@pytest.fixture
def served(model_directory: Path, tmp_path: Path) -> Serve:
    @contextmanager
    def serve(defaults: dict[str, Any]) -> Iterator[Engine]:
        directory = tmp_path / "model"
        shutil.copytree(model_directory, directory, copy_function=os.link)
        manifest = json.loads((directory / "manifest.json").read_text())
        (directory / "manifest.json").unlink()
        (directory / "manifest.json").write_text(json.dumps(manifest | {"defaults": defaults}))
        engine = Engine.load(directory, Settings(device="cpu"))
        try:
            yield engine
        finally:
            engine.close()

    return serve


def draw(engine: Engine, **fields: Any) -> GeneratedImage:
    request = GenerationRequest.model_validate_json(json.dumps(fields))
    return asyncio.run(engine.generate(request))


BARE = {"prompt": "a (red:1.3) cat", "seed": 7}
FEW = {"num_inference_steps": 3}


@pytest.mark.parametrize("name", MODELS)
def test_a_bare_prompt_draws_what_all_fields_written_out_draw(
    served: Serve, engine: Engine, name: str
) -> None:
    """On one engine bit for bit; another one has encoded other prompts beside these before."""
    elsewhere = draw(engine, **BARE, **MODELS[name])
    with served(MODELS[name]) as own:
        image = draw(own, **BARE)
        assert np.array_equal(image.pixels, draw(own, **BARE, **MODELS[name]).pixels)
        assert largest_difference(image, elsewhere) <= 1
        assert np.array_equal(draw(own, **read_again(own, image)).pixels, image.pixels)


@pytest.mark.parametrize("name", MODELS)
def test_what_a_request_says_is_drawn_whatever_the_defaults_are(
    served: Serve, engine: Engine, name: str
) -> None:
    """Also where a text says it by its silence, as one without a negative prompt does."""
    plain = GenerationRequest(prompt="").model_dump(mode="json", include={*MODELS[name]})
    image = draw(engine, **BARE, **FEW)
    with served(MODELS[name]) as own:
        said = draw(own, **(plain | BARE | FEW))
        assert largest_difference(said, image) <= 1
        assert np.array_equal(draw(own, **read_again(own, said)).pixels, said.pixels)


def test_the_defaults_are_shown_and_explained_with(
    served: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "lpw_sdxl")
    with served(MODELS["a1111"]) as own:
        assert own.describe().model.defaults == MODELS["a1111"]
        inspection = own.explain(InspectionRequest(prompt="[a:b:2] (c)"))
        assert [span.until_step for span in inspection.schedule.prompt] == [2, 3]
    assert "num_inference_steps=3, sampler_implementation=k_diffusion" in caplog.text


@pytest.mark.parametrize(
    ("defaults", "words"),
    [
        ({"guidance_scale": 1000}, "guidance_scale is 1000; at most 100 would be right"),
        ({"of_tomorrow": 1}, "of_tomorrow is not a field"),
        (
            {"sampler_implementation": "k_diffusion", "scheduler": "DPM++ 2M", "eta": 0.5},
            "which has none, null would be right",
        ),
    ],
)
def test_a_default_that_can_not_be_used_ends_the_start(
    served: Serve, defaults: dict[str, Any], words: str
) -> None:
    with pytest.raises(ModelError, match=words) as caught, served(defaults):
        pass
    assert "set-defaults" in str(caught.value)


def test_a_default_over_the_limit_is_logged_and_refused_as_a_default(
    served: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    with served({"num_inference_steps": 200}) as own:
        assert "num_inference_steps is 200, its default" in caplog.text
        with pytest.raises(InvalidRequestError, match="is 200, its default; at most 150"):
            draw(own, **BARE)
        draw(own, **BARE, **FEW)


def largest_difference(one: GeneratedImage, other: GeneratedImage) -> int:
    """The largest difference of two images, grey levels."""
    return int(np.abs(one.pixels.astype(int) - other.pixels.astype(int)).max())


def read_again(engine: Engine, image: GeneratedImage) -> dict[str, Any]:
    answer = engine.read_parameters(ParametersRequest(parameters=parameters_text(image.record)))
    assert answer.not_honoured == []
    return answer.request

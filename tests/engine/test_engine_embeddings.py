"""Embeddings in the engine: what their vectors may cost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from lpw_sdxl.conditioning import prompt_reader
from lpw_sdxl.conditioning.embeddings import Embedding
from lpw_sdxl.diffusion.pipeline import Pipeline
from lpw_sdxl.engine import Engine
from lpw_sdxl.engine.calibration import calibrate, read_memory
from lpw_sdxl.errors import InvalidPromptError
from lpw_sdxl.schema import GenerationRequest, InspectionRequest
from lpw_sdxl.settings import Settings

VECTORS = 75


@pytest.fixture
def engine(model_directory: Path) -> Iterator[Engine]:
    device = torch.device("cpu")
    widths = [
        table.shape[1] for table in _tables(Pipeline.load(model_directory, device, Settings()))
    ]
    embedding = Embedding("abc", tuple(torch.zeros(VECTORS, width) for width in widths))
    pipeline = Pipeline.load(model_directory, device, Settings(), (embedding,))
    settings = Settings(device="cpu", max_prompt_chunks=2)
    plan = calibrate(pipeline, read_memory(device), settings)
    engine = Engine(pipeline, settings, plan)
    yield engine
    engine.close()


def _tables(pipeline: Pipeline) -> list[torch.Tensor]:
    return [model.get_input_embeddings().weight for model in pipeline.prompt_encoder.models]


@pytest.mark.parametrize("field", ["prompt", "negative_prompt"])
def test_too_many_vectors_are_refused_before_they_are_made(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    def chunk(*_: object) -> None:
        raise AssertionError("a short text became very many tokens")

    monkeypatch.setattr(prompt_reader, "chunk_for_encoders", chunk)
    texts = {"prompt": "a fox", field: "(abc:1.2)," * 1000}
    for send in (
        lambda: engine.decide(GenerationRequest(**texts)),
        lambda: engine.explain(InspectionRequest(**texts)),
    ):
        with pytest.raises(InvalidPromptError, match=f"{field} fills 1000 chunks of 75") as caught:
            send()
        assert caught.value.field == field


def test_as_many_vectors_as_fit_are_accepted(engine: Engine) -> None:
    explained = engine.explain(InspectionRequest(prompt="abc abc"))
    assert explained.prompt.token_count == 2 * VECTORS

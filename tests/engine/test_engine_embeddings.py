"""Embeddings in the engine: what their vectors may cost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lpw_sdxl.addon.installed import open_catalogue
from lpw_sdxl.addon.served import AddonPlaces
from lpw_sdxl.conditioning import prompt_reader
from lpw_sdxl.engine import Engine
from lpw_sdxl.errors import InvalidPromptError
from lpw_sdxl.lora.targets import encoder_widths, read_targets
from lpw_sdxl.schema import GenerationRequest, InspectionRequest
from lpw_sdxl.settings import Settings

VECTORS = 75


@pytest.fixture
def engine(model_directory: Path, tmp_path: Path) -> Iterator[Engine]:
    widths = zip(("clip_l", "clip_g"), encoder_widths(read_targets(model_directory)), strict=True)
    tensors = {name: torch.zeros(VECTORS, width) for name, width in widths}
    save_file(tensors, tmp_path / "abc.safetensors")
    addons = open_catalogue(model_directory, AddonPlaces(embedding_folder=tmp_path))
    settings = Settings(device="cpu", max_prompt_chunks=2)
    engine = Engine.load(model_directory, settings, addons=addons)
    yield engine
    engine.close()


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

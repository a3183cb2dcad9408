from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel

from lpw_sdxl.diffusion.compilation import CompiledUnet, pad_rows, shape_of
from lpw_sdxl.diffusion.denoiser import Denoiser
from lpw_sdxl.schema import ImageSize

SIZE = ImageSize(128, 128)
# torch's own compiler still imports what torch is about to leave behind.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")


@pytest.fixture
def denoiser(model_directory: Path) -> Denoiser:
    unet = UNet2DConditionModel.from_pretrained(model_directory / "unet", local_files_only=True)
    return Denoiser(unet.eval().requires_grad_(False), torch.device("cpu"))


def filled(arguments: dict[str, Any], tokens: int) -> dict[str, Any]:
    """The same call with random numbers and so many tokens."""
    drawn = torch.Generator().manual_seed(tokens)
    rows, _, columns = arguments["encoder_hidden_states"].shape
    with torch.inference_mode():
        random = {
            "sample": torch.randn(arguments["sample"].shape, generator=drawn),
            "encoder_hidden_states": torch.randn(rows, tokens, columns, generator=drawn),
        }
        if "encoder_attention_mask" in arguments:
            mask = torch.arange(tokens) < torch.randint(1, tokens, (rows, 1), generator=drawn)
            random["encoder_attention_mask"] = mask
    return arguments | random


def test_rows_are_padded_with_the_last_one() -> None:
    arguments = {"sample": torch.arange(6.0).reshape(3, 2), "more": {"ids": torch.ones(3)}, "n": 1}
    padded = pad_rows(arguments, 5)
    assert padded["sample"].tolist() == [[0, 1], [2, 3], [4, 5], [4, 5], [4, 5]]
    assert padded["more"]["ids"].shape == (5,)
    assert padded["n"] == 1


def test_a_prompt_in_either_form_masked_or_not_is_a_shape_of_its_own(denoiser: Denoiser) -> None:
    kept = denoiser._example(SIZE, 2, is_masked=False)
    masked = denoiser._example(SIZE, 2, is_masked=True)
    whole = kept | {"encoder_hidden_states": torch.zeros(2, 400, 96)}
    longer = filled(kept, 200)
    assert len({shape_of(one) for one in (kept, masked, whole)}) == 3
    assert shape_of(longer) == shape_of(kept)


def test_until_it_is_compiled_the_unet_runs_as_it_is(denoiser: Denoiser) -> None:
    arguments = filled(denoiser._example(SIZE, 2, is_masked=True), 100)
    compiled = CompiledUnet(denoiser._unet)
    assert compiled.ready == frozenset()
    with torch.inference_mode():
        assert torch.equal(compiled(**arguments)[0], denoiser._unet(**arguments)[0])


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_what_is_compiled_gives_the_same_without_compiling_again(
    denoiser: Denoiser, caplog: pytest.LogCaptureFixture
) -> None:
    """The real compiler, but for its last stage: Inductor takes minutes a shape on two cores."""
    compiled = CompiledUnet(denoiser._unet, backend="aot_eager")
    examples = [
        lambda rows=rows, is_masked=is_masked: denoiser._example(SIZE, rows, is_masked=is_masked)
        for rows, is_masked in ((4, False), (8, True))
    ]
    compiled.warm_up(examples)
    compiled.join(1000)
    assert {(shape.rows, shape.is_masked) for shape in compiled.ready} == {(4, False), (8, True)}
    with caplog.at_level(logging.DEBUG), torch.inference_mode():
        for rows, is_masked, tokens in ((4, False, 31), (4, False, 300), (7, True, 231)):
            example = denoiser._example(SIZE, rows, is_masked=is_masked)
            arguments = filled(example, tokens)
            before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
            output = compiled(**arguments)[0]
            assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == before
            expected = denoiser._unet(**arguments)[0]
            assert output.shape == expected.shape
            assert (output - expected).abs().max() < 1e-4

"""Agreement with the programs that the styles are named for, from outputs that they produced."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file

from lpw_sdxl.conditioning.assembly import Conditioning

TOLERANCE = 2e-3  # of a tensor's largest value: float16 storage, and float16 weights in lpw
NAMES = [field.name for field in dataclasses.fields(Conditioning)]
FILES = {"lpw": "lpw_public", "a1111": "a1111_public", "a1111-original": "a1111_public"}
PREFIXES = {"lpw": "", "a1111": "a1111.", "a1111-original": "a1111-original."}


@pytest.fixture(params=FILES)
def style(request):
    return request.param


@pytest.fixture
def cases(golden_directory, style):
    return json.loads((golden_directory / f"{FILES[style]}.json").read_text(encoding="utf-8"))


@pytest.fixture
def expected(golden_directory, style):
    tensors = load_file(golden_directory / f"{FILES[style]}.safetensors")
    return {
        tuple(key.replace(PREFIXES[style], "").split(".")): tensor
        for key, tensor in tensors.items()
        if key.split(".", 1)[1].startswith(PREFIXES[style] or tuple(NAMES))
    }


def error(tensor, golden):
    """Largest difference, of the golden tensor's largest value; zeros must be zeros."""
    largest = golden.abs().max()
    return (tensor - golden).abs().max() / (largest if largest > 0 else 1e-9)


def test_every_golden_tensor_agrees(encoder, cases, expected, style):
    assert len(cases) * len(NAMES) == len(expected)
    for index, case in enumerate(cases):
        conditioning = encoder.encode(case["prompt"], case["negative_prompt"], style)
        assert len(conditioning.prompt_embeds) == case["tokens"]
        for name in NAMES:
            [golden] = expected[str(index), name].float()
            tensor = getattr(conditioning, name)
            assert tensor.shape == golden.shape
            assert error(tensor, golden) < TOLERANCE, f"case {index}, {name}"


def test_agreement_would_notice_a_weight(encoder, cases, expected, style):
    """A test that can't fail is a defect: one weight left out is far outside the tolerance."""
    assert cases[1]["prompt"] == "a (red:1.5) cat"
    [golden] = expected["1", "prompt_embeds"].float()
    without = encoder.encode("a red cat", "blurry", style).prompt_embeds
    assert error(without, golden) > 10 * TOLERANCE
    assert torch.isfinite(golden).all()


def test_agreement_would_notice_another_style(encoder, cases, expected, style):
    """Case 9's weights, up to 1.8 and down to -0.5, tell all three styles apart."""
    assert cases[9]["prompt"] == "((a:1.2):1.5) (b:0) (c:-0.5)"
    [golden] = expected["9", "prompt_embeds"].float()
    for other in set(FILES) - {style}:
        embeds = encoder.encode(cases[9]["prompt"], "d", other).prompt_embeds
        same = min(len(embeds), len(golden))
        assert error(embeds[:same], golden[:same]) > 10 * TOLERANCE

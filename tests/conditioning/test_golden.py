"""Agreement with diffusers' lpw_stable_diffusion_xl, from outputs that it produced."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file

from lpw_sdxl.conditioning import Conditioning, PromptPair

TOLERANCE = 2e-3  # of a tensor's largest value: float16 storage, and float16 weights there
NAMES = [field.name for field in dataclasses.fields(Conditioning)]


@pytest.fixture(scope="module")
def cases(golden_directory):
    return json.loads((golden_directory / "lpw_public.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def expected(golden_directory):
    return load_file(golden_directory / "lpw_public.safetensors")


def test_every_golden_tensor_agrees(encoder, cases, expected):
    pairs = [PromptPair(case["prompt"], case["negative_prompt"]) for case in cases]
    assert len(pairs) * len(NAMES) == len(expected)
    for index, (case, pair) in enumerate(zip(cases, pairs, strict=True)):
        conditioning = encoder.encode(pair.prompt, pair.negative_prompt)
        assert len(conditioning.prompt_embeds) == case["tokens"]
        for name in NAMES:
            [golden] = expected[f"{index}.{name}"].float()
            error = (getattr(conditioning, name) - golden).abs().max() / golden.abs().max()
            assert error < TOLERANCE, f"case {index}, {name}"


def test_agreement_would_notice_a_weight(encoder, cases, expected):
    """A test that can't fail is a defect: one weight left out is far outside the tolerance."""
    assert cases[1]["prompt"] == "a (red:1.5) cat"
    [golden] = expected["1.prompt_embeds"].float()
    without = encoder.encode(r"a red cat", "blurry").prompt_embeds
    assert (without - golden).abs().max() / golden.abs().max() > 10 * TOLERANCE
    assert torch.isfinite(golden).all()

"""Captions in training are read as the service reads the same prompts."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from conftest import ROOT
from demo.batches import weigh
from demo.captions import BREAK, Caption
from demo.encoders import read_windows
from demo.export import read_checkpoint
from demo.networks import Networks, make_networks
from demo.words import Vocabulary, lay_out
from lpw_sdxl.conditioning import PromptEncoder
from lpw_sdxl.prompt import PromptStyle

WEIGHT = 1.6
SHORT = "a small red circle on a blue background , left"
CAPTIONS = {
    "short": SHORT,
    "amid words unknown to it": " lighthouse" * 90 + f" , {SHORT} , " + "harbour " * 40,
    "separated": f"red circle {BREAK} blue background {BREAK} left",
    "a full window": "red circle , " * 25,
}
STYLES = {PromptStyle.LPW: True, PromptStyle.A1111: False}


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary()


@pytest.fixture(scope="module")
def networks(vocabulary: Vocabulary) -> Networks:
    networks = make_networks(vocabulary, seed=0)
    read_checkpoint(ROOT / "demo" / "lpw-sdxl-demo.safetensors", networks)
    return networks


@pytest.fixture(scope="module")
def encoder(demo_store: Any) -> PromptEncoder:
    return PromptEncoder.from_model_directory(demo_store.model_directory)


@pytest.mark.parametrize("style", STYLES, ids=str)
@pytest.mark.parametrize("weight", [1.0, WEIGHT])
@pytest.mark.parametrize("name", CAPTIONS)
def test_a_caption_is_read_as_the_service_reads_it(
    networks: Networks,
    vocabulary: Vocabulary,
    encoder: PromptEncoder,
    style: PromptStyle,
    weight: float,
    name: str,
) -> None:
    text = CAPTIONS[name]
    served = encoder.encode(text.replace("red", f"(red:{weight})"), "", style)
    words = [word if word in {*SHORT.split(), BREAK} else "…" for word in text.split()]
    laid = lay_out(Caption(tuple(words), {"colour": "red"}), vocabulary)
    weights = torch.where(laid.labels.flatten() > 0, weight, 1.0)
    length = laid.length if style is PromptStyle.LPW else laid.ids.numel()
    with torch.no_grad():
        hidden, pooled = read_windows(networks.encoders, laid.ids)
    if style is PromptStyle.LPW:
        torch.testing.assert_close(served.pooled_prompt_embeds, pooled[-1], atol=1e-4, rtol=1e-4)
        embeds = weigh(hidden, weights, length, STYLES[style]).flatten(0, 1)[:length]
        torch.testing.assert_close(served.prompt_embeds, embeds, atol=1e-4, rtol=1e-4)
    elif name != "amid words unknown to it":  # there A1111's windows end behind a comma
        # Its second encoder is padded with another token than the first; in front, all is the same.
        embeds = weigh(hidden, weights, length, STYLES[style])
        filled = 1 + int((laid.ids[0] != vocabulary.eos).sum())
        torch.testing.assert_close(
            served.prompt_embeds[:filled], embeds[0, :filled], atol=1e-4, rtol=1e-4
        )
    assert (
        "red" not in text
        or weight == 1
        or not torch.equal(served.prompt_embeds, encoder.encode(text, "", style).prompt_embeds)
    )

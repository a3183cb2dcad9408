"""Captions in training are read as the service reads the same prompts."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from demo.batches import weigh
from demo.captions import BREAK, FILLER, Caption
from demo.encoders import read_windows
from demo.networks import Networks
from demo.words import NOTHING, Vocabulary, Windows, lay_out
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


@pytest.fixture(scope="module")
def encoder(demo_store: Any) -> PromptEncoder:
    return PromptEncoder.from_model_directory(demo_store.model_directory)


@pytest.mark.parametrize("weight", [1.0, WEIGHT])
@pytest.mark.parametrize("name", CAPTIONS)
def test_a_caption_is_read_as_lpw_reads_it(
    networks: Networks, vocabulary: Vocabulary, encoder: PromptEncoder, name: str, weight: float
) -> None:
    text = CAPTIONS[name].replace("red", f"(red:{weight})")
    served = encoder.encode(text, "", PromptStyle.LPW)
    laid, weights = lay_out_weighted(CAPTIONS[name], vocabulary, weight)
    hidden, pooled = read(networks, laid)
    embeds = weigh(hidden, weights, laid.length, is_from_end=True).flatten(0, 1)[: laid.length]
    assert_close(served.prompt_embeds, embeds)
    assert_close(served.pooled_prompt_embeds, pooled[-1])


@pytest.mark.parametrize("weight", [1.0, WEIGHT])
@pytest.mark.parametrize("name", sorted({*CAPTIONS} - {"amid words unknown to it"}))
def test_a_caption_is_read_as_a1111_reads_it(
    networks: Networks, vocabulary: Vocabulary, encoder: PromptEncoder, name: str, weight: float
) -> None:
    """The first window's words: it cuts long prompts behind commas and pads them otherwise."""
    text = CAPTIONS[name].replace("red", f"(red:{weight})")
    served = encoder.encode(text, "", PromptStyle.A1111)
    laid, weights = lay_out_weighted(CAPTIONS[name], vocabulary, weight)
    embeds = weigh(read(networks, laid)[0], weights, laid.ids.numel(), is_from_end=False)
    filled = 1 + int((laid.ids[0] != vocabulary.eos).sum())
    assert_close(served.prompt_embeds[:filled], embeds[0, :filled])


def lay_out_weighted(
    text: str, vocabulary: Vocabulary, weight: float
) -> tuple[Windows, torch.Tensor]:
    """Lay a caption out, its unknown words as fillers, and weigh the word that tells the colour."""
    words = [word if word in {*SHORT.split(), BREAK} else FILLER for word in text.split()]
    laid = lay_out(Caption(tuple(words), {"colour": "red"}), vocabulary)
    return laid, torch.where(laid.labels.flatten() != NOTHING, weight, 1.0)


@torch.no_grad()
def read(networks: Networks, laid: Windows) -> tuple[torch.Tensor, torch.Tensor]:
    return read_windows(networks.encoders, laid.ids)


def assert_close(one: torch.Tensor, other: torch.Tensor) -> None:
    torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)

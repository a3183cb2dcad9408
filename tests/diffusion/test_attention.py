from __future__ import annotations

from typing import Any

import pytest
import torch

from lpw_sdxl.diffusion.attention import CrossAttention, PromptProjection, SelfAttention

LENGTHS = [77, 154, 3]


@pytest.fixture
def inputs(stock_unet: Any) -> dict[str, Any]:
    """Arguments of a call of three rows, prompts padded to 154 tokens."""
    drawn = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=drawn)

    return {
        "sample": noise(3, 4, 10, 12),
        "timestep": torch.tensor([999.0, 500.0, 1.0]),
        "encoder_hidden_states": noise(3, max(LENGTHS), stock_unet.config.cross_attention_dim),
        "added_cond_kwargs": {"text_embeds": noise(3, 64), "time_ids": torch.full((3, 6), 64.0)},
        "return_dict": False,
    }


def mask() -> torch.Tensor:
    return torch.arange(max(LENGTHS))[None, :] < torch.tensor(LENGTHS)[:, None]


@torch.inference_mode()
def run(unet: Any, arguments: dict[str, Any], **changed: Any) -> torch.Tensor:
    return unet(**arguments | changed)[0]


def assert_equal(ours: torch.Tensor, stock: torch.Tensor) -> None:
    assert ours.shape == stock.shape
    assert (ours - stock).abs().max() <= 1e-5 * stock.abs().max()


@pytest.mark.parametrize("is_masked", [False, True], ids=["unmasked", "masked"])
@pytest.mark.parametrize("is_projected", [False, True], ids=["prompt", "kept projection"])
def test_our_attention_equals_diffusers(
    unet: Any, stock_unet: Any, inputs: dict[str, Any], is_masked: bool, is_projected: bool
) -> None:
    masks = {"encoder_attention_mask": mask()} if is_masked else {}
    expected = run(stock_unet, inputs, **masks)
    project = PromptProjection(unet)
    embeds = inputs["encoder_hidden_states"]
    states = project(embeds) if is_projected else embeds
    assert_equal(run(unet, inputs, encoder_hidden_states=states, **masks), expected)


def test_a_masked_row_is_what_it_is_without_padding(unet: Any, inputs: dict[str, Any]) -> None:
    project = PromptProjection(unet)
    states = project(inputs["encoder_hidden_states"])
    together = run(unet, inputs, encoder_hidden_states=states, encoder_attention_mask=mask())
    added = inputs["added_cond_kwargs"]
    for row, length in enumerate(LENGTHS):
        alone = run(
            unet,
            inputs,
            sample=inputs["sample"][row : row + 1],
            timestep=inputs["timestep"][row : row + 1],
            encoder_hidden_states=states[row : row + 1, :length],
            added_cond_kwargs={name: one[row : row + 1] for name, one in added.items()},
        )
        assert_equal(together[row : row + 1], alone)


def test_every_attention_of_the_unet_is_ours(unet: Any) -> None:
    PromptProjection(unet)
    processors = unet.attn_processors
    cross = {name: one for name, one in processors.items() if "attn2" in name}
    assert cross
    assert all(isinstance(one, CrossAttention) for one in cross.values())
    others = [one for name, one in processors.items() if name not in cross]
    assert all(isinstance(one, SelfAttention) for one in others)


def test_each_layer_reads_its_own_columns(unet: Any) -> None:
    project = PromptProjection(unet)
    embeds = torch.randn(5, unet.config.cross_attention_dim)
    projected = project(embeds)
    assert projected.shape == (5, project.width)
    columns = []
    for name, processor in unet.attn_processors.items():
        if not isinstance(processor, CrossAttention):
            continue
        layer = unet.get_submodule(name.removesuffix(".processor"))
        mine = projected[:, processor.start : processor.start + 2 * processor.channels]
        expected = torch.cat([layer.to_k(embeds), layer.to_v(embeds)], dim=1)
        torch.testing.assert_close(mine, expected)
        columns += range(processor.start, processor.start + 2 * processor.channels)
    assert sorted(columns) == list(range(project.width))
    assert project.width != unet.config.cross_attention_dim  # else the two forms look alike


def test_a_half_precision_unet_draws_nearly_the_same(
    unet: Any, stock_unet: Any, inputs: dict[str, Any]
) -> None:
    expected = run(stock_unet, inputs, encoder_attention_mask=mask())
    unet.to(torch.float16)
    project = PromptProjection(unet)
    added = {name: one.half() for name, one in inputs["added_cond_kwargs"].items()}
    ours = run(
        unet,
        inputs,
        sample=inputs["sample"].half(),
        encoder_hidden_states=project(inputs["encoder_hidden_states"].half()),
        added_cond_kwargs=added,
        encoder_attention_mask=mask(),
    )
    assert ours.dtype == torch.float16
    assert (ours.float() - expected).abs().max() <= 0.02 * expected.abs().max()

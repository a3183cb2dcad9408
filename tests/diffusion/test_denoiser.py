from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from lpw_sdxl.diffusion.denoiser import Denoiser
from lpw_sdxl.diffusion.step import MAX_KEPT_TOKENS, Denoising, Guidance

CPU = torch.device("cpu")
ONE_ROW = Guidance(1.0)


@torch.inference_mode()
def stock_predictions(stock_unet: Any, denoising: Denoising) -> torch.Tensor:
    """Predict an image's rows with Diffusers' UNet, one by one and unpadded."""
    outputs = [
        stock_unet(
            row.latents,
            row.timestep,
            row.prompt.embeds[None],
            added_cond_kwargs={
                "text_embeds": row.prompt.pooled[None],
                "time_ids": row.time_ids[None],
            },
            return_dict=False,
        )[0]
        for row in denoising.rows()
    ]
    return torch.cat(outputs)


def assert_stock(stock_unet: Any, group: Sequence[Denoising], ours: list[torch.Tensor]) -> None:
    assert len(ours) == len(group)
    for denoising, prediction in zip(group, ours, strict=True):
        expected = stock_predictions(stock_unet, denoising)
        assert prediction.shape == expected.shape
        assert (prediction - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("keeps_projections", [True, False], ids=["kept", "not kept"])
@pytest.mark.parametrize(
    "lengths",
    [
        [(77, 77), (77, 77)],
        [(77, 154), (231, 77), (3, 2)],
        [(MAX_KEPT_TOKENS + 1, 77), (77, 77)],
        [(400, 400), (77, 154)],
    ],
    ids=["of one length", "mixed", "one just too long to keep", "one far too long to keep"],
)
def test_predictions_are_stock_diffusers(
    unet: Any,
    stock_unet: Any,
    make_denoising: Any,
    lengths: list[tuple[int, int]],
    keeps_projections: bool,
) -> None:
    group = [make_denoising(*pair, seed=seed) for seed, pair in enumerate(lengths)]
    group.append(make_denoising(40, guidance=ONE_ROW, seed=9))
    denoiser = Denoiser(unet, CPU, keeps_projections=keeps_projections)
    rows = sum(len(one.rows()) for one in group)
    assert_stock(stock_unet, group, denoiser.predict(group, [range(rows)]))
    for one, prediction in zip(group, denoiser.predict(group, [range(rows)]), strict=True):
        one.advance(prediction)  # they are at steps of their own from here on
    group[0].advance(denoiser.predict(group[:1], [[0, 1]])[0])
    assert_stock(stock_unet, group, denoiser.predict(group, [range(rows)]))


@pytest.mark.parametrize(
    "calls",
    [[[0, 1, 2, 3, 4]], [[0], [1], [2], [3], [4]], [[0, 2, 4], [1, 3]], [[4, 1], [3, 0, 2]]],
    ids=["one call", "a call a row", "two calls", "in any order"],
)
def test_predictions_are_returned_to_their_images_however_rows_are_divided(
    unet: Any, stock_unet: Any, make_denoising: Any, calls: list[list[int]]
) -> None:
    group = [
        make_denoising(77, 80, seed=1),
        make_denoising(77, guidance=ONE_ROW, seed=2),
        make_denoising(90, 77, seed=3),
    ]
    assert_stock(stock_unet, group, Denoiser(unet, CPU).predict(group, calls))


def count_projections(unet: Any) -> Counter[str]:
    """Count the calls of each cross-attention's to_k from now on."""
    counts: Counter[str] = Counter()
    for name, module in unet.named_modules():
        if name.endswith("attn2.to_k"):
            counts[name] = 0
            module.register_forward_hook(lambda *_, name=name: counts.update([name]))
    assert counts
    return counts


def test_a_prompts_keys_are_made_once_for_all_its_steps(unet: Any, make_denoising: Any) -> None:
    denoiser = Denoiser(unet, CPU)
    counts = count_projections(unet)
    group = [make_denoising(77, 154, seed=1), make_denoising(77, guidance=ONE_ROW, seed=2)]
    for _ in range(4):
        for one, prediction in zip(group, denoiser.predict(group, [[0, 1, 2]]), strict=True):
            one.advance(prediction)
    assert set(counts.values()) == {3}  # prompt sides, not steps


def test_what_is_not_kept_is_made_in_every_call(unet: Any, make_denoising: Any) -> None:
    denoiser = Denoiser(unet, CPU, keeps_projections=False)
    counts = count_projections(unet)
    for _ in range(3):
        denoiser.predict([make_denoising()], [[0, 1]])
    assert set(counts.values()) == {3}


def test_nothing_is_kept_of_a_long_prompt(unet: Any, make_denoising: Any) -> None:
    denoiser = Denoiser(unet, CPU)
    long = make_denoising(MAX_KEPT_TOKENS + 1, guidance=ONE_ROW)
    denoiser.predict([long], [[0]])
    assert long.rows()[0].prompt._projected is None
    short = make_denoising(MAX_KEPT_TOKENS, guidance=ONE_ROW)
    denoiser.predict([long, short], [[0, 1]])
    assert long.rows()[0].prompt._projected is None
    denoiser.predict([short], [[0]])
    assert short.rows()[0].prompt._projected is not None


def test_only_mixed_lengths_are_masked(unet: Any, make_denoising: Any) -> None:
    denoiser = Denoiser(unet, CPU)
    same = denoiser.stack(make_denoising(77, 77).rows())
    assert "encoder_attention_mask" not in same
    mixed = denoiser.stack(make_denoising(5, 3).rows())
    assert mixed["encoder_attention_mask"].tolist() == [[True] * 3 + [False] * 2, [True] * 5]
    assert mixed["encoder_hidden_states"].shape[:2] == (2, 5)


def test_a_half_precision_unet_is_given_its_dtype(
    unet: Any, stock_unet: Any, make_denoising: Any
) -> None:
    denoising = make_denoising(77, 90)
    expected = stock_predictions(stock_unet, denoising)
    half = make_denoising(77, 90)
    for side in (row.prompt for row in half.rows()):
        side.embeds, side.pooled = side.embeds.half(), side.pooled.half()
    [prediction] = Denoiser(unet.half(), CPU).predict([half], [[0, 1]])
    assert prediction.dtype == torch.float16
    assert (prediction.float() - expected).abs().max() <= 0.02 * expected.abs().max()
    half.advance(prediction)
    assert half.latents.dtype == torch.float32

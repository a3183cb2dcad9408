"""One encoder: batches of any lengths give what each window gives alone."""

import pytest
import torch

from lpw_sdxl.conditioning.clip import WINDOWS_PER_CALL, ClipTextEncoder

BOS, EOS = 49406, 49407


@pytest.fixture(params=["text_encoder", "text_encoder_2"])
def clip(request, text_models, tokenizer):
    return ClipTextEncoder(tokenizer, text_models[request.param])


def windows_of(*lengths):
    generator = torch.Generator().manual_seed(3)
    draw = [torch.randint(0, 49000, (length - 2,), generator=generator) for length in lengths]
    return [(BOS, *ids.tolist(), EOS) for ids in draw]


@pytest.mark.parametrize("clip_skip", [0, 1, 2, 3])
def test_window_gives_the_layer_without_final_norm(clip, clip_skip):
    [ids] = windows_of(9)
    [window] = clip.encode([ids], clip_skip)
    with torch.no_grad():
        output = clip.model(torch.tensor([ids]), output_hidden_states=True)
    assert torch.equal(window.hidden, output.hidden_states[-(clip_skip + 2)][0])
    if window.pooled is not None:
        assert torch.equal(window.pooled, output.text_embeds[0])


def test_first_encoder_has_no_pooled_vector_and_the_last_one_has(text_models, tokenizer):
    pooled = [
        ClipTextEncoder(tokenizer, model).encode(windows_of(4))[0].pooled
        for model in text_models.values()
    ]
    assert pooled[0] is None
    assert pooled[1].shape == (48,)


@pytest.mark.parametrize("legacy_eos", [False, True], ids=["eos 49407", "eos 2"])
def test_batch_of_mixed_lengths_equals_each_alone(clip, legacy_eos, monkeypatch):
    if legacy_eos:  # as in the config.json of most SDXL checkpoints
        inner = getattr(clip.model, "text_model", clip.model)
        monkeypatch.setattr(inner, "eos_token_id", 2)
    windows = windows_of(77, 2, 40, 3, 77, 2)
    windows.append((BOS, 5, *[EOS] * 7, EOS))
    for ids, window in zip(windows, clip.encode(windows), strict=True):
        [alone] = clip.encode([ids])
        assert window.hidden.shape == (len(ids), clip.model.config.hidden_size)
        torch.testing.assert_close(window.hidden, alone.hidden, atol=1e-5, rtol=1e-5)
        if alone.pooled is not None:
            torch.testing.assert_close(window.pooled, alone.pooled, atol=1e-5, rtol=1e-5)


def test_forward_passes_are_few_and_bounded(clip):
    sizes = []
    handle = clip.model.register_forward_pre_hook(
        lambda _, args, kwargs: sizes.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    clip.encode(windows_of(*[5] * (WINDOWS_PER_CALL + 1)))
    handle.remove()
    assert sizes == [WINDOWS_PER_CALL, 1]


def test_largest_clip_skip_takes_the_token_embeddings(clip):
    assert clip.max_clip_skip == 3

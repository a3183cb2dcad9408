"""The demo's trainings run, on few pictures and for few steps, and teach what they are to teach."""

from __future__ import annotations

import copy
import random

import pytest
import torch

from conftest import ROOT
from demo import addons, encoders, unet, vae
from demo.album import Album, fill_album
from demo.batches import caption_batches
from demo.export import read_checkpoint
from demo.networks import Networks, make_networks
from demo.scene import PICTURE_PIXELS, SCENES
from demo.words import Vocabulary

FEW = SCENES[:: len(SCENES) // 12]


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary()


@pytest.fixture
def networks(vocabulary: Vocabulary) -> Networks:
    networks = make_networks(vocabulary, seed=0)
    read_checkpoint(ROOT / "demo" / "lpw-sdxl-demo.safetensors", networks)
    return networks


@pytest.fixture
def album(networks: Networks) -> Album:
    return fill_album(networks.vae, 0, FEW, drawings=1, accents=6)


def loss_of(model: object, networks: Networks, vocabulary: Vocabulary, album: Album) -> float:
    """The mean loss of a few batches, the same each time."""
    batches = caption_batches(networks, vocabulary, album, random.Random(1))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        losses = [unet.velocity_loss(model, next(batches), album, generator)[0] for _ in range(3)]
    return float(torch.stack(losses).mean())


def test_cells_by_which_shapes_differ_count_most(album: Album) -> None:
    assert torch.allclose(album.weights.mean((1, 2, 3)), torch.ones(len(album.pictures)))
    assert album.weights.amin() >= 0.3
    assert (album.weights.amax((1, 2, 3)) > 3).all()
    assert album.latents.shape == (len(FEW) + 6, 4, 16, 16)
    assert 0.5 < float(album.latents.std()) < 1.5


def test_the_unet_learns_from_an_album(
    networks: Networks, vocabulary: Vocabulary, album: Album, monkeypatch: pytest.MonkeyPatch
) -> None:
    untrained = make_networks(vocabulary, seed=1)
    torn = Networks(untrained.unet, networks.vae, networks.encoders)
    before = loss_of(torn.unet, torn, vocabulary, album)
    shown: list[int] = []
    monkeypatch.setattr(unet, "STEPS", 12)
    monkeypatch.setattr(unet, "SHOWN_EVERY", 6)
    unet.train_unet(torn, vocabulary, album, 0, lambda step, _: shown.append(step))
    assert shown == [6, 12]
    assert loss_of(torn.unet, torn, vocabulary, album) < before


def test_a_lora_learns_a_style(
    networks: Networks, vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    album = fill_album(networks.vae, 0, FEW, drawings=1, accents=0, style="pastel")
    kept = copy.deepcopy(networks.unet.state_dict())
    before = loss_of(networks.unet, networks, vocabulary, album)
    monkeypatch.setattr(addons, "STEPS", 15)
    tensors = addons.train_lora(networks, vocabulary, album, "pastel")
    assert all(torch.equal(kept[name], now) for name, now in networks.unet.state_dict().items())
    lora = addons.TrainedLora(networks.unet)
    parameters = [*lora.downs, *lora.ups]
    trained = [
        *(tensor for name, tensor in tensors.items() if name.endswith("lora_down.weight")),
        *(tensor for name, tensor in tensors.items() if name.endswith("lora_up.weight")),
    ]
    with torch.no_grad():
        for parameter, tensor in zip(parameters, trained, strict=True):
            parameter.copy_(tensor)
    assert loss_of(lora, networks, vocabulary, album) < before


def test_text_encoders_learn_to_tell(
    vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    untrained = make_networks(vocabulary, seed=1)
    monkeypatch.setattr(encoders, "STEPS", 3)
    before = copy.deepcopy(untrained.encoders[0].get_input_embeddings().rows)
    encoders.train_encoders(untrained.encoders, vocabulary, seed=0)
    assert not torch.equal(before, untrained.encoders[0].get_input_embeddings().rows)
    assert "text encoders: step 3 of 3" in capsys.readouterr().out


def test_the_vae_ends_with_latents_as_sdxl_has_them(
    vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    untrained = make_networks(vocabulary, seed=1).vae
    phases = (vae._Phase(2, 4, PICTURE_PIXELS // 2, 1e-3),)
    monkeypatch.setattr(vae, "_PHASES", phases)
    vae.train_vae(untrained, seed=0)
    latents = fill_album(untrained, 1, SCENES[::20], drawings=1, accents=0).latents
    assert torch.allclose(latents.std((0, 2, 3)), torch.ones(4), atol=0.2)
    assert torch.allclose(latents.mean((0, 2, 3)), torch.zeros(4), atol=0.3)

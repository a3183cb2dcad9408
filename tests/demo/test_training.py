"""The demo's trainings run, on few pictures and for few steps; what can be learned so soon is.

A run that was stopped ends as one that was not, and nothing of another run is taken for its own.
"""

from __future__ import annotations

import copy
import random
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from demo import addons, encoders, train, unet, vae
from demo.album import Album, fill_album
from demo.batches import caption_batches
from demo.networks import Networks, make_networks
from demo.parts import Part
from demo.scene import PICTURE_PIXELS, SCENES, draw
from demo.words import Vocabulary

pytestmark = pytest.mark.thorough

NAME = "demo.safetensors"
FEW = SCENES[:: len(SCENES) // 12]
FEW_PHASES = (vae._Phase(2, 4, PICTURE_PIXELS // 2, 1e-3),)


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
    assert float(album.weights.amin()) == pytest.approx(0.25)
    assert (album.weights.amax((1, 2, 3)) > 3).all()
    assert album.latents.shape == (len(FEW) + 6, 4, 16, 16)
    assert 0.5 < float(album.latents.std()) < 1.5


def test_the_unet_learns_from_an_album(
    networks: Networks,
    vocabulary: Vocabulary,
    album: Album,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    untrained = make_networks(vocabulary, seed=1)
    torn = Networks(untrained.unet, networks.vae, networks.encoders)
    before = loss_of(torn.unet, torn, vocabulary, album)
    monkeypatch.setattr(unet, "LEG", 6)
    so_far = Part(tmp_path / "so-far.pt", "nothing")
    unet.train_unet(torn, vocabulary, album, unet.Cycle(12, 1.2e-3), seed=0, so_far=so_far)
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
    lora = addons.TrainedLora(networks.unet, torch.Generator())
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
    monkeypatch.setattr(vae, "PHASES", FEW_PHASES)
    vae.train_vae(untrained, seed=0)
    latents = fill_album(untrained, 1, SCENES[::20], drawings=1, accents=0).latents
    assert torch.allclose(latents.std((0, 2, 3)), torch.ones(4), atol=0.2)
    assert torch.allclose(latents.mean((0, 2, 3)), torch.zeros(4), atol=0.3)


def test_standardising_the_vae_changes_no_picture(networks: Networks) -> None:
    pixels = draw(FEW, torch.Generator().manual_seed(3)).pixels
    scaled = copy.deepcopy(networks.vae)
    with torch.no_grad():
        scaled.quant_conv.weight[:4] *= 3
        scaled.quant_conv.bias[:4] = scaled.quant_conv.bias[:4] * 3 + 1
        before = scaled.decode(vae.encode(scaled, pixels), return_dict=False)[0]
        vae.standardise(scaled, pixels)
        latents = vae.encode(scaled, pixels)
        after = scaled.decode(latents, return_dict=False)[0]
    assert torch.allclose(before, after, atol=1e-3)
    expected = 1 / scaled.config.scaling_factor
    assert torch.allclose(latents.std((0, 2, 3)), torch.full((4,), expected), rtol=1e-3)


def shorten(patch: pytest.MonkeyPatch) -> None:
    """Make the whole training short."""
    patch.setattr(encoders, "STEPS", 2)
    patch.setattr(vae, "PHASES", FEW_PHASES)
    patch.setattr(vae, "MEASURED", 16)
    patch.setattr(unet, "CYCLES", (unet.Cycle(4, 1.2e-3), unet.Cycle(2, 8e-4)))
    patch.setattr(unet, "LEG", 2)
    few = partial(fill_album, scenes=FEW, drawings=1, accents=6)
    patch.setattr(train, "fill_album", few)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten(monkeypatch)


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing stopped."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        shorten(patch)
        run(folder)
    return folder


@pytest.fixture
def run_before(whole_run: Path, tmp_path: Path) -> Path:
    """A copy of that folder, in which another run may go on."""
    return shutil.copytree(whole_run, tmp_path / "before")


def run(folder: Path, device: str = "cpu") -> bytes:
    """Run the training's command in a folder of its own, and give the checkpoint's bytes."""
    words = ["--work", folder / "work", "--out", folder / NAME, "--device", device]
    train.main([*map(str, words)])
    return (folder / NAME).read_bytes()


@pytest.mark.usefixtures("short")
def test_a_training_that_was_stopped_ends_as_one_that_was_not(
    whole_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    expected = (whole_run / NAME).read_bytes()
    calls = []
    loss = unet.velocity_loss

    def stop_at_the_fourth(*words: object) -> object:
        calls.append(words)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return loss(*words)

    monkeypatch.setattr(unet, "velocity_loss", stop_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    assert not (tmp_path / NAME).exists()
    assert run(tmp_path) == expected
    assert len(calls) == 4 + 2 + 2, "two of the first cycle's four steps were kept"
    assert run(tmp_path) == expected  # from its parts
    assert len(calls) == 4 + 2 + 2
    output = capsys.readouterr().out
    assert "unet-1.pt of an earlier run" in output
    assert "unet-2.pt of an earlier run" in output


@pytest.mark.usefixtures("short")
def test_a_later_cycle_goes_on_with_the_one_before(
    run_before: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = (run_before / NAME).read_bytes()
    first = (run_before / "work" / "after-cycle-1.safetensors").read_bytes()
    monkeypatch.setattr(unet, "CYCLES", unet.CYCLES[:1])
    assert run(run_before) == first != expected


@pytest.mark.usefixtures("short")
def test_nothing_of_another_run_is_used(
    run_before: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    anew = (run_before / NAME).read_bytes()
    monkeypatch.setattr(train, "SEED", 1)
    other = run(run_before)
    assert other != anew
    assert capsys.readouterr().out.count("of another run") == 4
    monkeypatch.setattr(unet, "CYCLES", (unet.CYCLES[0], unet.Cycle(2, 1e-4)))
    assert run(run_before) not in (anew, other)
    output = capsys.readouterr().out
    assert "unet-1.pt of an earlier run" in output
    assert "unet-2.pt is of another run" in output


@pytest.mark.usefixtures("short")
def test_a_device_that_is_named_gets_all_tensors(whole_run: Path, tmp_path: Path) -> None:
    """`cpu:0` is the CPU, which is named for every tensor as a GPU is."""
    assert run(tmp_path, "cpu:0") == (whole_run / NAME).read_bytes()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.usefixtures("short")
def test_a_gpu_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = run(tmp_path, "cuda")
    assert run(tmp_path, "cuda") == trained  # from its parts
    monkeypatch.setattr(addons, "STEPS", 1)
    monkeypatch.setattr(addons, "fill_album", partial(fill_album, scenes=FEW))
    words = ["--out", tmp_path / "addons", "--checkpoint", tmp_path / NAME, "--device", "cuda"]
    addons.main([*map(str, words)])
    assert len([*(tmp_path / "addons").iterdir()]) == 3


def test_loras_are_trained_for_the_checkpoint_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(addons, "STEPS", 1)
    few = partial(fill_album, scenes=FEW)
    monkeypatch.setattr(addons, "fill_album", few)
    words = ["--out", str(tmp_path), "--device", "cpu"]
    addons.main(words)
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert len(made) == 3
    addons.main(words)
    assert capsys.readouterr().out.count("is there, for this checkpoint") == 2
    (tmp_path / "demo-frame.safetensors").unlink()
    addons.main(words)  # each LoRA depends on nothing but its seed
    other = tmp_path / "other.safetensors"
    train.write_checkpoint(other, make_networks(Vocabulary(), 1), "other")
    made |= {other.name: other.read_bytes()}
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == made
    addons.main([*words, "--checkpoint", str(other)])
    for name in addons.STYLES:
        with safe_open(tmp_path / f"{name}.safetensors", "pt") as file:
            assert file.metadata()[addons.CHECKPOINT_KEY] == addons.record_file(other).sha256

"""The tensors that serve: the checkpoint's own, its averages, another file's VAE."""

from __future__ import annotations

import filecmp
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file

from lpw_sdxl.checkpoint.inspect import PREDICTIONS, Prediction
from lpw_sdxl.checkpoint.selection import Selection, open_checkpoint
from lpw_sdxl.errors import CheckpointError, UnsupportedCheckpointError
from lpw_sdxl.weights.component import Component
from tests.forge.checkpoint import SyntheticSize, tensor_shapes

from .conftest import (
    AS_IT_IS,
    Converted,
    Save,
    Tensors,
    convert_file,
    same_bits,
)
from .test_kinds import FILES, SDXL

pytestmark = pytest.mark.thorough

UNET, VAE = "model.diffusion_model.", "first_stage_model."
EMA = Selection(use_ema=True)


def _averages(tensors: Tensors) -> Tensors:
    """Averages with values of their own, named as LitEma of sgm and ldm names its buffers."""
    averages = {
        "model_ema." + name.removeprefix("model.").replace(".", ""): tensor * 0.5
        for name, tensor in tensors.items()
        if name.startswith(UNET)
    }
    return averages | {
        "model_ema.decay": torch.tensor(0.9999),
        "model_ema.num_updates": torch.tensor(12, dtype=torch.int32),
    }


def _halved(tensors: Tensors) -> Tensors:
    return {n: t * 0.5 if n.startswith(UNET) else t for n, t in tensors.items()}


@pytest.mark.parametrize("is_dotted", [False, True], ids=["without dots", "with dots"])
def test_ema_gives_what_a_checkpoint_of_the_averages_gives(
    tiny_tensors: Tensors, save: Save, tmp_path: Path, is_dotted: bool
):
    averages = _averages(tiny_tensors)
    if is_dotted:
        averages = {
            f"model_ema.{name.removeprefix('model.')}": tensor * 0.5
            for name, tensor in tiny_tensors.items()
            if name.startswith(UNET)
        }
    path = save(tiny_tensors | averages)
    expected = convert_file(save(_halved(tiny_tensors), "halved"), tmp_path / "a")
    found = convert_file(path, tmp_path / "b", selection=EMA)
    raw = convert_file(path, tmp_path / "c")
    assert found.files == expected.files
    assert raw.files != expected.files
    assert raw.conversion.plan.ignored["EMA weights"] == len(averages)


def test_without_the_choice_the_averages_change_nothing(
    tiny_tensors: Tensors, save: Save, tmp_path: Path, converted: Converted
):
    out = convert_file(save(tiny_tensors | _averages(tiny_tensors)), tmp_path / "out").directory
    for component in Component:
        name = component.weights_file
        assert filecmp.cmp(out / name, converted.directory / name, shallow=False)


def test_ema_of_a_file_without_averages_is_refused(tiny_checkpoint: Path):
    with pytest.raises(UnsupportedCheckpointError, match=r"holds no EMA weights .*without --ema"):
        open_checkpoint(tiny_checkpoint, EMA)


def test_a_missing_average_is_named(tiny_tensors: Tensors, save: Save):
    averages = _averages(tiny_tensors)
    del averages["model_ema.diffusion_modelmiddle_block1proj_inweight"]
    with pytest.raises(CheckpointError, match=rf"none for {UNET}middle_block\.1\.proj_in\.weight"):
        open_checkpoint(save(tiny_tensors | averages), EMA)


def test_a_misshapen_average_is_named(tiny_tensors: Tensors, save: Save, tmp_path: Path):
    averages = _averages(tiny_tensors)
    averages["model_ema.diffusion_modelout2bias"] = torch.zeros(5, dtype=torch.float16)
    with pytest.raises(CheckpointError, match=r"model_ema\.diffusion_modelout2bias has the shape"):
        convert_file(save(tiny_tensors | averages), tmp_path / "out", selection=EMA)


@pytest.mark.parametrize("size", SyntheticSize)
def test_no_two_tensors_of_the_unet_have_one_name_without_dots(size: SyntheticSize):
    names = [name for name in tensor_shapes(size) if name.startswith(UNET)]
    assert len(names) == (1680 if size is SyntheticSize.FULL else len(set(names)))
    assert len({name.replace(".", "") for name in names}) == len(names)


def _bare(tensors: Tensors) -> Tensors:
    return {n.removeprefix(VAE): t for n, t in tensors.items() if n.startswith(VAE)}


def _with(prefix: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {prefix + name: tensor for name, tensor in _bare(tensors).items()}


STABILITYS_FILES: dict[str, Callable[[Tensors], Tensors]] = {
    "bare": _bare,
    "first_stage_model.": _with(VAE),
    "vae.": _with("vae."),
    "state_dict.": _with("state_dict."),
    "with its training's losses": lambda t: _bare(t) | {"loss.logvar": torch.zeros(1)},
    "a whole checkpoint": dict,
    "a whole checkpoint in module.": lambda t: {f"module.{name}": x for name, x in t.items()},
}


@pytest.fixture(scope="module")
def other_vae(second_checkpoint: Path, converted: Converted) -> Tensors:
    """The second checkpoint's VAE as Diffusers' own converter reads it."""
    vae = AutoencoderKL.from_single_file(
        str(second_checkpoint),
        config=str(converted.directory),
        subfolder="vae",
        local_files_only=True,
        torch_dtype=torch.float16,
    )
    return dict(vae.state_dict())


def _check_vae(
    checkpoint: Path, vae: Path, expected: Tensors, converted: Converted, out: Path
) -> None:
    """Check that the VAE is the expected one, and all else the checkpoint's."""
    directory = convert_file(checkpoint, out, selection=Selection(vae=vae)).directory
    assert same_bits(load_file(directory / Component.VAE.weights_file), expected)
    for component in set(Component) - {Component.VAE}:
        name = component.weights_file
        assert filecmp.cmp(directory / name, converted.directory / name, shallow=False)


@pytest.mark.parametrize("layout", STABILITYS_FILES.values(), ids=STABILITYS_FILES.keys())
def test_vae_is_taken_from_a_file_of_stabilitys_layout(
    tiny_checkpoint, second_checkpoint, converted, other_vae, save: Save, tmp_path: Path, layout
):
    path = save(layout(load_file(second_checkpoint)), "vae.safetensors")
    assert not same_bits(other_vae, load_file(converted.directory / Component.VAE.weights_file))
    _check_vae(tiny_checkpoint, path, other_vae, converted, tmp_path / "out")


OLD_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


@pytest.mark.parametrize("names", [{}, OLD_NAMES], ids=["as it is", "before 0.17"])
@pytest.mark.parametrize("prefix", ["", "vae.", VAE], ids=lambda prefix: prefix or "bare")
def test_vae_is_taken_from_a_file_of_diffusers_layout(
    tiny_checkpoint, converted, other_vae, save: Save, tmp_path: Path, names, prefix: str
):
    tensors = {}
    for key, tensor in other_vae.items():
        name = key
        for new, old in names.items():
            name = name.replace(f".attentions.0.{new}.", f".attentions.0.{old}.")
        tensors[prefix + name] = tensor
    path = save(tensors, "vae.safetensors")
    _check_vae(tiny_checkpoint, path, other_vae, converted, tmp_path / "out")


def test_vae_is_taken_from_what_diffusers_saves(tiny_checkpoint, converted, tmp_path: Path):
    config = AutoencoderKL.load_config(converted.directory / "vae")
    vae = AutoencoderKL.from_config(config).half()
    vae.save_pretrained(tmp_path / "vae")
    path = tmp_path / "vae" / "diffusion_pytorch_model.safetensors"
    _check_vae(tiny_checkpoint, path, dict(vae.state_dict()), converted, tmp_path / "out")


def test_vae_may_have_another_dtype(tiny_checkpoint, converted, other_vae, save, tmp_path: Path):
    path = save({name: tensor.float() for name, tensor in other_vae.items()}, "vae.safetensors")
    _check_vae(tiny_checkpoint, path, other_vae, converted, tmp_path / "out")


WITHOUT_VAE = {name: shape for name, shape in SDXL.items() if not name.startswith(VAE)}
NO_VAES = {
    kind.name: (many[0], kind.title) for kind, many in FILES.items() if "VAE" not in kind.title
} | {"SDXL without VAE": (WITHOUT_VAE, "an SDXL checkpoint without a VAE")}


@pytest.mark.parametrize(("shapes", "title"), NO_VAES.values(), ids=NO_VAES.keys())
def test_vae_from_something_else_is_refused_by_its_name(
    tiny_checkpoint: Path, write_file, shapes, title: str
):
    path = write_file(shapes, name="odd.safetensors")
    with pytest.raises(UnsupportedCheckpointError) as refused:
        open_checkpoint(tiny_checkpoint, Selection(vae=path))
    assert str(refused.value) == (
        f"odd.safetensors is {title}; --vae takes an SDXL VAE, or an SDXL checkpoint that has one."
    )


@pytest.mark.parametrize("content", [b"", b"<html>", b"PK\x03\x04"], ids=["empty", "page", "zip"])
def test_a_vae_file_that_is_damaged_is_named(tiny_checkpoint: Path, tmp_path: Path, content: bytes):
    path = tmp_path / "vae.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"^vae\.safetensors "):
        open_checkpoint(tiny_checkpoint, Selection(vae=path))


def test_a_checkpoint_without_vae_is_refused_with_the_way_out(
    tiny_tensors: Tensors, tiny_checkpoint: Path, save: Save, tmp_path: Path, converted: Converted
):
    path = save({n: t for n, t in tiny_tensors.items() if not n.startswith(VAE)}, "none")
    with pytest.raises(UnsupportedCheckpointError, match="without a VAE; add one with --vae FILE"):
        open_checkpoint(path, AS_IT_IS)
    found = convert_file(path, tmp_path / "out", selection=Selection(vae=tiny_checkpoint))
    for component in Component:
        assert found.files[component.weights_file] == converted.files[component.weights_file]


def test_a_broken_vae_is_refused_with_the_way_out(
    tiny_tensors: Tensors, tiny_checkpoint: Path, save: Save, tmp_path: Path, converted: Converted
):
    broken = {n: t * float("nan") if n.startswith(VAE) else t for n, t in tiny_tensors.items()}
    path = save(broken, "broken")
    with pytest.raises(CheckpointError, match=r"broken is damaged: .* another VAE with --vae"):
        convert_file(path, tmp_path / "no")
    found = convert_file(path, tmp_path / "out", selection=Selection(vae=tiny_checkpoint))
    for component in Component:
        assert found.files[component.weights_file] == converted.files[component.weights_file]


def test_average_and_vae_go_together(
    tiny_tensors: Tensors, second_checkpoint: Path, save: Save, tmp_path: Path, other_vae: Tensors
):
    path = save(tiny_tensors | _averages(tiny_tensors))
    both = Selection(use_ema=True, vae=second_checkpoint)
    found = convert_file(path, tmp_path / "a", selection=both)
    halved = convert_file(save(_halved(tiny_tensors), "halved"), tmp_path / "b")
    unet = Component.UNET.weights_file
    assert found.files[unet] == halved.files[unet]
    assert same_bits(load_file(tmp_path / "a" / Component.VAE.weights_file), other_vae)


@pytest.mark.parametrize("prediction", PREDICTIONS.values(), ids=PREDICTIONS.keys())
@pytest.mark.parametrize("marker", [{}, {"v_pred": torch.zeros(0)}], ids=["epsilon", "v"])
def test_the_users_word_on_the_prediction_counts(
    tiny_tensors: Tensors, save: Save, marker: Tensors, prediction: Prediction
):
    path = save(tiny_tensors | marker)
    assert open_checkpoint(path, Selection(prediction=prediction)).summary.prediction == prediction


@pytest.mark.parametrize("change", ["missing", "unexpected", "16 channels"])
def test_a_vae_that_does_not_fit_is_named_by_its_own_file(
    tiny_checkpoint: Path, second_checkpoint: Path, save: Save, tmp_path: Path, change: str
):
    vae = _bare(load_file(second_checkpoint))
    if change == "missing":
        del vae["quant_conv.bias"]
    elif change == "unexpected":
        vae["encoder.more.bias"] = torch.zeros(1)
    else:
        vae["post_quant_conv.weight"] = torch.zeros(16, 16, 1, 1)
    path = save(vae, "vae.safetensors")
    with pytest.raises(CheckpointError, match=r"^vae\.safetensors"):
        convert_file(tiny_checkpoint, tmp_path / "out", selection=Selection(vae=path))


REFUSED: dict[str, tuple[str, tuple[int, ...] | None, str]] = {
    "wrong shape": (UNET + "output_blocks.3.0.in_layers.2.weight", (64, 64, 3, 3), "has the shape"),
    "missing": (UNET + "output_blocks.3.0.in_layers.2.weight", None, "lacks tensors: "),
    "missing size": (UNET + "label_emb.0.0.weight", None, "has no tensor "),
    "unknown": (UNET + "more.weight", (2,), "holds unexpected tensors: "),
}


@pytest.mark.parametrize(("name", "shape", "what"), REFUSED.values(), ids=REFUSED.keys())
def test_a_checkpoint_that_cannot_be_converted_is_refused_by_its_header(
    tiny_shapes, write_file, name: str, shape: tuple[int, ...] | None, what: str
):
    shapes = {key: size for key, size in tiny_shapes.items() if key != name}
    path = write_file(shapes if shape is None else shapes | {name: shape})
    whole = path.stat().st_size
    length = int.from_bytes(path.read_bytes()[:8], "little")
    os.truncate(path, 8 + length)  # of a download, no more has come
    with pytest.raises(CheckpointError, match=what) as refused:
        open_checkpoint(path, AS_IT_IS, full_size=whole)
    assert name in str(refused.value)


def test_unknown_tensors_are_left_out_when_the_user_says_so(
    tiny_tensors: Tensors, save: Save, tmp_path: Path, converted: Converted
):
    path = save(tiny_tensors | {UNET + "more.weight": torch.zeros(2), VAE + "x": torch.zeros(())})
    selection = Selection(ignore_unknown=True)
    assert open_checkpoint(path, selection).plan.unknown == (VAE + "x", UNET + "more.weight")
    found = convert_file(path, tmp_path / "out", selection=selection)
    for component in Component:
        assert found.files[component.weights_file] == converted.files[component.weights_file]


def test_unknown_tensors_of_another_files_vae_are_left_out_too(
    tiny_checkpoint, second_checkpoint, save: Save, other_vae, converted, tmp_path: Path
):
    vae = _bare(load_file(second_checkpoint)) | {"encoder.more.bias": torch.zeros(1)}
    selection = Selection(vae=save(vae, "vae.safetensors"), ignore_unknown=True)
    assert open_checkpoint(tiny_checkpoint, selection).plan.unknown == ("encoder.more.bias",)
    convert_file(tiny_checkpoint, tmp_path / "out", selection=selection)
    assert same_bits(load_file(tmp_path / "out" / Component.VAE.weights_file), other_vae)


def test_a_vae_with_its_trainings_averages_is_taken(
    tiny_checkpoint, second_checkpoint, converted, other_vae, save: Save, tmp_path: Path
):
    leftovers = {"model_ema.decay": torch.zeros(()), "model_ema.num_updates": torch.zeros(())}
    path = save(_bare(load_file(second_checkpoint)) | leftovers, "vae.safetensors")
    _check_vae(tiny_checkpoint, path, other_vae, converted, tmp_path / "out")

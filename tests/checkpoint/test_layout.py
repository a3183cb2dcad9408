"""Files that other tools have saved under other names become the very same model."""

from __future__ import annotations

import filecmp
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lpw_sdxl.checkpoint.layout import standardise, standardise_vae
from lpw_sdxl.errors import CheckpointError
from lpw_sdxl.weights.component import Component
from lpw_sdxl.weights.header import CheckpointHeader
from tests.forge.checkpoint import SyntheticSize, tensor_shapes

from .conftest import Converted, Save, Shapes, Tensors, Weights, convert_file, header_of

pytestmark = pytest.mark.thorough

UNET, VAE = "model.diffusion_model.", "first_stage_model."
FIRST = "conditioner.embedders.0.transformer.text_model."
OPENCLIP = "conditioner.embedders.1.model."
PROJECTION = OPENCLIP + "text_projection"

Rename = Callable[[str], str]
Change = Callable[[Tensors, Weights], Tensors]


def _renamed(rename: Rename) -> Change:
    return lambda tensors, _: {rename(name): tensor for name, tensor in tensors.items()}


def _before(old: str, new: str) -> Rename:
    return lambda name: new + name.removeprefix(old) if name.startswith(old) else name


def _second_encoder_as(prefix: str) -> Change:
    """Put the second encoder under Transformers' names, as Diffusers' converter gives it."""

    def change(tensors: Tensors, reference: Weights) -> Tensors:
        others = {name: t for name, t in tensors.items() if not name.startswith(OPENCLIP)}
        encoder = reference[Component.TEXT_ENCODER_2]
        return others | {prefix + name: tensor for name, tensor in encoder.items()}

    return change


def _linear_projection(tensors: Tensors, _: Weights) -> Tensors:
    """Store the projection as torch's Linear does: rows are outputs."""
    others = {name: tensor for name, tensor in tensors.items() if name != PROJECTION}
    return others | {f"{PROJECTION}.weight": tensors[PROJECTION].T}


def _forge(tensors: Tensors, reference: Weights) -> Tensors:
    tensors = _second_encoder_as("text_encoders.clip_g.transformer.")(tensors, reference)
    for old, new in (
        ("conditioner.embedders.0.", "text_encoders.clip_l."),
        (VAE, "vae."),
    ):
        tensors = _renamed(_before(old, new))(tensors, reference)
    return tensors


def _vae_attention(names: dict[str, str], dimensions: int) -> Change:
    """Rename the VAE's attention and cut its 1x1 kernels to so many dimensions."""

    def change(tensors: Tensors, _: Weights) -> Tensors:
        changed = {}
        for name, value in tensors.items():
            new_name, tensor = name, value
            attention = re.fullmatch(r"(.*\.mid\.attn_1\.)(q|k|v|proj_out)(\.\w+)", name)
            if attention:
                new_name = attention[1] + names.get(attention[2], attention[2]) + attention[3]
                if attention[3] == ".weight":
                    tensor = value.reshape(value.shape[:2] + (1,) * (dimensions - 2))
            changed[new_name] = tensor
        return changed

    return change


def _diffusers_vae(names: dict[str, str], prefix: str = VAE) -> Change:
    """Put the VAE under Diffusers' names, as Diffusers' converter gives it."""

    def change(tensors: Tensors, reference: Weights) -> Tensors:
        others = {name: t for name, t in tensors.items() if not name.startswith(VAE)}
        for key, tensor in reference[Component.VAE].items():
            name = key
            for new, old in names.items():
                name = name.replace(f".attentions.0.{new}.", f".attentions.0.{old}.")
            others[prefix + name] = tensor
        return others

    return change


def _then(*changes: Change) -> Change:
    def change(tensors: Tensors, reference: Weights) -> Tensors:
        for each in changes:
            tensors = each(tensors, reference)
        return tensors

    return change


TO_NAMES = {"q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
OLD_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

LAYOUTS: dict[str, Change] = {
    "state_dict.": _renamed(lambda name: f"state_dict.{name}"),
    "module.": _renamed(lambda name: f"module.{name}"),
    "state_dict.module.": _renamed(lambda name: f"state_dict.module.{name}"),
    "compiled UNet": _renamed(_before(UNET, UNET + "_orig_mod.")),
    "compiled model": _renamed(_before(UNET, "model._orig_mod.diffusion_model.")),
    "compiled all": _renamed(lambda name: f"_orig_mod.{name}"),
    "model. before everything": _renamed(lambda name: f"model.{name}"),
    "UNet without model.": _renamed(_before(UNET, "diffusion_model.")),
    "vae.": _renamed(_before(VAE, "vae.")),
    "clip_l": _renamed(_before("conditioner.embedders.0.", "text_encoders.clip_l.")),
    "Forge": _forge,
    "Forge in module.": _then(_forge, _renamed(lambda name: f"module.{name}")),
    "first encoder without text_model.": _renamed(
        _before(FIRST, "conditioner.embedders.0.transformer.")
    ),
    "second encoder of Transformers": _second_encoder_as("conditioner.embedders.1.transformer."),
    "second encoder of Transformers in model.": _second_encoder_as(OPENCLIP),
    "second encoder of Transformers in model.transformer.": _second_encoder_as(
        OPENCLIP + "transformer."
    ),
    "projection as Linear": _linear_projection,
    "VAE attention to_q, 4-D": _vae_attention(TO_NAMES, 4),
    "VAE attention to_q, 3-D": _vae_attention(TO_NAMES, 3),
    "VAE attention to_q, 2-D": _vae_attention(TO_NAMES, 2),
    "VAE attention q, 3-D": _vae_attention({}, 3),
    "VAE attention q, 2-D": _vae_attention({}, 2),
    "VAE of Diffusers": _diffusers_vae({}),
    "VAE of Diffusers before 0.17": _diffusers_vae(OLD_NAMES),
    "VAE of Diffusers as vae.": _diffusers_vae({}, "vae."),
    "all at once": _then(
        _diffusers_vae(OLD_NAMES),
        _linear_projection,
        _renamed(_before(FIRST, "conditioner.embedders.0.transformer.")),
        _renamed(_before(UNET, UNET + "_orig_mod.")),
        _renamed(lambda name: f"state_dict.{name}"),
    ),
}


@pytest.mark.parametrize("change", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_a_known_layout_gives_the_same_files(
    tiny_tensors: Tensors,
    reference: Weights,
    converted: Converted,
    save: Save,
    tmp_path: Path,
    change: Change,
):
    changed = change(tiny_tensors, reference)
    assert changed.keys() != tiny_tensors.keys() or any(
        changed[name].shape != tensor.shape for name, tensor in tiny_tensors.items()
    )
    path = save(changed, **{"modelspec.resolution": "128x96"})
    directory = convert_file(path, tmp_path / "out").directory
    for name in converted.files:
        assert filecmp.cmp(directory / name, converted.directory / name, shallow=False), name


def test_the_tiny_projection_would_show_a_wrong_transpose(tiny_tensors: Tensors):
    projection = tiny_tensors[PROJECTION]
    assert projection.shape[0] == projection.shape[1]
    assert not torch.equal(projection, projection.T)


@pytest.mark.parametrize("size", SyntheticSize)
def test_stabilitys_own_names_stay_as_they_are(size: SyntheticSize):
    header = header_of(tensor_shapes(size))
    assert dict(standardise(header).tensors) == dict(header.tensors)


def test_a_name_that_no_row_knows_stays_as_it_is():
    names = ["my.vae.decoder", "unet.down_blocks.0.x", "te.text_model.x", "model.model.x", "module"]
    header = header_of(dict.fromkeys(names, (1,)))
    assert list(standardise(header).tensors) == names


CLASHES: dict[str, tuple[str, str, Callable[[CheckpointHeader], CheckpointHeader]]] = {
    "wrapped and bare": (UNET + "out.2.bias", f"state_dict.{UNET}out.2.bias", standardise),
    "compiled and bare": (UNET + "out.2.bias", f"{UNET}_orig_mod.out.2.bias", standardise),
    "two names of the VAE": (VAE + "quant_conv.bias", "vae.quant_conv.bias", standardise),
    "two names of its attention": (
        VAE + "decoder.mid.attn_1.q.bias",
        VAE + "decoder.mid.attn_1.to_q.bias",
        standardise,
    ),
    "two layouts of the VAE": (
        VAE + "decoder.mid.attn_1.q.bias",
        VAE + "decoder.mid_block.attentions.0.to_q.bias",
        standardise,
    ),
    "two ages of Diffusers": (
        "decoder.mid_block.attentions.0.query.bias",
        "decoder.mid_block.attentions.0.to_q.bias",
        standardise_vae,
    ),
    "with and without prefix": ("quant_conv.bias", VAE + "quant_conv.bias", standardise_vae),
    "two names of the second encoder": (
        OPENCLIP + "text_model.final_layer_norm.bias",
        "text_encoders.clip_g.transformer.text_model.final_layer_norm.bias",
        standardise,
    ),
}


@pytest.mark.parametrize(("one", "other", "read"), CLASHES.values(), ids=CLASHES.keys())
@pytest.mark.parametrize("is_swapped", [False, True], ids=["", "swapped"])
def test_one_tensor_under_two_names_is_refused_with_both(
    one: str,
    other: str,
    read: Callable[[CheckpointHeader], CheckpointHeader],
    is_swapped: bool,
):
    names = (other, one) if is_swapped else (one, other)
    with pytest.raises(CheckpointError) as refused:
        read(header_of(dict.fromkeys(names, (8,))))
    message = str(refused.value)
    assert f"holds {names[0]} and {names[1]}, " in message
    assert message.endswith("one of them is needed.")


@pytest.mark.parametrize(
    "names",
    [("epoch", "module.epoch"), ("module.epoch", "epoch"), ("module.x", "state_dict.x", "x")],
    ids=" ".join,
)
def test_two_names_of_what_is_no_part_of_sdxl_are_no_clash(names: tuple[str, ...]):
    header = standardise(header_of(dict.fromkeys(names, (1,))))
    assert [info.name for info in header.tensors.values()] == [*names]


@pytest.mark.parametrize("name", ["v_pred", "denoiser.sigmas", "model_ema.decay"])
def test_model_before_everything_is_taken_off_the_rest_as_well(tiny_shapes: Shapes, name: str):
    shapes = {f"model.{key}": shape for key, shape in {**tiny_shapes, name: (1,)}.items()}
    assert name in standardise(header_of(shapes)).tensors

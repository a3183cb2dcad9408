"""Random LoRA files: names, shapes, size of the change, and the same LoRA in every naming."""

from __future__ import annotations

import json
import math
from itertools import product
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from lpw_sdxl.checkpoint.configs import component_configs
from lpw_sdxl.checkpoint.inspect import SDXL_SIZE
from lpw_sdxl.checkpoint.skeleton import parameter_shapes
from lpw_sdxl.lora.formulas import compute_weight_change
from lpw_sdxl.lora.targets import LORA_COMPONENTS
from lpw_sdxl.weights.component import Component
from lpw_sdxl.weights.dtypes import CheckpointDtype
from lpw_sdxl.weights.files import FileRecord
from tests.forge.checkpoint import SyntheticSize
from tests.forge.lora import LoraOptions, write_lora
from tests.forge.lora_factors import SyntheticKind
from tests.forge.lora_names import SyntheticNaming, tensor_name


class Target(NamedTuple):
    weight: tuple[int, ...]
    bias: tuple[int, ...] | None


Targets = dict[Component, dict[str, Target]]

TELL_NO_ALPHA = ("peft", "diffusers-old", "diffusers-processor")
KOHYA = ("kohya", "kohya-diffusers")
HELD = [
    *product(("lora", "locon", "dora"), (*KOHYA, "diffusers", "peft")),
    *product(("loha", "lokr"), (*KOHYA, "peft")),
    *product(("dora-columns", "full"), KOHYA),
    ("lora", "diffusers-old"),
    ("locon", "diffusers-old"),
    ("lora", "diffusers-processor"),
]
FACTORS = ["lora_down", "lora_up", "lora_mid", "alpha", "dora_scale", "diff", "diff_b"]
FACTORS += ["w_norm", "b_norm"]
FACTORS += [f"hada_{name}" for name in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")]
FACTORS += [f"lokr_{name}" for name in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")]


@pytest.fixture(scope="module")
def targets() -> Targets:
    configs = component_configs(SyntheticSize.TINY.value, SDXL_SIZE, CheckpointDtype.FLOAT32)
    shapes = {str(name): found for name, found in parameter_shapes(configs).items()}
    return {
        component: {
            name.removesuffix(".weight"): Target(shape, shapes[component].get(f"{name[:-6]}bias"))
            for name, shape in shapes[component].items()
            if name.endswith(".weight")
        }
        for component in LORA_COMPONENTS
    }


def write(path: Path, targets: Targets, kind="lora", naming="kohya", **options) -> FileRecord:
    """Write a LoRA of a kind and a naming, given by name."""
    kind, naming = SyntheticKind(kind), SyntheticNaming(naming)
    return write_lora(path, targets, LoraOptions(kind=kind, naming=naming, **options))


def names_of(path: Path) -> set[str]:
    return set(load_file(path))


def modules_of(path: Path, naming: str, targets: Targets) -> dict[tuple[str, str], dict]:
    """Read a file's factors by module, by looking up every name that a module may have."""
    tensors = load_file(path)
    factors = FACTORS
    if naming in ("diffusers-old", "diffusers-processor"):
        factors = factors[:2]
    found: dict[tuple[str, str], dict[str, Tensor]] = {}
    for component, modules in targets.items():
        for module in modules:
            for factor in factors:
                name = tensor_name(SyntheticNaming(naming), component, module, factor)
                if name in tensors:
                    found.setdefault((component, module), {})[factor] = tensors.pop(name)
    assert not tensors
    return found


def canonical(factors: dict[str, Tensor], naming: str, weight: tuple[int, ...], alpha: float):
    """Return a module's factors as an import writes them."""
    renamed = {"w_norm": "diff", "b_norm": "diff_b"}
    factors = {renamed.get(name, name): tensor for name, tensor in factors.items()}
    if naming not in KOHYA:
        first = next(n for n in ("lora_down", "hada_w1_b", "lokr_w1", "lokr_w1_b") if n in factors)
        rank = 4.0 if first.startswith("lokr") else float(factors[first].shape[0])
        factors["alpha"] = torch.tensor(rank if naming in TELL_NO_ALPHA else alpha)
        if "dora_scale" in factors:
            ones = (1,) * (len(weight) - 1)
            factors["dora_scale"] = factors["dora_scale"].reshape(-1, *ones)
    return factors


def changes_of(path: Path, naming: str, targets: Targets) -> dict[tuple[str, str], Tensor]:
    generator = torch.Generator().manual_seed(1)
    changes = {}
    for (component, module), factors in sorted(modules_of(path, naming, targets).items()):
        shape = targets[Component(component)][module].weight
        weight = torch.randn(shape, generator=generator) / math.sqrt(math.prod(shape[1:]))
        changes[component, module] = compute_weight_change(
            weight, canonical(factors, naming, shape, 2.0)
        )
    return changes


@pytest.mark.thorough
@pytest.mark.parametrize(("kind", "naming"), HELD)
def test_same_seed_is_the_same_lora_in_every_naming(kind, naming, targets, tmp_path):
    layers = (
        {"is_attention_only": True}
        if naming == "diffusers-processor"
        else {"has_convolutions": True}
    )
    # In float32, since halving the smallest numbers of float16 rounds them.
    options = layers | {"kind": kind, "dtype": CheckpointDtype.FLOAT32}
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    write(first, targets, **options)
    write(second, targets, naming=naming, **options)
    ours, theirs = (
        changes_of(first, "kohya", targets),
        changes_of(second, naming, targets),
    )
    assert ours.keys() == theirs.keys()
    assert {component for component, _ in ours} == set(LORA_COMPONENTS)
    assert all(torch.equal(ours[module], theirs[module]) for module in ours)


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["lora", "locon", "loha", "lokr", "full"])
@pytest.mark.parametrize("tucker", [False, True], ids=["plain", "tucker"])
def test_change_has_the_strength_that_was_asked_for(kind, tucker, targets, tmp_path):
    path = tmp_path / "file.safetensors"
    write(path, targets, kind=kind, has_convolutions=True, strength=0.25, is_tucker=tucker)
    ratios: dict[bool, list[float]] = {}
    for (component, module), delta in changes_of(path, "kohya", targets).items():
        shape = targets[Component(component)][module].weight
        if len(shape) > 1:
            is_kernel = math.prod(shape[2:]) > 1
            expected = 0.25 / math.sqrt(math.prod(shape[1:]))
            ratios.setdefault(is_kernel, []).append(float(delta.square().mean()) / expected**2)
    for found in ratios.values():
        # A product of few random numbers varies much; the mean over the modules doesn't.
        assert math.sqrt(sum(found) / len(found)) == pytest.approx(1, rel=0.25)


@pytest.mark.parametrize("kind", ["dora", "dora-columns"])
def test_magnitudes_of_a_dora_are_near_those_of_a_random_model(kind, targets, tmp_path):
    path = tmp_path / "file.safetensors"
    write(path, targets, kind=kind, strength=0.1)
    for (component, module), factors in modules_of(path, "kohya", targets).items():
        out, into = targets[Component(component)][module].weight
        scale = factors["dora_scale"]
        assert scale.shape == ((out, 1) if kind == "dora" else (1, into))
        usual = 1.0 if kind == "dora" else math.sqrt(out / into)
        assert float(scale.mean()) == pytest.approx(usual, rel=0.05)


def test_every_form_of_a_lokr_occurs(targets, tmp_path):
    path = tmp_path / "file.safetensors"
    write(path, targets, kind="lokr", has_convolutions=True, is_tucker=True)
    forms = {
        frozenset(factors) - {"alpha"} for factors in modules_of(path, "kohya", targets).values()
    }
    whole, left = {"lokr_w1"}, {"lokr_w1_a", "lokr_w1_b"}
    right = {"lokr_w2_a", "lokr_w2_b"}
    assert forms == {
        frozenset(form)
        for form in [
            whole | {"lokr_w2"},
            whole | right,
            left | right,
            whole | right | {"lokr_t2"},
            left | right | {"lokr_t2"},
        ]
    }


@pytest.mark.parametrize(
    ("naming", "expected"),
    [
        (
            "kohya",
            [
                "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q.lora_down.weight",
                "lora_unet_middle_block_1_transformer_blocks_1_ff_net_0_proj.alpha",
                "lora_unet_output_blocks_2_2_conv.lora_up.weight",
                "lora_te1_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight",
                "lora_te2_text_model_encoder_layers_11_mlp_fc2.lora_up.weight",
            ],
        ),
        (
            "kohya-diffusers",
            [
                "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q.alpha",
                "lora_unet_up_blocks_0_upsamplers_0_conv.lora_up.weight",
                "lora_te1_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight",
            ],
        ),
        (
            "diffusers",
            [
                "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0.lora_A.weight",
                "unet.down_blocks.0.resnets.0.conv1.lora_B.weight",
                "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight",
                "text_encoder_2.text_model.encoder.layers.0.mlp.fc1.lora_B.weight",
            ],
        ),
        (
            "peft",
            [
                "base_model.model.unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
                ".lora_A.weight",
                "base_model.model.text_encoder.text_model.encoder.layers.0.self_attn.v_proj"
                ".lora_B.weight",
            ],
        ),
        (
            "diffusers-old",
            [
                "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.lora.down.weight",
                "text_encoder.text_model.encoder.layers.0.self_attn.v_proj.lora_linear_layer"
                ".up.weight",
            ],
        ),
        (
            "diffusers-processor",
            [
                "unet.mid_block.attentions.0.transformer_blocks.0.attn2.processor.to_k_lora"
                ".down.weight",
                "unet.mid_block.attentions.0.transformer_blocks.0.attn2.processor.to_out_lora"
                ".up.weight",
                "text_encoder.text_model.encoder.layers.0.self_attn.to_out_lora.down.weight",
            ],
        ),
    ],
)
def test_names_are_those_of_the_tools(naming, expected, targets, tmp_path):
    path = tmp_path / "file.safetensors"
    kind = "lora" if naming == "diffusers-processor" else "locon"
    write(path, targets, kind=kind, naming=naming)
    assert set(expected) <= names_of(path)


def test_norms_have_lycoris_names(targets, tmp_path):
    path = tmp_path / "file.safetensors"
    write(path, targets, kind="full", has_convolutions=True)
    names = names_of(path)
    assert {f"lora_unet_input_blocks_1_0_in_layers_0.{n}" for n in ("w_norm", "b_norm")} <= names
    assert {f"lora_unet_input_blocks_1_0_in_layers_2.{n}" for n in ("diff", "diff_b")} <= names


def test_magnitudes_have_pefts_shapes(targets, tmp_path):
    path = tmp_path / "file.safetensors"
    write(path, targets, kind="dora", naming="diffusers", has_convolutions=True)
    tensors = load_file(path)
    linear = "text_encoder.text_model.encoder.layers.0.mlp.fc1.lora_magnitude_vector"
    assert tensors[linear].shape == (128,)
    kernel = "unet.down_blocks.0.resnets.0.conv1.lora_magnitude_vector"
    assert tensors[kernel].shape == (1, 32, 1, 1)


def test_notes_are_those_that_the_tools_write(targets, tmp_path):
    path = tmp_path / "file.safetensors"

    def notes(**options) -> dict[str, str]:
        write(path, targets, rank=8, alpha=4.0, **options)
        with safe_open(path, "pt") as file:
            return file.metadata()

    kohya = notes(metadata={"modelspec.title": "Another"})
    assert (kohya["ss_network_dim"], kohya["ss_network_alpha"]) == ("8", "4.0")
    assert kohya["ss_base_model_version"] == "sdxl_base_v1-0"
    assert kohya["modelspec.title"] == "Another"
    diffusers = json.loads(
        notes(kind="dora", naming="diffusers", components=(Component.UNET,))[
            "lora_adapter_metadata"
        ]
    )
    assert (diffusers["unet.r"], diffusers["unet.lora_alpha"]) == (8, 4.0)
    assert diffusers["unet.use_dora"] is True
    assert {"to_q", "to_out.0"} <= set(diffusers["unet.target_modules"])
    assert all(key.startswith("unet.") for key in diffusers)
    assert notes(naming="peft") == {"format": "pt"}


def test_seed_decides_alone(targets, tmp_path):
    whole, other = tmp_path / "whole.safetensors", tmp_path / "other.safetensors"
    first = write(whole, targets, seed=3)
    assert write(other, targets, seed=3) == first
    assert write(other, targets, seed=4) != first
    write(other, targets, seed=3, components=(Component.TEXT_ENCODER_2,))
    every, part = load_file(whole), load_file(other)
    assert part
    assert {name.split("_")[1] for name in part} == {"te2"}
    assert all(torch.equal(tensor, every[name]) for name, tensor in part.items())


@pytest.mark.parametrize("dtype", list(CheckpointDtype))
def test_tensors_have_the_dtype_that_was_asked_for(dtype, targets, tmp_path):
    path = tmp_path / "file.safetensors"
    write(path, targets, dtype=dtype)
    for name, tensor in load_file(path).items():
        expected = torch.float32 if name.endswith(".alpha") else getattr(torch, dtype.value)
        assert tensor.dtype == expected
        assert bool(torch.isfinite(tensor).all())


@pytest.mark.parametrize(
    ("kind", "naming", "tucker"),
    [
        ("full", "diffusers", False),
        ("dora-columns", "peft", False),
        ("loha", "diffusers", False),
        ("locon", "diffusers-processor", False),
        ("locon", "peft", True),
    ],
)
def test_what_no_file_of_a_naming_holds_is_refused(kind, naming, tucker, targets, tmp_path):
    with pytest.raises(ValueError, match=f"No file in {naming} naming holds"):
        write(tmp_path / "file", targets, kind=kind, naming=naming, is_tucker=tucker)
    assert not (tmp_path / "file").exists()

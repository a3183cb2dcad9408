"""Pictures of the demo model with LoRAs of the field: none is accepted and does nothing.

Every file goes the whole way, by the import's command into a store, and into an engine. One that
states its alpha somewhere must draw what the same change draws that was worked out by hand.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import Store
from lpw_sdxl.addon.installed import find_installed
from lpw_sdxl.engine import Engine
from lpw_sdxl.lora.targets import read_targets
from lpw_sdxl.schema import GenerationRequest
from lpw_sdxl.settings import Settings
from lpw_sdxl.weights.component import Component
from stores import import_here
from tests.forge.lora import LoraOptions, write_lora
from tests.forge.lora_names import SyntheticNaming as Naming
from tests.forge.lora_names import tensor_name
from tests.forge.stated_alpha import STATEMENTS, write_reference, write_statement

from .test_effects import CASES, case_key

pytestmark = pytest.mark.thorough

CHANGED = 8
"""Grey levels by which a picture differs at least somewhere."""
STRONG = 4.0
Pictures = dict[str, np.ndarray]
Draw = Callable[..., Pictures]


@pytest.fixture
def home(demo_store: Store, tmp_path: Path) -> Store:
    return Store(shutil.copytree(demo_store.home, tmp_path / "bentoml"), demo_store.tag)


@pytest.fixture
def draw(home: Store) -> Draw:
    """Import files by their names, and draw one picture with each, and one with none as ''."""

    def draw_all(
        files: dict[str, tuple[Path, tuple[str, ...]]], kind: str = "lora", weight: float = 1.0
    ) -> Pictures:
        tags = {
            name: import_here(home.home, kind, *words, "--name", name, str(path))
            for name, (path, words) in files.items()
        }
        directories = [home.home / "models" / Path(*tag.split(":")) for tag in tags.values()]
        addons = find_installed(home.model_directory, directories)
        assert not addons.unusable
        engine = Engine.load(home.model_directory, Settings(device="cpu"), addons=addons)
        # The one without is first, and has the negative prompt encoded beside its own.
        prompts = dict.fromkeys(("", *files), "a red circle")
        if kind == "embedding":
            prompts |= {name: f"a red circle, {name}" for name in files}
            prompts[""] = "a red circle, two words"  # as long, and so is its negative prompt

        async def draw_one(name: str) -> np.ndarray:
            loras = [{"name": name, "weight": weight}] if name and kind == "lora" else []
            fields = {"prompt": prompts[name], "loras": loras, "num_inference_steps": 2, "seed": 7}
            size = {"width": 64, "height": 64}
            request = GenerationRequest.model_validate(fields | size)
            return (await engine.generate(request)).pixels.astype(int)

        async def draw_each() -> Pictures:  # one after another: a shared call may round otherwise
            return {name: await draw_one(name) for name in prompts}

        try:
            return asyncio.run(draw_each())
        finally:
            engine.close()

    return draw_all


def difference(one: np.ndarray, other: np.ndarray) -> int:
    return int(np.abs(one - other).max())


def test_stated_alphas_draw_what_the_change_by_hand_draws(draw: Draw, tmp_path: Path) -> None:
    files: dict[str, tuple[Path, tuple[str, ...]]] = {}
    references = {}
    for number, statement in enumerate(STATEMENTS.values()):
        path = write_statement(tmp_path / str(number), statement)
        files[f"own {number}"] = path, statement.words
        key = tuple(statement.right.items())
        if key not in references:
            references[key] = f"reference {len(references)}"
            reference = tmp_path / f"{references[key]}.safetensors"
            write_reference(reference, statement.right)
            files[references[key]] = reference, ()
    pictures = draw(files, weight=STRONG)
    for number, (name, statement) in enumerate(STATEMENTS.items()):
        right = pictures[references[tuple(statement.right.items())]]
        assert difference(pictures[f"own {number}"], right) == 0, name
        assert difference(pictures[f"own {number}"], pictures[""]) > CHANGED, name
    own = [pictures[reference].tobytes() for reference in references.values()]
    assert len(set(own)) == len(own)  # another scale is another picture


def test_every_kind_of_lora_changes_the_picture(draw: Draw, home: Store, tmp_path: Path) -> None:
    targets = read_targets(home.model_directory)
    files = {}
    for case in CASES:
        path = tmp_path / f"{case_key(case)}.safetensors"
        options = LoraOptions(
            kind=case.kind,
            naming=case.naming,
            has_convolutions=case.conv,
            is_tucker=case.tucker,
            alpha=case.alpha,
        )
        write_lora(path, targets, options)
        files[case_key(case)] = path, ()
    pictures = draw(files)
    for case in CASES:
        assert difference(pictures[case_key(case)], pictures[""]) > CHANGED, case_key(case)


def test_a_slider_in_a1111s_names_is_applied_whole(draw: Draw, home: Store, tmp_path: Path) -> None:
    """A module of some sliders' files is named by A1111's own name of the layer."""
    modules = {
        "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q": (
            "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
        ),
        "lora_unet_input_blocks_4_0_in_layers_2": "down_blocks.1.resnets.0.conv1",
        "diffusion_model_output_blocks_0_1_proj_in": "up_blocks.0.attentions.0.proj_in",
    }
    targets = read_targets(home.model_directory)[Component.UNET]
    generator = torch.Generator().manual_seed(2)
    tensors, reference = {}, {}
    for name, path in modules.items():
        out, *rest = targets[path].weight
        down = torch.randn(4, *rest, generator=generator)
        up = torch.randn(out, 4, generator=generator) * 2
        ones = (1,) * (len(rest) - 1)
        tensors |= {
            f"{name}.lora_down.weight": down,
            f"{name}.lora_up.weight": up.reshape(out, 4, *ones),
            f"{name}.alpha": torch.tensor(2.0),
        }
        reference[f"unet.{path}.diff"] = (0.5 * up @ down.flatten(1)).reshape(out, *rest)
    files = {}
    for name, content in (
        ("slider", tensors),
        ("reference", reference),
        ("own", {key: t for key, t in tensors.items() if key.startswith("diffusion_model_")}),
        ("others", {key: t for key, t in tensors.items() if key.startswith("lora_unet_")}),
    ):
        save_file(content, tmp_path / f"{name}.safetensors")
        files[name] = tmp_path / f"{name}.safetensors", ()
    pictures = draw(files, weight=STRONG)
    assert difference(pictures["slider"], pictures["reference"]) == 0
    # The module is one of those that the demo model draws least with.
    assert difference(pictures["slider"], pictures["others"]) > 0
    assert difference(pictures["own"], pictures[""]) > 0
    assert difference(pictures["others"], pictures[""]) > CHANGED


def test_what_is_left_out_leaves_the_picture(draw: Draw, home: Store, tmp_path: Path) -> None:
    plain = tmp_path / "plain.safetensors"
    write_lora(plain, read_targets(home.model_directory), LoraOptions())
    extra = dict.fromkeys(("v_pred", "ztsnr", "embedding_manager.a", "lora_unet_x.gate"), 1)
    lone = tensor_name(Naming.KOHYA, Component.UNET, "conv_in", "alpha")
    ones = {name: torch.ones(1) for name in (*extra, lone)}
    save_file(load_file(plain) | ones, tmp_path / "extra.safetensors")
    pictures = draw(
        {"plain": (plain, ()), "extra": (tmp_path / "extra.safetensors", ("--ignore-unknown",))}
    )
    assert difference(pictures["plain"], pictures["extra"]) == 0
    assert difference(pictures["plain"], pictures[""]) > CHANGED


def test_a_joined_embedding_draws_what_the_whole_one_draws(draw: Draw, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(4)
    first, second = (torch.randn(2, width, generator=generator) for width in (32, 64))
    save_file({"clip_l": first, "clip_g": second}, tmp_path / "whole.safetensors")
    save_file({"<token>": first}, tmp_path / "first.safetensors")
    save_file({"<token>": second}, tmp_path / "second.safetensors")
    files = {
        "one-file": (tmp_path / "whole.safetensors", ()),
        "two-files": (tmp_path / "first.safetensors", (str(tmp_path / "second.safetensors"),)),
    }
    pictures = draw(files, kind="embedding")
    assert difference(pictures["one-file"], pictures["two-files"]) == 0
    assert difference(pictures["one-file"], pictures[""]) > 0

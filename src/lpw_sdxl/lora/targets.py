"""The modules of a model that a LoRA can change: paths and shapes; no torch, no weights read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from lpw_sdxl.weights.component import Component
from lpw_sdxl.weights.header import read_header

Shape = tuple[int, ...]

INPUT_MODULE = "conv_in"
LATENT_INPUTS = 4

_WEIGHT = ".weight"
# Transformers 5.6 names the first encoder's table without the `text_model.` before it.
_EMBEDDING_TABLE = "embeddings.token_embedding"


class TargetModule(NamedTuple):
    """The shapes of one module's weight and bias; None for no bias."""

    weight: Shape
    bias: Shape | None


LORA_COMPONENTS = (Component.UNET, Component.TEXT_ENCODER, Component.TEXT_ENCODER_2)
"""The networks that a LoRA may change."""

TargetModules = Mapping[Component, Mapping[str, TargetModule]]
"""Every module that has a weight, by component and by its path within the component."""


def read_targets(model_directory: Path) -> TargetModules:
    """Read the modules of a model directory from the headers of its weight files.

    Raises:
        CheckpointError: a file is missing or damaged.
    """
    shapes = {}
    for component in LORA_COMPONENTS:
        file_name = component.weights_file
        tensors = read_header(model_directory / file_name).tensors
        shapes[component] = {name: tensor.shape for name, tensor in tensors.items()}
    return targets_of(shapes)


def targets_of(shapes: Mapping[Component, Mapping[str, Shape]]) -> TargetModules:
    """Return the modules that parameters of these names and shapes belong to, sorted by path.

    Models that differ only in the inputs that no LoRA changes have the same modules.
    """
    return {component: _modules(component, shapes[component]) for component in LORA_COMPONENTS}


def signature(targets: TargetModules) -> str:
    """Return the SHA-256 of all paths and shapes: models that agree in it take the same LoRAs."""
    listed = [
        (component.value, path, target.weight, target.bias)
        for component, modules in sorted(targets.items())
        for path, target in sorted(modules.items())
    ]
    return hashlib.sha256(json.dumps(listed, separators=(",", ":")).encode()).hexdigest()


def encoder_widths(targets: TargetModules) -> tuple[int, int]:
    """Return the widths of both text encoders' hidden states, in numbers a token."""
    first, second = (
        target.weight[1]
        for encoder in (Component.TEXT_ENCODER, Component.TEXT_ENCODER_2)
        for path, target in targets[encoder].items()
        if path.endswith(_EMBEDDING_TABLE)
    )
    return first, second


def latent_inputs(component: Component, path: str, weight: Shape) -> int | None:
    """Return how many inputs of a module a LoRA changes, where that is not all of them.

    An inpainting model's first convolution takes a mask and a picture behind the 4 channels of the
    latents. LoRAs are trained without, and change what is done with the latents, as in A1111.
    """
    is_first = component is Component.UNET and path == INPUT_MODULE
    return LATENT_INPUTS if is_first and len(weight) > 1 and weight[1] > LATENT_INPUTS else None


def _modules(component: Component, shapes: Mapping[str, Shape]) -> dict[str, TargetModule]:
    paths = sorted(name.removesuffix(_WEIGHT) for name in shapes if name.endswith(_WEIGHT))
    return {
        path: TargetModule(
            _changed_shape(component, path, shapes[path + _WEIGHT]), shapes.get(f"{path}.bias")
        )
        for path in paths
    }


def _changed_shape(component: Component, path: str, weight: Shape) -> Shape:
    inputs = latent_inputs(component, path, weight)
    return weight if inputs is None else (weight[0], inputs, *weight[2:])

"""Two hundred tensors that a checkpoint may have beside SDXL's own, drawn by a seed.

Junk, left-overs of trainers, names a letter away from real ones, names within each network.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

from lpw_sdxl.weights.dtypes import DTYPE_BYTES

COUNT = 200

_SHAPES = ((), (0,), (1,), (3,), (2, 0, 4), (1, 1, 5), (2, 2))
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCXYZ0123456789_-éü \u4f60"
_LEFT_OVERS = (
    "model_sampling.sigmas",
    "model_sampling.log_sigmas",
    "logvar",
    "scale_factor",
    "global_step",
    "epoch",
    "embedding_manager.string_to_param_dict.cat",
    "embedding_manager.initial_embeddings.cat",
    "discriminator.main.0.weight",
    "discriminator.main.11.bias",
    "loss.discriminator.main.0.weight",
    "cond_stage_model.transformer.text_model.embeddings.position_ids",
    "module.epoch",
    "state_dict.global_step",
    "optimizer.state.0.exp_avg",
    "lr_schedulers.0.last_epoch",
    "first_stage_modell.quant_conv.bias",
    "model.model.weight",
    "conditionerembedders.0",
    "unet",
)
WITHIN_NETWORKS = (
    "model.diffusion_model.",
    "diffusion_model.",
    "model.diffusion_model.input_blocks.7.1.transformer_blocks.0.",
    "first_stage_model.",
    "first_stage_model.decoder.mid.",
    "vae.",
    "conditioner.embedders.0.",
    "conditioner.embedders.0.transformer.text_model.encoder.layers.3.",
    "conditioner.embedders.1.model.transformer.resblocks.9.",
    "conditioner.embedders.2.",
    "text_encoders.clip_l.transformer.text_model.",
    "text_encoders.clip_g.",
    "text_encoders.t5xxl.",
    "unet.",
    "text_encoder_2.text_model.",
)


class ExtraTensor(NamedTuple):
    """A tensor's name, safetensors dtype code and shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]


def draw_extra_tensors(seed: int, own_names: Sequence[str]) -> list[ExtraTensor]:
    """Draw the tensors, whose names are neither a checkpoint's own nor each other's."""
    chance = random.Random(seed)
    names = dict.fromkeys(_LEFT_OVERS)
    while len(names) < COUNT:
        kind = len(names) % 4
        if kind == 0:
            name = _near(chance.choice(own_names), chance)
        elif kind == 1:
            name = chance.choice(WITHIN_NETWORKS) + _junk(chance)
        else:
            name = _junk(chance)
        if name not in own_names:
            names[name] = None
    dtypes = sorted(DTYPE_BYTES)
    return [ExtraTensor(name, chance.choice(dtypes), chance.choice(_SHAPES)) for name in names]


def _junk(chance: random.Random) -> str:
    parts = ("".join(chance.choices(_LETTERS, k=chance.randint(1, 9))) for _ in range(9))
    return ".".join(part for part, _ in zip(parts, range(chance.randint(1, 5)), strict=False))


def _near(name: str, chance: random.Random) -> str:
    """Change, double, drop or add one letter of a name."""
    at = chance.randrange(len(name))
    change = chance.choice(("x", name[at] * 2, "", "x" + name[at]))
    return name[:at] + change + name[at + 1 :]

"""LoRA files that state their alpha in one of the field's places, and the same worked out by hand.

Each has a companion, a full difference whose numbers are computed here in plain torch: both must
draw the same picture. Written apart from the code that reads such files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor

RANK = 4
_BLOCK = "down_blocks.1.attentions.0.transformer_blocks.0"
_LAYER = "encoder.layers.0.self_attn"


class Module(NamedTuple):
    """A module of the demo model: its network, its path, its matrix, and kohya's name of it."""

    network: str
    path: str
    shape: tuple[int, int]
    kohya: str

    @property
    def diffusers(self) -> str:
        return f"{self.network}.{self.path}"


QUERY = Module(
    "unet", f"{_BLOCK}.attn1.to_q", (64, 64), f"lora_unet_{_BLOCK}.attn1.to_q".replace(".", "_")
)
KEY = Module(
    "unet", f"{_BLOCK}.attn2.to_k", (64, 96), f"lora_unet_{_BLOCK}.attn2.to_k".replace(".", "_")
)
FIRST = Module(
    "text_encoder",
    f"text_model.{_LAYER}.v_proj",
    (32, 32),
    f"lora_te1_text_model_{_LAYER}_v_proj".replace(".", "_"),
)
SECOND = Module(
    "text_encoder_2",
    f"text_model.{_LAYER}.v_proj",
    (64, 64),
    f"lora_te2_text_model_{_LAYER}_v_proj".replace(".", "_"),
)
MODULES = (QUERY, KEY, FIRST, SECOND)

Scales = Mapping[Module, float]


def scales(unet: float, first: float | None = None, second: float | None = None) -> Scales:
    """Scales of the UNet's modules and of the encoders'; the UNet's for all where none is given."""
    first = unet if first is None else first
    return {QUERY: unet, KEY: unet, FIRST: first, SECOND: first if second is None else second}


@dataclass(frozen=True)
class Statement:
    """A way to state alpha.

    Attributes:
        right: what each module's product is multiplied by.
        header: plain keys.
        note: PEFT's configuration as Diffusers' JSON note.
        beside: PEFT's configuration as adapter_config.json.
        tensors: alphas as tensors, by module.
        is_kohya: kohya's names instead of Diffusers'.
        words: options of the import.
        row: how the import's row of alpha ends.
    """

    right: Scales
    row: str
    header: Mapping[str, str] = field(default_factory=dict)
    note: Mapping[str, object] | None = None
    beside: Mapping[str, object] | None = None
    tensors: Mapping[Module, float] = field(default_factory=dict)
    is_kohya: bool = False
    words: tuple[str, ...] = ()


def draw_factors(seed: int = 5) -> dict[Module, tuple[Tensor, Tensor]]:
    """Draw down [r, in] and up [out, r] of every module, in float32."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    return {
        module: (draw(RANK, module.shape[1]), draw(module.shape[0], RANK) * 0.03)
        for module in MODULES
    }


def write_statement(folder: Path, statement: Statement) -> Path:
    """Write a LoRA with its notes into a folder of its own, and return its path."""
    folder.mkdir()
    tensors: dict[str, Tensor] = {}
    for module, (down, up) in draw_factors().items():
        name, ends = module.diffusers, ("lora_A", "lora_B")
        if statement.is_kohya:
            name, ends = module.kohya, ("lora_down", "lora_up")
        tensors |= {f"{name}.{ends[0]}.weight": down, f"{name}.{ends[1]}.weight": up}
        if module in statement.tensors:
            tensors[f"{name}.alpha"] = torch.tensor(statement.tensors[module])
    notes = dict(statement.header)
    if statement.note is not None:
        notes["lora_adapter_metadata"] = json.dumps(statement.note)
    path = folder / "stated.safetensors"
    save_file(tensors, path, notes or None)
    if statement.beside is not None:
        (folder / "adapter_config.json").write_text(json.dumps(statement.beside))
    return path


def write_reference(path: Path, right: Scales) -> None:
    """Write the change that such a LoRA must make."""
    save_file(
        {
            f"{module.kohya}.diff": right[module] * (up @ down)
            for module, (down, up) in draw_factors().items()
        },
        path,
    )


_PEFT = {"peft_type": "LORA", "r": RANK, "lora_alpha": 16}
_BY_PEFT = "by adapter_config.json (SHA-256 "
_NETWORKS = ("unet", "text_encoder", "text_encoder_2")
_KEYS = ("lora_alpha", "network_alpha", "ss_network_alpha", "alpha")


def _plain() -> dict[str, Statement]:
    """Every plain key, for all networks and for each alone, under both conventions of names."""
    statements = {}
    for key in _KEYS:
        for is_kohya in (False, True):
            names = "kohya" if is_kohya else "Diffusers"
            statements[f"{key}, {names}"] = Statement(
                scales(4), f"16, by {key}", {key: "16"}, is_kohya=is_kohya
            )
        for number, network in enumerate(_NETWORKS):
            right = scales(*(4.0 if other == number else 1.0 for other in range(3)))
            statements[f"{network}.{key}"] = Statement(
                right,
                " modules not told, taken as the rank"
                if number
                else f"2 modules by {network}.{key}",
                {f"{network}.{key}": "16.0"},
            )
    return statements


STATEMENTS: dict[str, Statement] = {
    **_plain(),
    "a network's key before one of all": Statement(
        scales(4, 2, 2), "by lora_alpha", {"lora_alpha": "8", "unet.lora_alpha": "16"}
    ),
    "PEFT's keys one by one": Statement(
        scales(8),
        "32, by lora_alpha",
        {"r": "4", "lora_alpha": "16", "use_rslora": "True", "alpha_pattern": "{}"},
    ),
    "a plain pattern": Statement(
        {**scales(4), KEY: 2.0},
        "8, 16, by lora_alpha",
        {"lora_alpha": "16", "alpha_pattern": json.dumps({"attn2.to_k": 8})},
    ),
    "a number in quotes": Statement(scales(0.5), "2, by lora_alpha", {"lora_alpha": '"2"'}),
    "a negative number": Statement(scales(-1), "-4, by lora_alpha", {"lora_alpha": "-4"}),
    "nothing": Statement(scales(1), "alpha: not told, taken as the rank"),
    **{
        f"no number but {text!r}": Statement(
            scales(1), "alpha: not told, taken as the rank", {"lora_alpha": text}
        )
        for text in ("None", "Dynamic", "", "0", "nan", "inf", "1e99", "[]", "\x00")
    },
    "Diffusers' note": Statement(
        scales(4, 1, 0.5),
        "by lora_adapter_metadata",
        note={
            f"{network}.{key}": value
            for network, alpha in zip(_NETWORKS, (16, 4, 2), strict=True)
            for key, value in {"r": RANK, "lora_alpha": alpha}.items()
        },
    ),
    "a note before a key": Statement(
        scales(4, 2, 2),
        "lora_alpha states 8, which does not count",
        {"lora_alpha": "8"},
        note={"unet.r": RANK, "unet.lora_alpha": 16},
    ),
    "PEFT's file": Statement(scales(4), _BY_PEFT, beside=_PEFT),
    "PEFT's file with rsLoRA": Statement(scales(8), _BY_PEFT, beside=_PEFT | {"use_rslora": True}),
    "PEFT's file with patterns": Statement(
        {**scales(4), QUERY: 2.0},
        _BY_PEFT,
        beside=_PEFT
        | {
            "r": 99,
            "rank_pattern": {"to_q": RANK, "to_k": RANK, "v_proj": RANK},
            "alpha_pattern": {"attn1.to_q": 8},
        },
    ),
    "a key before PEFT's file": Statement(
        scales(2), "16, which does not count", {"lora_alpha": "8"}, beside=_PEFT
    ),
    "PEFT's file of another rank": Statement(
        scales(1), "both must agree.", beside=_PEFT | {"r": 8}
    ),
    "PEFT's file of another method": Statement(
        scales(1), "PEFT's 'LOHA', not of LORA.", beside=_PEFT | {"peft_type": "LOHA"}
    ),
    "PEFT's file beside kohya's names": Statement(
        scales(1), "alpha: not told, taken as the rank", beside=_PEFT, is_kohya=True
    ),
    "--alpha": Statement(scales(4), "16, by --alpha", words=("--alpha", "16")),
    "--alpha before a key": Statement(
        scales(4),
        "16, by --alpha; lora_alpha states 8, which does not count",
        {"lora_alpha": "8"},
        words=("--alpha", "16"),
    ),
    "tensors that agree with a note": Statement(
        scales(4),
        "alpha: 16",
        note={"r": RANK, "lora_alpha": 16},
        tensors=dict.fromkeys(MODULES, 16.0),
        is_kohya=True,
    ),
    "tensors that differ from a note": Statement(
        scales(2),
        "alpha: 8; lora_adapter_metadata states 16, which does not count",
        note={"r": RANK, "lora_alpha": 16},
        tensors=dict.fromkeys(MODULES, 8.0),
        is_kohya=True,
    ),
    "tensors that differ from a key": Statement(
        scales(2),
        "alpha: 8; ss_network_alpha states 1, which does not count",
        {"ss_network_alpha": "1"},
        tensors=dict.fromkeys(MODULES, 8.0),
        is_kohya=True,
    ),
    "tensors of two alphas, one of them a key's": Statement(
        {**scales(2), KEY: 1.0},
        "alpha: 4, 8",
        {"ss_network_alpha": "8"},
        tensors={**dict.fromkeys(MODULES, 8.0), KEY: 4.0},
        is_kohya=True,
    ),
    "tensors of one network, a key for the others": Statement(
        scales(2, 4, 4),
        "alpha: 8, 16; 2 modules by lora_alpha; 2 modules by their tensors; lora_alpha states 16, "
        "which does not count",
        {"lora_alpha": "16"},
        tensors={QUERY: 8.0, KEY: 8.0},
    ),
}
"""By name: every place and spelling, and what is right."""

"""PEFT's configuration of an adapter, as Diffusers keeps it in a file's metadata; no torch.

A Diffusers file has no tensor for alpha: without this configuration, alpha equals the rank.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from lpw_sdxl.errors import AddonError
from lpw_sdxl.lora.targets import LORA_COMPONENTS
from lpw_sdxl.weights.component import Component
from lpw_sdxl.weights.header import CheckpointHeader
from lpw_sdxl.weights.text import clean_text

_NOTE = "lora_adapter_metadata"
_CLIP = "text_model."
_MAX_NUMBER = 1e9
_PLAIN_PATTERN = re.compile(r"\^?[A-Za-z0-9_.]+")
# These initialisations change the base's weights: on an unchanged base, the factors have another
# effect (PEFT's documentation of `init_lora_weights`).
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq")


@dataclass(frozen=True)
class AdapterConfig:
    """PEFT's configuration of the modules of one component.

    Attributes:
        file: the file's name, for messages.
        rank: of modules that match no pattern.
        alpha: of modules that match no pattern.
        rank_patterns: ranks by the ends of module paths.
        alpha_patterns: alphas by the ends of module paths.
        has_root_scale: whether alpha is divided by the root of the rank (rsLoRA; Kalajdzievski,
            2023).
        is_dora: whether every module has a magnitude.
    """

    file: str
    rank: float
    alpha: float
    rank_patterns: Mapping[str, float]
    alpha_patterns: Mapping[str, float]
    has_root_scale: bool
    is_dora: bool

    def alpha_of(self, path: str, rank: int, *, has_magnitude: bool) -> float:
        """Return a module's alpha for the canonical file, where alpha / rank is the scale.

        Raises:
            AddonError: the tensors do not match the configuration.
        """
        configured = _match_pattern(self.rank_patterns, path, self.rank)
        if configured != rank:
            raise AddonError(
                f"{self.file}: the metadata says rank {configured:g} for {path} and its tensors "
                f"have {rank}; both must agree."
            )
        if self.is_dora and not has_magnitude:
            raise AddonError(
                f"{self.file}: the metadata says DoRA and {path} has no lora_magnitude_vector."
            )
        alpha = float(_match_pattern(self.alpha_patterns, path, self.alpha))
        return alpha * math.sqrt(rank) if self.has_root_scale else alpha


def read_adapter_configs(header: CheckpointHeader) -> Mapping[Component, AdapterConfig]:
    """Read the configurations in a file's metadata, by component; most files have none.

    Raises:
        AddonError: the note is not in Diffusers' format, or names a form that is not served.
    """
    if _NOTE not in header.metadata:
        return {}
    try:
        note = json.loads(header.metadata[_NOTE])
    except (ValueError, RecursionError) as error:
        raise AddonError(
            f"{header.name}: its note {_NOTE} is not the JSON it should be."
        ) from error
    if not isinstance(note, dict):
        raise AddonError(f"{header.name}: its note {_NOTE} is not a JSON object.")
    configs = {}
    for component in LORA_COMPONENTS:
        begin = f"{component.value}."
        entries = {key.removeprefix(begin): note[key] for key in note if key.startswith(begin)}
        if component is Component.UNET and "r" in note:
            entries = note  # a UNet's own file, by `save_lora_adapter`
        if entries:
            configs[component] = _config(header.name, entries)
    return configs


def _config(file: str, entries: Mapping[str, object]) -> AdapterConfig:
    kind = entries.get("peft_type", "LORA")
    if kind != "LORA":
        raise AddonError(f"{file}: its note {_NOTE} is of PEFT's {_quote(kind)}, not of LORA.")
    start = entries.get("init_lora_weights", True)
    if isinstance(start, str) and start.lower().startswith(_CHANGES_BASE):
        raise AddonError(
            f"{file} was trained with {_quote(start)}, which changes the base model; convert it "
            "to an ordinary LoRA with PEFT first."
        )
    return AdapterConfig(
        file=file,
        rank=_number(file, "r", entries.get("r")),
        alpha=_number(file, "lora_alpha", entries.get("lora_alpha")),
        rank_patterns=_patterns(file, "rank_pattern", entries.get("rank_pattern")),
        alpha_patterns=_patterns(file, "alpha_pattern", entries.get("alpha_pattern")),
        has_root_scale=entries.get("use_rslora") is True,
        is_dora=entries.get("use_dora") is True,
    )


def _patterns(file: str, name: str, patterns: object) -> dict[str, float]:
    """Return patterns that are ends of module paths; other regular expressions are refused.

    An unknown expression may take very long to match, and no tool writes one here.
    """
    if patterns is None:
        return {}
    if not isinstance(patterns, dict):
        _refuse(file, name, patterns)
    for pattern in patterns:
        if not _PLAIN_PATTERN.fullmatch(pattern):
            _refuse(file, name, pattern)
    return {pattern: _number(file, name, value) for pattern, value in patterns.items()}


def _number(file: str, name: str, value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        _refuse(file, name, value)
    if not 0 < abs(value) < _MAX_NUMBER:
        _refuse(file, name, value)
    return value


def _match_pattern(patterns: Mapping[str, float], path: str, otherwise: float) -> float:
    """Return the value of the first pattern that a path ends with, as PEFT matches them."""
    for pattern, value in patterns.items():
        whole = pattern.removeprefix("^")
        for spelling in (path, _CLIP + path):
            is_end = not pattern.startswith("^") and spelling.endswith(f".{whole}")
            if spelling == whole or is_end:
                return value
    return otherwise


def _refuse(file: str, name: str, value: object) -> NoReturn:
    raise AddonError(f"{file}: its note {_NOTE} has {name} {_quote(value)}, which can't be right.")


def _quote(value: object) -> str:
    return clean_text(repr(value))[:60]

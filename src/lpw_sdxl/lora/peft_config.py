"""PEFT's configuration of an adapter, in whichever of its three places; no torch.

Diffusers keeps it as a JSON note in a file's metadata, some tools as plain keys of the header, and
PEFT itself as adapter_config.json beside the file. A Diffusers file has no tensor for alpha:
without a configuration, alpha equals the rank.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from lpw_sdxl.errors import AddonError
from lpw_sdxl.lora.targets import LORA_COMPONENTS
from lpw_sdxl.weights.component import Component
from lpw_sdxl.weights.header import CheckpointHeader
from lpw_sdxl.weights.text import clean_text

CONFIG_FILE = "adapter_config.json"
_NOTE = "lora_adapter_metadata"
_ALPHA_KEYS = ("lora_alpha", "network_alpha", "ss_network_alpha", "alpha")
"""Plain keys of the header: PEFT's, Diffusers', sd-scripts', and the word itself."""
_MAX_FILE_BYTES = 1_000_000
_DIGEST_DIGITS = 12
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
        place: where it is, for messages, such as `lora_adapter_metadata` or `unet.lora_alpha`.
        rank: of modules that match no pattern; None if it is not stated.
        alpha: of modules that match no pattern.
        rank_patterns: ranks by the ends of module paths.
        alpha_patterns: alphas by the ends of module paths.
        has_root_scale: whether alpha is divided by the root of the rank (rsLoRA; Kalajdzievski,
            2023).
        is_dora: whether every module has a magnitude.
    """

    place: str
    rank: float | None
    alpha: float
    rank_patterns: Mapping[str, float]
    alpha_patterns: Mapping[str, float]
    has_root_scale: bool
    is_dora: bool

    def rank_of(self, path: str) -> float | None:
        """Return the rank that it states for a module; None if it states none."""
        found = _match_pattern(self.rank_patterns, path)
        return self.rank if found is None else found

    def alpha_of(self, path: str, rank: int) -> float:
        """Return a module's alpha for the canonical file, where alpha / rank is the scale."""
        found = _match_pattern(self.alpha_patterns, path)
        alpha = float(self.alpha if found is None else found)
        return alpha * math.sqrt(rank) if self.has_root_scale else alpha

    def check_module(self, file: str, path: str, rank: int, *, has_magnitude: bool) -> None:
        """Refuse a module whose tensors do not match the configuration.

        Raises:
            AddonError: they do not; the message begins with the file's name.
        """
        configured = self.rank_of(path)
        if configured is not None and configured != rank:
            raise AddonError(
                f"{file}: the metadata says rank {configured:g} for {path} and its tensors "
                f"have {rank}; both must agree."
            )
        if self.is_dora and not has_magnitude:
            raise AddonError(
                f"{file}: the metadata says DoRA and {path} has no lora_magnitude_vector."
            )


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
            configs[component] = _config(_Place(header.name, f"its note {_NOTE}", _NOTE), entries)
    return configs


def read_plain_configs(header: CheckpointHeader) -> Mapping[Component, AdapterConfig]:
    """Read alphas in plain keys of the header, by component, which may stand before the key.

    A key of a component goes before one of all. What is no number states nothing (`None` and
    `Dynamic` are usual).
    """
    configs = {}
    for component in LORA_COMPONENTS:
        for beginning in (f"{component.value}.", ""):
            config = _plain_config(header.metadata, beginning)
            if config is not None:
                configs[component] = config
                break
    return configs


def read_config_beside(path: Path) -> AdapterConfig | None:
    """Read PEFT's file beside a LoRA's; None if there is none, or none that is regular and small.

    Raises:
        AddonError: it is not PEFT's configuration of a LoRA.
    """
    config_path = path.with_name(CONFIG_FILE)
    try:
        found = config_path.stat()
        if not stat.S_ISREG(found.st_mode) or found.st_size > _MAX_FILE_BYTES:
            return None
        content = config_path.read_bytes()
        entries = json.loads(content)
    except OSError:
        return None
    except (ValueError, RecursionError) as error:
        raise AddonError(f"{CONFIG_FILE} is not the JSON it should be.") from error
    if not isinstance(entries, dict):
        raise AddonError(f"{CONFIG_FILE} is not a JSON object.")
    # The digest keeps an import apart from one that was made beside another configuration.
    digest = hashlib.sha256(content).hexdigest()[:_DIGEST_DIGITS]
    name = f"{CONFIG_FILE} (SHA-256 {digest}...)"
    return _config(_Place(CONFIG_FILE, CONFIG_FILE, name), entries)


@dataclass(frozen=True)
class _Place:
    """Where a configuration is: the file that a message begins with, a phrase, and a short name."""

    file: str
    phrase: str
    name: str


def _plain_config(metadata: Mapping[str, str], beginning: str) -> AdapterConfig | None:
    for key in _ALPHA_KEYS:
        alpha = _plain_number(metadata.get(beginning + key, ""))
        if alpha is not None:
            return AdapterConfig(
                place=beginning + key,
                rank=_plain_number(metadata.get(f"{beginning}r", "")),
                alpha=alpha,
                rank_patterns=_plain_patterns(metadata.get(f"{beginning}rank_pattern", "")),
                alpha_patterns=_plain_patterns(metadata.get(f"{beginning}alpha_pattern", "")),
                has_root_scale=_is_true(metadata.get(f"{beginning}use_rslora", "")),
                is_dora=False,
            )
    return None


def _plain_number(text: str) -> float | None:
    try:
        value = float(text.strip().strip('"'))
    except ValueError:
        return None
    return value if is_alpha(value) else None


def _plain_patterns(text: str) -> dict[str, float]:
    """Return patterns that are a JSON object in a text; none if it is something else."""
    place = _Place("", "", "")
    try:
        return _patterns(place, "", json.loads(text))
    except (ValueError, RecursionError, AddonError):
        return {}


def _is_true(text: str) -> bool:
    return text.strip().strip('"').lower() in ("true", "1")


def is_alpha(value: float) -> bool:
    """Return whether a number can be an alpha or a rank."""
    return 0 < abs(value) < _MAX_NUMBER


def _config(place: _Place, entries: Mapping[str, object]) -> AdapterConfig:
    kind = entries.get("peft_type", "LORA")
    if kind != "LORA":
        raise AddonError(f"{_begin(place)} is of PEFT's {_quote(kind)}, not of LORA.")
    start = entries.get("init_lora_weights", True)
    if isinstance(start, str) and start.lower().startswith(_CHANGES_BASE):
        raise AddonError(
            f"{place.file} was trained with {_quote(start)}, which changes the base model; convert "
            "it to an ordinary LoRA with PEFT first."
        )
    return AdapterConfig(
        place=place.name,
        rank=_number(place, "r", entries.get("r")),
        alpha=_number(place, "lora_alpha", entries.get("lora_alpha")),
        rank_patterns=_patterns(place, "rank_pattern", entries.get("rank_pattern")),
        alpha_patterns=_patterns(place, "alpha_pattern", entries.get("alpha_pattern")),
        has_root_scale=entries.get("use_rslora") is True,
        is_dora=entries.get("use_dora") is True,
    )


def _patterns(place: _Place, name: str, patterns: object) -> dict[str, float]:
    """Return patterns that are ends of module paths; other regular expressions are refused.

    An unknown expression may take very long to match, and no tool writes one here.
    """
    if patterns is None:
        return {}
    if not isinstance(patterns, dict):
        _refuse(place, name, patterns)
    for pattern in patterns:
        if not _PLAIN_PATTERN.fullmatch(pattern):
            _refuse(place, name, pattern)
    return {pattern: _number(place, name, value) for pattern, value in patterns.items()}


def _number(place: _Place, name: str, value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        _refuse(place, name, value)
    if not is_alpha(value):
        _refuse(place, name, value)
    return value


def _match_pattern(patterns: Mapping[str, float], path: str) -> float | None:
    """Return the value of the first pattern that a path ends with, as PEFT matches them."""
    for pattern, value in patterns.items():
        whole = pattern.removeprefix("^")
        for spelling in (path, _CLIP + path):
            is_end = not pattern.startswith("^") and spelling.endswith(f".{whole}")
            if spelling == whole or is_end:
                return value
    return None


def _refuse(place: _Place, name: str, value: object) -> NoReturn:
    raise AddonError(f"{_begin(place)} has {name} {_quote(value)}, which can't be right.")


def _begin(place: _Place) -> str:
    return place.file if place.file == place.phrase else f"{place.file}: {place.phrase}"


def _quote(value: object) -> str:
    return clean_text(repr(value))[:60]

"""The names of an upscaler's tensors in files, and in entries of the store; no torch.

ESRGAN's tensors have three sets of names: those of its first code, which numbers layers
(`model.1.sub.0.RDB1.conv1.0.weight`), those of BSRGAN and RealSR (`RRDB_trunk.0.RDB1.conv1.weight`)
and those of BasicSR (`body.0.rdb1.conv1.weight`), which the store has too.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from enum import StrEnum

PREFIXES = ("module.", "generator.", "params_ema.", "params.", "state_dict.")
"""What all names of a file may begin with: marks of the tools that trained or wrote it."""

_OLD_BLOCK = re.compile(r"model\.1\.sub\.(\d+)\.RDB(\d)\.conv(\d)\.0\.(weight|bias)")
_OLD_TRUNK = re.compile(r"model\.1\.sub\.(\d+)\.(weight|bias)")
_OLD_LAYER = re.compile(r"model\.(\d+)\.(weight|bias)")
_TRUNK_BLOCK = re.compile(r"RRDB_trunk\.(\d+)\.RDB(\d)\.conv(\d)\.(weight|bias)")
_TRUNK_LAYERS = {"trunk_conv": "conv_body", "HRconv": "conv_hr", "upconv": "conv_up"}
_LAYERS_AROUND_DOUBLINGS = 5
"""ESRGAN's layers of the first code but for the doublings, which are three layers each."""


class Naming(StrEnum):
    """Whose names a file's tensors have; the value is for readers."""

    FIRST = "ESRGAN's first ones"
    TRUNK = "BSRGAN's"
    BASIC = "BasicSR's"


def naming_of(names: Collection[str]) -> Naming:
    """Return whose names these are, without a common prefix."""
    if any(name.startswith("model.1.sub.") for name in names):
        return Naming.FIRST
    if any(name.startswith("RRDB_trunk.") for name in names):
        return Naming.TRUNK
    return Naming.BASIC


def without_prefix(names: Collection[str]) -> Mapping[str, str]:
    """Return names by what they are without a prefix that all of them have."""
    bare = {name: name for name in names}
    while prefix := next((one for one in PREFIXES if bare and _all_begin(bare, one)), None):
        bare = {short.removeprefix(prefix): name for short, name in bare.items()}
    return bare


def canonical(names: Collection[str]) -> Mapping[str, str]:
    """Return a file's names, without a prefix, by those that the store gives the tensors.

    A name that is not known stays as it is.
    """
    naming = naming_of(names)
    if naming is Naming.BASIC:
        return {name: name for name in names}
    if naming is Naming.TRUNK:
        return {_from_trunk(name): name for name in names}
    layers = [int(match[1]) for name in names if (match := _OLD_LAYER.fullmatch(name))]
    doublings = max(0, max(layers, default=0) + 1 - _LAYERS_AROUND_DOUBLINGS) // 3
    return {_from_first(name, doublings): name for name in names}


def _all_begin(names: Collection[str], prefix: str) -> bool:
    return all(name.startswith(prefix) for name in names)


def _from_trunk(name: str) -> str:
    if match := _TRUNK_BLOCK.fullmatch(name):
        return "body.{}.rdb{}.conv{}.{}".format(*match.groups())
    for theirs, ours in _TRUNK_LAYERS.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name


def _from_first(name: str, doublings: int) -> str:
    if match := _OLD_BLOCK.fullmatch(name):
        return "body.{}.rdb{}.conv{}.{}".format(*match.groups())
    if match := _OLD_TRUNK.fullmatch(name):
        return f"conv_body.{match[2]}"
    if match := _OLD_LAYER.fullmatch(name):
        layers = {3 * number: f"conv_up{number}" for number in range(1, doublings + 1)}
        layers |= {0: "conv_first", 3 * doublings + 2: "conv_hr", 3 * doublings + 4: "conv_last"}
        return f"{layers.get(int(match[1]), f'model.{match[1]}')}.{match[2]}"
    return name

"""What an upscaler's file is, from its tensors' names and shapes; reads no weights, and no torch.

The sizes are read where the network must have them, and every tensor is then held against the
shapes that follow from them: nothing may be missing, and nothing be there besides.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from lpw_sdxl.checkpoint.kinds import CheckpointKind, kind_of
from lpw_sdxl.errors import AddonError
from lpw_sdxl.upscaling.design import COLOURS, Design, Family, Shape
from lpw_sdxl.upscaling.names import canonical, naming_of, without_prefix
from lpw_sdxl.upscaling.other_kinds import other_kind_of
from lpw_sdxl.weights.dtypes import CheckpointDtype
from lpw_sdxl.weights.header import CheckpointHeader, TensorInfo
from lpw_sdxl.weights.text import clean_text, listed

DTYPES: Mapping[str, CheckpointDtype] = {
    "F16": CheckpointDtype.FLOAT16,
    "BF16": CheckpointDtype.BFLOAT16,
    "F32": CheckpointDtype.FLOAT32,
    "F64": CheckpointDtype.FLOAT32,
}
"""The dtype that is stored, by the source's."""
ESRGAN_SCALES = (1, 2, 4, 8)
UNSHUFFLES = (1, 2, 4)
COMPACT_SCALES = (1, 2, 3, 4)
MAX_CHANNELS = 512
MAX_BLOCKS = 128

_WHAT_IS_SERVED = "ESRGAN's family is: ESRGAN, Real-ESRGAN and the compact network"
_WHAT_IS_RIGHT = "an upscaler of ESRGAN's family is needed"
_BLOCK = re.compile(r"body\.(\d+)\.rdb1\.conv1\.weight")
_DOUBLING = re.compile(r"conv_up\d\.weight")
_LAYER = re.compile(r"body\.(\d{1,4})\.(?:weight|bias)")
_SHOWN = 80  # characters of a tensor's name
_NAMED_AT_MOST = 3
_KINDS = (CheckpointKind.UPSCALER, CheckpointKind.UNKNOWN)


@dataclass(frozen=True)
class UpscalerPlan:
    """The tensors that are stored, and where they come from.

    Attributes:
        header: of the source.
        design: the network's sizes.
        sources: the source's tensors, by the names that the store gives them.
        naming: whose names the file has.
    """

    header: CheckpointHeader
    design: Design
    sources: Mapping[str, TensorInfo]
    naming: str


def is_upscaler(header: CheckpointHeader) -> bool:
    """Return whether a file is an upscaler, served or not, as far as its names show."""
    found = kind_of(header.tensors, header.metadata)
    if found is not CheckpointKind.UNKNOWN:
        return found is CheckpointKind.UPSCALER
    names = without_prefix(header.tensors)
    return bool(other_kind_of(names)) or _family(canonical(names)) is not None


def examine(header: CheckpointHeader) -> UpscalerPlan:
    """Find the network that a file holds.

    Raises:
        AddonError: it is no upscaler, or one that is not served, or a shape or dtype is wrong.
    """
    bare = without_prefix(header.tensors)
    names = canonical(bare)
    family = _family(names)
    other = other_kind_of(bare)
    found = kind_of(header.tensors, header.metadata)
    if family is None or other or found not in _KINDS:
        _refuse_other(header, other, found)
    sources = {name: header.tensors[bare[theirs]] for name, theirs in names.items()}
    design = read_design({name: info.shape for name, info in sources.items()}, header.name)
    _check_names(header.name, design, sources, lost=len(bare) - len(sources))
    _check_tensors(header.name, design, sources)
    naming = naming_of(bare) if family is Family.ESRGAN else ""
    return UpscalerPlan(header, design, sources, naming)


def read_design(shapes: Mapping[str, Shape], file: str) -> Design:
    """Return the sizes of a network, of whose tensors none is checked but those that decide.

    Args:
        shapes: of its tensors, by the names that the store gives them.
        file: its name, for a refusal.

    Raises:
        AddonError: they are those of no network that is served.
    """
    read = _esrgan if _family(shapes) is Family.ESRGAN else _compact
    design = read(shapes, file)
    sizes = (
        ("channels", design.channels, MAX_CHANNELS),
        ("channels of growth", design.growth, MAX_CHANNELS),
        ("blocks", design.blocks, MAX_BLOCKS),
    )
    for what, size, most in sizes:
        if size > most:
            raise AddonError(f"{file} has {size} {what}; at most {most} would be right.")
    return design


def _family(names: Mapping[str, object]) -> Family | None:
    """Return the network that has tensors of these names; None for no such."""
    if {"conv_first.weight", "body.0.rdb1.conv1.weight"} <= names.keys():
        return Family.ESRGAN
    if {"body.0.weight", "body.1.weight", "body.2.weight"} <= names.keys():
        return Family.COMPACT
    return None


def _esrgan(shapes: Mapping[str, Shape], file: str) -> Design:
    channels, inputs = _convolution(shapes, "conv_first.weight", file)
    growth, _ = _convolution(shapes, "body.0.rdb1.conv1.weight", file)
    blocks = sum(_BLOCK.fullmatch(name) is not None for name in shapes)
    doublings = sum(_DOUBLING.fullmatch(name) is not None for name in shapes)
    unshuffle = {COLOURS * side**2: side for side in UNSHUFFLES}.get(inputs)
    if unshuffle is None:
        raise AddonError(
            f"{file} takes pictures of {inputs} channels; 3 would be right, or 12 or 48 where "
            "pixels are unshuffled."
        )
    scale = 2**doublings // unshuffle
    if scale not in ESRGAN_SCALES:
        raise AddonError(
            f"{file} enlarges {2**doublings} times what it made {unshuffle} times smaller; the "
            f"scales {_listed(ESRGAN_SCALES)} are served."
        )
    return Design(Family.ESRGAN, scale, channels, blocks, growth, unshuffle)


def _compact(shapes: Mapping[str, Shape], file: str) -> Design:
    channels, _ = _convolution(shapes, "body.0.weight", file)
    layers = [int(match[1]) for name in shapes if (match := _LAYER.fullmatch(name))]
    last = max(layers, default=0)
    outputs, _ = _convolution(shapes, f"body.{last}.weight", file)
    scale = {COLOURS * side**2: side for side in COMPACT_SCALES}.get(outputs)
    if scale is None:
        raise AddonError(
            f"{file} is a compact network with {outputs} channels at its end; 3, 12, 27 or 48 "
            f"would be right, for the scales {_listed(COMPACT_SCALES)}."
        )
    return Design(Family.COMPACT, scale, channels, (last - 2) // 2)


def _convolution(shapes: Mapping[str, Shape], name: str, file: str) -> tuple[int, int]:
    """Return outputs and inputs of a convolution that decides on sizes."""
    shape = shapes.get(name, ())
    if len(shape) != 4:
        raise AddonError(
            f"{file}: {name} has the shape {list(shape)}; [outputs, inputs, 3, 3] would be right."
        )
    return shape[0], shape[1]


def _check_names(
    file: str, design: Design, sources: Mapping[str, TensorInfo], *, lost: int
) -> None:
    """Refuse a file that lacks a tensor of its network, or has one more.

    Args:
        file: its name.
        design: of the network.
        sources: the file's tensors, by the names that the store gives them.
        lost: how many it has besides, under second names of these.

    Raises:
        AddonError: it does.
    """
    right = design.shapes()
    missing = sorted(right.keys() - sources.keys())
    extra = sorted(clean_text(sources[name].name) for name in sources.keys() - right.keys())
    network = f"network of {design.family} with {design.blocks} blocks"
    if extra or lost:
        what = listed(extra, _NAMED_AT_MOST) or "second names of its tensors"
        raise AddonError(
            f"{file} is no {network}, which has no place for {what}; {_WHAT_IS_SERVED}."
        )
    if missing:
        raise AddonError(
            f"{file} is a {network} that lacks {listed(missing, _NAMED_AT_MOST)}; get another copy."
        )


def _check_tensors(file: str, design: Design, sources: Mapping[str, TensorInfo]) -> None:
    """Refuse a tensor of another shape or dtype than its network needs.

    Raises:
        AddonError: there is one.
    """
    right = design.shapes()
    for name, info in sources.items():
        shown = clean_text(info.name)[:_SHOWN]
        if info.shape != right[name]:
            raise AddonError(
                f"{file}: {shown} has the shape {list(info.shape)}; {list(right[name])} would be "
                f"right in this {design.family} network."
            )
        if info.dtype not in DTYPES:
            raise AddonError(
                f"{file}: {shown} has the dtype {info.dtype}; F32, F16 or BF16 would be right."
            )


def _listed(scales: Sequence[int]) -> str:
    return f"{', '.join(map(str, scales[:-1]))} and {scales[-1]}"


def _refuse_other(header: CheckpointHeader, other: str, found: CheckpointKind) -> NoReturn:
    """Name what is no upscaler that is served."""
    if other and found in _KINDS:
        raise AddonError(f"{header.name} is {other}, which is not served; {_WHAT_IS_SERVED}.")
    if found is CheckpointKind.UPSCALER:
        raise AddonError(
            f"{header.name} is an upscaler of another network, which is not served; "
            f"{_WHAT_IS_SERVED}."
        )
    what = "no upscaler that we know" if found is CheckpointKind.UNKNOWN else found.title
    raise AddonError(f"{header.name} is {what}; {_WHAT_IS_RIGHT}.")

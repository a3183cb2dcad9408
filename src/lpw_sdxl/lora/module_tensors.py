"""One module's tensors as a file has them, and how a refusal names one of them; pure, no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn

from lpw_sdxl.errors import AddonError
from lpw_sdxl.lora.names import Factor
from lpw_sdxl.weights.header import TensorInfo
from lpw_sdxl.weights.text import clean_text

ModuleTensors = Mapping[Factor, TensorInfo]
"""One module's tensors."""

_LONGEST_NAME = 200


def size_of(tensor: TensorInfo, dimension: int) -> int:
    """Return one size of a factor.

    Raises:
        AddonError: the tensor has too few dimensions, or no numbers.
    """
    if len(tensor.shape) <= dimension or 0 in tensor.shape:
        refuse_shape(tensor, "it needs two dimensions and more, none of them 0")
    return tensor.shape[dimension]


def refuse_shape(tensor: TensorInfo, right: str) -> NoReturn:
    """Refuse a tensor's shape, and say what would be right."""
    raise AddonError(f"{named(tensor)} has the shape {list(tensor.shape)}; {right}.")


def refuse_dtype(tensor: TensorInfo, right: str) -> NoReturn:
    """Refuse a tensor's dtype, and say what would be right."""
    raise AddonError(f"{named(tensor)} has the dtype {tensor.dtype}; {right}.")


def named(tensor: TensorInfo) -> str:
    """Name a tensor and its file, as a sentence begins with them."""
    return f"{clean_text(tensor.path.name.removesuffix('.part'))}: tensor {shown(tensor.name)}"


def shown(name: str) -> str:
    """Return a tensor's name as far as a sentence shows it."""
    return clean_text(name)[:_LONGEST_NAME]

"""One tensor of a LoRA file, and refusals that name it; pure, no torch."""

from __future__ import annotations

from typing import NoReturn

from lpw_sdxl.errors import AddonError
from lpw_sdxl.weights.header import TensorInfo
from lpw_sdxl.weights.text import clean_text

_MAX_NAME_CHARACTERS = 200


def size_of(tensor: TensorInfo, dimension: int) -> int:
    """Return the length of one dimension of a factor.

    Raises:
        AddonError: the tensor has too few dimensions, or no elements.
    """
    if len(tensor.shape) <= dimension or 0 in tensor.shape:
        refuse_shape(tensor, "it needs two dimensions and more, none of them 0")
    return tensor.shape[dimension]


def refuse_shape(tensor: TensorInfo, right: str) -> NoReturn:
    """Refuse a tensor's shape; `right` states what would be right."""
    raise AddonError(f"{describe_tensor(tensor)} has the shape {list(tensor.shape)}; {right}.")


def refuse_dtype(tensor: TensorInfo, right: str) -> NoReturn:
    """Refuse a tensor's dtype; `right` states what would be right."""
    raise AddonError(f"{describe_tensor(tensor)} has the dtype {tensor.dtype}; {right}.")


def describe_tensor(tensor: TensorInfo) -> str:
    """Return the beginning of a sentence, which names a tensor and its file."""
    return f"{clean_text(tensor.path.name.removesuffix('.part'))}: tensor {shorten(tensor.name)}"


def shorten(name: str) -> str:
    """Return a tensor's name, cleaned and shortened for a message."""
    return clean_text(name)[:_MAX_NAME_CHARACTERS]

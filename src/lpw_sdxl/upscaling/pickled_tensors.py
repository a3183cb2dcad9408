"""The tensors of a file of torch's own, `.pth`, which is a pickle: nothing of it is run.

It is read with torch's `weights_only`, at an import alone and never when requests are served. What
that refuses is refused.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from lpw_sdxl.errors import AddonError
from lpw_sdxl.upscaling.pickles import MAX_PICKLE_BYTES
from lpw_sdxl.weights.header import CheckpointHeader, TensorInfo
from lpw_sdxl.weights.tensors import TORCH_DTYPES
from lpw_sdxl.weights.text import clean_text

HOLDERS = ("params_ema", "params", "state_dict")
"""Where training code puts a network's tensors, in the order in which one is taken."""

_CODES = {dtype: code for code, dtype in TORCH_DTYPES.items()}
_WHAT_IS_RIGHT = "its .safetensors version would be right"


def read_pickle_header(path: Path) -> CheckpointHeader:
    """Return what the header of the same tensors in safetensors would have; of no notes.

    The tensors' places in the file are not known.

    Raises:
        AddonError: as in `read_tensors`.
    """
    tensors = read_tensors(path)
    name = clean_text(path.name)
    infos = {}
    for key, tensor in tensors.items():
        if tensor.dtype not in _CODES:
            shown = clean_text(key)[:80]
            raise AddonError(
                f"{name}: tensor {shown} has the dtype {tensor.dtype}; {_WHAT_IS_RIGHT}."
            )
        infos[key] = TensorInfo(path, key, _CODES[tensor.dtype], tuple(tensor.shape), 0, 0)
    return CheckpointHeader(path, path.stat().st_size, {}, infos)


def read_tensors(path: Path) -> Mapping[str, Tensor]:
    """Read a pickle's tensors; what else it holds is left out.

    Raises:
        AddonError: it holds more than tensors and plain values, no tensors, or is damaged.
    """
    name = clean_text(path.name)
    size = path.stat().st_size
    if size > MAX_PICKLE_BYTES or _unpacked_bytes(path) > MAX_PICKLE_BYTES:
        raise AddonError(
            f"{name} is a pickle of over {MAX_PICKLE_BYTES:,} bytes, and no upscaler has as many; "
            f"{_WHAT_IS_RIGHT}."
        )
    try:
        with path.open("rb") as file:  # by a name, torch would choose another format
            content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise AddonError(
            f"{name} is a pickle that holds more than tensors, or is damaged, and nothing of a "
            f"pickle is run; {_WHAT_IS_RIGHT}."
        ) from error
    except Exception as error:  # a damaged or foreign file may raise anything
        raise AddonError(f"{name} is no file that torch can read; {_WHAT_IS_RIGHT}.") from error
    tensors = _tensors(content)
    if not tensors:
        raise AddonError(f"{name} is a pickle without tensors; {_WHAT_IS_RIGHT}.")
    # Views of a few numbers may pass for huge tensors.
    if sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) > size:
        raise AddonError(f"{name} has tensors that are larger than the file; {_WHAT_IS_RIGHT}.")
    return tensors


def _tensors(content: object) -> dict[str, Tensor]:
    """Return the tensors of a pickle, from the holder within it that comes first."""
    while isinstance(content, dict):
        holder = next((key for key in HOLDERS if isinstance(content.get(key), dict)), None)
        if holder is None:
            break
        content = content[holder]
    if not isinstance(content, dict):
        return {}
    return {
        key: value.detach()
        for key, value in content.items()
        if isinstance(key, str) and isinstance(value, Tensor) and value.layout is torch.strided
    }


def _unpacked_bytes(path: Path) -> int:
    """Return what an archive's files take unpacked; 0 for what is no archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            return sum(entry.file_size for entry in archive.infolist())
    except (OSError, zipfile.BadZipFile):
        return 0

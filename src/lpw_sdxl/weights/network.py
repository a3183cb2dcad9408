"""Networks whose weights are those of a file, mapped into memory: nothing is copied or drawn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch

from lpw_sdxl.errors import CheckpointError, ModelError
from lpw_sdxl.weights.header import TensorInfo, read_header
from lpw_sdxl.weights.tensors import TORCH_DTYPES

Network = TypeVar("Network", bound=torch.nn.Module)


def load_network(
    build: Callable[[], Network],
    file: Path,
    dtype: torch.dtype,
    rename: Callable[[str], str] = str,
) -> Network:
    """Build a network and give it the weights of a safetensors file.

    It is built on torch's `meta` device, so that no memory is filled with random numbers first. The
    libraries' own loaders can do more than SDXL needs, and take several times as long.

    Args:
        build: makes the network.
        file: has all of its weights; what else is there is left out.
        dtype: of the network; weights of another one are copied, which takes memory and time.
        rename: returns the network's name of a weight for the file's.

    Returns:
        The network, for inference. Buffers that are in no file stay on `meta`.

    Raises:
        ModelError: the file can't be read, lacks a weight, or has one of another shape.
    """
    with torch.device("meta"):
        network = build()
    own = network.state_dict()
    folder = file.parent.name
    try:
        found = {rename(name): tensor for name, tensor in map_tensors(file).items()}
    except CheckpointError as error:
        raise _unusable(folder, "can't be read") from error
    both = own.keys() & found.keys()
    for fault, names in (
        ("lacks tensors", own.keys() - both),
        ("has tensors of other shapes", {n for n in both if own[n].shape != found[n].shape}),
    ):
        if names:
            raise _unusable(folder, f"{fault} ({len(names)}, such as {min(names)})")
    network.load_state_dict({name: found[name].to(dtype) for name in own}, assign=True)
    return network.eval().requires_grad_(requires_grad=False)


def map_tensors(file: Path) -> dict[str, torch.Tensor]:
    """Return a safetensors file's tensors, which are read when they are first touched.

    The mapping is private: what is written to a tensor never comes to the file.

    Raises:
        CheckpointError: the file is missing, unreadable or damaged.
    """
    header = read_header(file)
    storage: Any = torch.UntypedStorage.from_file(str(file), shared=False, nbytes=header.file_size)
    content = torch.empty(0, dtype=torch.uint8, device="cpu").set_(storage)  # [bytes of the file]
    return {one.name: _view(content, one) for one in header.tensors.values()}


def _view(content: torch.Tensor, info: TensorInfo) -> torch.Tensor:
    dtype = TORCH_DTYPES[info.dtype]
    values = content[info.start : info.end]
    if info.start % dtype.itemsize:  # torch has no views of such; other programs write such files
        values = values.clone()
    return values.view(dtype).view(info.shape)


def _unusable(folder: str, fault: str) -> ModelError:
    return ModelError(f"{folder}/ of the model directory {fault}; import the checkpoint again")

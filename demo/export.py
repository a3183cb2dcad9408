"""Export of trained networks as a single-file checkpoint in SDXL's original layout.

The names come from the import's own table, read backwards.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from demo.networks import NATIVE_SIZE, Networks
from demo.words import WordEmbedding
from lpw_sdxl.checkpoint.inspect import V_PREDICTION_MARKER, ZERO_SNR_MARKER
from lpw_sdxl.checkpoint.keys import Transform, sources_of
from lpw_sdxl.checkpoint.kinds import POSITION_IDS
from lpw_sdxl.checkpoint.tokenizer_files import MAX_LENGTH
from lpw_sdxl.weights.tensors import tensor_bytes
from lpw_sdxl.weights.writer import TensorSpec, write_safetensors

_DTYPES = {torch.float16: "F16", torch.int64: "I64"}


def write_checkpoint(path: Path, networks: Networks, title: str) -> str:
    """Write the networks in float16, marked as v-prediction with zero SNR; return the SHA-256."""
    tensors = original_tensors(networks)
    tensors[V_PREDICTION_MARKER] = torch.zeros(0)
    tensors[ZERO_SNR_MARKER] = torch.zeros(0)
    tensors = {name: tensor.half() for name, tensor in sorted(tensors.items())}
    metadata = {
        "modelspec.title": title,
        "modelspec.author": "LPW-SDXL",
        "modelspec.license": "Apache-2.0",
        "modelspec.resolution": f"{NATIVE_SIZE.width}x{NATIVE_SIZE.height}",
        "modelspec.prediction_type": "v",
    }
    return write_tensors(path, {POSITION_IDS: torch.arange(MAX_LENGTH)[None]} | tensors, metadata)


def write_tensors(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> str:
    """Write a safetensors file, the same bytes for the same contents; return the SHA-256.

    A file that is there stays until the new one is whole.
    """
    tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    specs = [
        TensorSpec(name, _DTYPES[tensor.dtype], tuple(tensor.shape))
        for name, tensor in tensors.items()
    ]
    new = path.with_suffix(".new")
    sha256 = write_safetensors(new, specs, map(tensor_bytes, tensors.values()), metadata).sha256
    new.replace(path)
    return sha256


@torch.no_grad()
def read_checkpoint(path: Path, networks: Networks) -> None:
    """Load networks from the file of `write_checkpoint`; their dtype stays float32."""
    tensors = load_file(path)
    for component, module in networks.modules.items():
        own = dict(module.named_parameters())
        for key, target in _state(module).items():
            source = sources_of(component, key)[0]
            value = _taken(tensors[source.key], source.transform).to(target)
            assert value.shape == target.shape, key
            if key in own:
                own[key].copy_(value)
            else:
                _embedding(module).take_table(value)


@torch.no_grad()
def original_tensors(networks: Networks) -> dict[str, torch.Tensor]:
    """Return every tensor by its name in the original layout."""
    found: dict[str, torch.Tensor] = {}
    thirds: dict[str, dict[int, torch.Tensor]] = {}
    for component, module in networks.modules.items():
        for key, tensor in _state(module).items():
            source = sources_of(component, key)[0]
            if source.transform.third is not None:
                thirds.setdefault(source.key, {})[source.transform.third] = tensor
            else:
                found[source.key] = _given(tensor, source.transform)
    for name, parts in thirds.items():
        found[name] = torch.cat([parts[third] for third in range(3)])
    return found


def _given(tensor: torch.Tensor, transform: Transform) -> torch.Tensor:
    """Turn a target back into its source."""
    if transform is Transform.TRANSPOSE:
        return tensor.T
    return tensor[..., None, None] if transform is Transform.POINTWISE_TO_LINEAR else tensor


def _taken(tensor: torch.Tensor, transform: Transform) -> torch.Tensor:
    """Turn a source into its target."""
    if transform.third is not None:
        return tensor.chunk(3)[transform.third]
    if transform is Transform.TRANSPOSE:
        return tensor.T
    return tensor[..., 0, 0] if transform is Transform.POINTWISE_TO_LINEAR else tensor


def _state(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return a module's parameters by name; the table of few words becomes that of all tokens."""
    state: dict[str, torch.Tensor] = dict(module.named_parameters())
    for name, child in module.named_modules():
        if isinstance(child, WordEmbedding):
            state.pop(f"{name}.rows")
            state[f"{name}.weight"] = child.full_table()
    return state


def _embedding(module: torch.nn.Module) -> WordEmbedding:
    [embedding] = [child for child in module.modules() if isinstance(child, WordEmbedding)]
    return embedding

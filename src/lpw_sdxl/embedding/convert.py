"""The file of an embedding as the store keeps it: `text_encoder` [k, d] and `text_encoder_2`."""

from __future__ import annotations

from pathlib import Path

import torch

from lpw_sdxl.embedding.preflight import DTYPES, EmbeddingPlan
from lpw_sdxl.errors import AddonError
from lpw_sdxl.weights.header import TensorInfo, read_header
from lpw_sdxl.weights.progress import Progress
from lpw_sdxl.weights.tensors import TORCH_DTYPES, is_finite, tensor_bytes
from lpw_sdxl.weights.text import clean_text
from lpw_sdxl.weights.writer import TensorSpec, write_safetensors

NAMES = ("text_encoder", "text_encoder_2")
"""Names of the tensors in the stored file: the folders of their encoders in a model directory."""


def convert(plan: EmbeddingPlan, path: Path, progress: Progress) -> None:
    """Write an embedding and read it back.

    Raises:
        AddonError: a value is NaN or infinite, or the file changed meanwhile.
    """
    tensors = [*load(plan).values()]
    total = sum(tensor.nbytes for tensor in tensors)
    progress("convert", 0, total)
    specs = [
        TensorSpec(name, DTYPES[info.dtype], tuple(tensor.shape))
        for name, info, tensor in zip(NAMES, plan.tensors, tensors, strict=True)
    ]
    write_safetensors(path, specs, map(tensor_bytes, tensors), {"format": "pt"})
    written = read_header(path).tensors
    for name, tensor in zip(NAMES, tensors, strict=True):
        info = written[name]
        if (info.shape, _bytes(info)) != (tuple(tensor.shape), bytes(tensor_bytes(tensor))):
            raise AddonError(f"The import failed: {name} reads back as other bytes than written.")
    progress("convert", total, total)


def load(plan: EmbeddingPlan) -> dict[str, torch.Tensor]:
    """Read an embedding's tensors, by the names that the store gives them.

    Raises:
        AddonError: a value is NaN or infinite, or the file changed meanwhile.
    """
    tensors = (_read(info).reshape(plan.vectors, -1) for info in plan.tensors)
    return dict(zip(NAMES, tensors, strict=True))


def _read(info: TensorInfo) -> torch.Tensor:
    """Return a tensor of the source in the dtype that is stored, contiguous."""
    content = bytearray(_bytes(info))
    if len(content) != info.end - info.start:
        raise AddonError(f"{info.path.name} changed while it was read; import it again.")
    dtype = TORCH_DTYPES[DTYPES[info.dtype]]
    tensor = torch.frombuffer(content, dtype=TORCH_DTYPES[info.dtype]).reshape(info.shape)
    tensor = tensor.to(dtype)
    # Float16 is what the text encoders run in: one that can't hold it would keep it from starting.
    if not is_finite(tensor.to(torch.float16)):
        name = clean_text(info.name)[:80]
        raise AddonError(
            f"{info.path.name} is damaged: tensor {name} holds NaN or infinity, or a number too "
            "large for its dtype; get another copy."
        )
    return tensor


def _bytes(info: TensorInfo) -> bytes:
    with info.path.open("rb") as file:
        file.seek(info.start)
        return file.read(info.end - info.start)

"""An upscaler's tensors, read from its file and written as the store keeps them.

Numbers stay the source's bit for bit; only float64 becomes float32.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from lpw_sdxl.errors import AddonError
from lpw_sdxl.upscaling.pickled_tensors import read_tensors
from lpw_sdxl.upscaling.preflight import DTYPES, UpscalerPlan
from lpw_sdxl.weights.header import TensorInfo, read_header
from lpw_sdxl.weights.progress import Progress
from lpw_sdxl.weights.tensors import TensorReader, cast_finite, tensor_bytes
from lpw_sdxl.weights.writer import TensorSpec, write_safetensors


def load(plan: UpscalerPlan, *, is_pickle: bool = False) -> dict[str, Tensor]:
    """Read the network's tensors, by the names that the store gives them.

    Args:
        plan: of its file.
        is_pickle: whether that is a pickle; nothing else decides that one is read.

    Raises:
        CheckpointError: one holds NaN or infinity, or the file changed meanwhile.
        AddonError: likewise, of a pickle.
    """
    if is_pickle:
        found = read_tensors(plan.header.path)
        if any(info.name not in found for info in plan.sources.values()):
            raise AddonError(f"{plan.header.name} changed while it was read; import it again.")
        return {
            name: _cast(found[info.name], info).contiguous().clone()
            for name, info in plan.sources.items()
        }
    with TensorReader() as reader:
        return {name: _cast(reader.read(info), info).clone() for name, info in plan.sources.items()}


def convert(plan: UpscalerPlan, path: Path, progress: Progress, *, is_pickle: bool = False) -> None:
    """Write the network's tensors and read them back.

    Args:
        plan: of its file.
        path: to be written.
        progress: called with the bytes that are done.
        is_pickle: as in `load`.

    Raises:
        CheckpointError: one holds NaN or infinity, or the source changed meanwhile.
        AddonError: likewise, of a pickle; or the written file differs from what was to be written.
    """
    tensors = load(plan, is_pickle=is_pickle)
    total = sum(tensor.nbytes for tensor in tensors.values())
    progress("convert", 0, total)
    specs = [
        TensorSpec(name, DTYPES[plan.sources[name].dtype].code, tuple(tensor.shape))
        for name, tensor in tensors.items()
    ]
    # This entry marks tensors in torch's layout, by safetensors' convention.
    write_safetensors(path, specs, map(tensor_bytes, tensors.values()), {"format": "pt"})
    written = read_header(path).tensors
    with TensorReader() as reader:
        for name, tensor in tensors.items():
            if bytes(tensor_bytes(reader.read(written[name]))) != bytes(tensor_bytes(tensor)):
                raise AddonError(
                    f"The import failed: {name} reads back as other bytes than written."
                )
    progress("convert", total, total)


def _cast(tensor: Tensor, info: TensorInfo) -> Tensor:
    return cast_finite(tensor, DTYPES[info.dtype], info)

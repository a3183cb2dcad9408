"""Conversion of a LoRA file in any naming to the canonical file, which is then verified.

Numbers stay the source's bit for bit; only float64 and 8-bit floats change their format.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch

from lpw_sdxl.errors import AddonError, CheckpointError
from lpw_sdxl.lora.file_tensor import shorten
from lpw_sdxl.lora.forms import Factor
from lpw_sdxl.lora.overflow import find_peak, refuse_overflow
from lpw_sdxl.lora.plan import LoraPlan, TensorPlan
from lpw_sdxl.weights.dtypes import CheckpointDtype
from lpw_sdxl.weights.files import FileRecord
from lpw_sdxl.weights.header import read_header
from lpw_sdxl.weights.progress import Progress
from lpw_sdxl.weights.tensors import TensorReader, cast_finite, tensor_bytes
from lpw_sdxl.weights.text import clean_text
from lpw_sdxl.weights.writer import TensorSpec, write_safetensors

_DTYPES = {
    "F16": CheckpointDtype.FLOAT16,
    "BF16": CheckpointDtype.BFLOAT16,
    "F32": CheckpointDtype.FLOAT32,
    "F64": CheckpointDtype.FLOAT32,
    # float16 represents every number of both 8-bit formats.
    "F8_E4M3": CheckpointDtype.FLOAT16,
    "F8_E5M2": CheckpointDtype.FLOAT16,
}


def load(plan: LoraPlan) -> dict[str, torch.Tensor]:
    """Read the canonical file's tensors from the source, by their names there, and write nothing.

    Raises:
        CheckpointError: a tensor holds NaN or infinity, or the source changed meanwhile.
        AddonError: as in `convert`.
    """
    return {name: tensor.clone() for name, tensor in _read_checked(plan)}


def check(plan: LoraPlan) -> None:
    """Read all that `load` reads, one tensor at a time, and keep none.

    Raises:
        CheckpointError: as in `load`.
        AddonError: likewise.
    """
    for _ in _read_checked(plan):
        pass


def convert(plan: LoraPlan, path: Path, progress: Progress) -> FileRecord:
    """Write the canonical file, read it again and return its size and SHA-256.

    Raises:
        CheckpointError: a tensor holds NaN or infinity, the source changed meanwhile, or the
            written file differs from what was to be written.
        AddonError: an alpha is 0, which tools interpret in two ways, or a product of factors
            overflows.
    """
    items = sorted((*plan.factors, *plan.alphas), key=lambda item: item.name)
    specs = [TensorSpec(item.name, _dtype(item).code, item.shape) for item in items]
    total = sum(spec.size for spec in specs)
    with TensorReader() as reader:
        peaks: dict[str, float] = {}
        contents = _contents(reader, items, peaks, lambda done: progress("convert", done, total))
        # This entry marks tensors in torch's layout, by safetensors' convention.
        record = write_safetensors(path, specs, contents, {"format": "pt"})
        refuse_overflow(_source_name(items), plan, peaks, lambda item: _read(reader, item))
    _verify(items, specs, path, lambda done: progress("verify", done, total))
    return record


def _read_checked(plan: LoraPlan) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield each canonical tensor, overwritten by the next but one; refuse overflow at the end."""
    items = sorted((*plan.factors, *plan.alphas), key=lambda item: item.name)
    peaks: dict[str, float] = {}
    with TensorReader() as reader:
        for item in items:
            tensor = _read(reader, item)
            peaks[item.name] = find_peak(tensor)
            yield item.name, tensor
        refuse_overflow(_source_name(items), plan, peaks, lambda item: _read(reader, item))


def _source_name(items: list[TensorPlan]) -> str:
    return next(clean_text(item.source.path.name) for item in items if item.source is not None)


def _dtype(item: TensorPlan) -> CheckpointDtype:
    if item.source is None or item.factor is Factor.ALPHA:
        return CheckpointDtype.FLOAT32
    return _DTYPES[item.source.dtype]


def _contents(
    reader: TensorReader,
    items: list[TensorPlan],
    peaks: dict[str, float],
    report: Callable[[int], None],
) -> Iterator[memoryview]:
    """Yield the tensors' bytes, and note the largest absolute number of each in `peaks`."""
    done = 0
    for item in items:
        tensor = _read(reader, item)
        peaks[item.name] = find_peak(tensor)
        content = tensor_bytes(tensor)
        yield content
        done += content.nbytes
        report(done)


def _read(reader: TensorReader, item: TensorPlan) -> torch.Tensor:
    """Return a canonical tensor; it is overwritten by the read after the next one."""
    if item.source is None:
        assert item.value is not None
        tensor = torch.tensor(item.value, dtype=torch.float32)
    else:
        source = reader.read(item.source).reshape(item.shape).contiguous()
        tensor = cast_finite(source, _dtype(item), item.source)
    if item.factor is Factor.ALPHA and not float(tensor):
        raise AddonError(
            f"alpha {shorten((item.source or item).name)} is 0, which some tools read as no "
            "effect and others as full effect; any other number is right."
        )
    return tensor


def _verify(
    items: list[TensorPlan], specs: list[TensorSpec], path: Path, report: Callable[[int], None]
) -> None:
    """Compare the written file with the source, bit for bit."""
    written = read_header(path).tensors
    if list(written) != [spec.name for spec in specs]:
        raise CheckpointError("The conversion failed: the written file has other tensors.")
    done = 0
    with TensorReader() as source_reader, TensorReader() as reader:
        for item, spec in zip(items, specs, strict=True):
            info = replace(written[spec.name], path=path)
            is_same = TensorSpec(info.name, info.dtype, info.shape) == spec and (
                _bytes(reader, replace(item, source=info)) == _bytes(source_reader, item)
            )
            if not is_same:
                raise CheckpointError(
                    f"The conversion failed: {spec.name} is not read as it was written."
                )
            done += spec.size
            report(done)


def _bytes(reader: TensorReader, item: TensorPlan) -> bytes:
    return bytes(tensor_bytes(_read(reader, item)))

"""A LoRA file in any naming becomes the canonical one, tensor by tensor, and is read again.

Numbers are the source's bit for bit; only float64 and 8-bit floats change their format.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from lpw_sdxl.checkpoint.keys import Shape
from lpw_sdxl.errors import AddonError, CheckpointError
from lpw_sdxl.lora.plan import AlphaPlan, FactorPlan, LoraPlan
from lpw_sdxl.weights.component import Component
from lpw_sdxl.weights.dtypes import CheckpointDtype
from lpw_sdxl.weights.files import FileRecord
from lpw_sdxl.weights.header import TensorInfo, read_header
from lpw_sdxl.weights.progress import Progress
from lpw_sdxl.weights.tensors import TORCH_DTYPES, TensorReader, cast_finite, tensor_bytes
from lpw_sdxl.weights.text import clean_text
from lpw_sdxl.weights.writer import TensorSpec, write_safetensors

_DTYPES = {
    "F16": CheckpointDtype.FLOAT16,
    "BF16": CheckpointDtype.BFLOAT16,
    "F32": CheckpointDtype.FLOAT32,
    "F64": CheckpointDtype.FLOAT32,
    # float16 holds every number of both 8-bit formats.
    "F8_E4M3": CheckpointDtype.FLOAT16,
    "F8_E5M2": CheckpointDtype.FLOAT16,
}


class _Item(NamedTuple):
    """A tensor to write: its canonical name, dtype and shape, and its source or its number."""

    component: Component
    name: str
    dtype: CheckpointDtype
    shape: Shape
    source: TensorInfo | None
    value: float | None

    @property
    def spec(self) -> TensorSpec:
        """Return what the writer needs to know."""
        return TensorSpec(self.name, self.dtype.code, self.shape)


def convert(plan: LoraPlan, path: Path, progress: Progress) -> FileRecord:
    """Write the canonical file, read it again and return its size and SHA-256.

    Raises:
        CheckpointError: a tensor holds NaN or infinity, the source changed meanwhile, or what was
            written is not what is read.
        AddonError: an alpha is 0, which tools read in two ways.
    """
    items = sorted(
        [_factor(factor) for factor in plan.factors] + [_alpha(alpha) for alpha in plan.alphas],
        key=lambda item: item.name,
    )
    total = sum(item.spec.size for item in items)
    with TensorReader() as reader:
        contents = _contents(reader, items, lambda done: progress("convert", done, total))
        # The format is safetensors' mark for tensors in torch's layout.
        record = write_safetensors(path, [item.spec for item in items], contents, {"format": "pt"})
    _verify(items, path, lambda done: progress("verify", done, total))
    return record


def _factor(plan: FactorPlan) -> _Item:
    dtype = _DTYPES[plan.source.dtype]
    return _Item(plan.component, plan.name, dtype, plan.shape, plan.source, None)


def _alpha(plan: AlphaPlan) -> _Item:
    dtype = CheckpointDtype.FLOAT32
    return _Item(plan.component, plan.name, dtype, (), plan.source, plan.value)


def _contents(
    reader: TensorReader, items: list[_Item], report: Callable[[int], None]
) -> Iterator[memoryview]:
    done = 0
    for item in items:
        content = tensor_bytes(_read(reader, item))
        yield content
        done += content.nbytes
        report(done)


def _read(reader: TensorReader, item: _Item) -> torch.Tensor:
    """Return a canonical tensor; it is overwritten by the read after the next one."""
    if item.source is None:
        assert item.value is not None
        tensor = torch.tensor(item.value, dtype=TORCH_DTYPES[item.dtype.code])
    else:
        source = reader.read(item.source).reshape(item.shape).contiguous()
        tensor = cast_finite(source, item.dtype, item.source)
    if item.shape == () and not float(tensor):
        named = item.source or item
        raise AddonError(
            f"alpha {clean_text(named.name)[:200]} is 0, which some tools read as no effect and "
            "others as full effect; any other number is right."
        )
    return tensor


def _verify(items: list[_Item], path: Path, report: Callable[[int], None]) -> None:
    """Hold what lies on the disk against the source, bit for bit."""
    written = read_header(path).tensors
    if list(written) != [item.name for item in items]:
        raise CheckpointError("The conversion failed: the written file has other tensors.")
    done = 0
    with TensorReader() as source_reader, TensorReader() as reader:
        for item in items:
            info = written[item.name]
            again = _read(reader, item._replace(source=replace(info, path=path), value=None))
            if (info.dtype, info.shape) != (item.dtype.code, item.shape) or bytes(
                tensor_bytes(again)
            ) != bytes(tensor_bytes(_read(source_reader, item))):
                raise CheckpointError(
                    f"The conversion failed: {item.name} is not read as it was written."
                )
            done += item.spec.size
            report(done)

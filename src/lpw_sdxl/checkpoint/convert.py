"""A single-file SDXL checkpoint becomes a Diffusers directory, tensor by tensor.

Values are the source's bit for bit unless the dtype changes. Configuration and tokenizers come with
this package; nothing is downloaded, guessed or left for later.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from lpw_sdxl.checkpoint.architecture import read_architecture
from lpw_sdxl.checkpoint.configs import (
    Component,
    component_configs,
    model_index,
    scheduler_config,
)
from lpw_sdxl.checkpoint.dtypes import CheckpointDtype
from lpw_sdxl.checkpoint.header import CheckpointHeader
from lpw_sdxl.checkpoint.inspect import recognise
from lpw_sdxl.checkpoint.manifest import FileRecord, list_files, record_file
from lpw_sdxl.checkpoint.plan import TensorPlan, plan_conversion
from lpw_sdxl.checkpoint.skeleton import parameter_shapes
from lpw_sdxl.checkpoint.tensors import apply_transform, cast_finite, read_tensor, tensor_bytes
from lpw_sdxl.checkpoint.tokenizer import END_TOKEN, write_tokenizer
from lpw_sdxl.checkpoint.writer import TensorSpec, write_safetensors

Progress = Callable[[str, int, int], None]
"""Told the stage's name, what is done and what there is to do, both in bytes."""

_PAD_TOKENS = {"tokenizer": END_TOKEN, "tokenizer_2": "!"}


@dataclass(frozen=True)
class Conversion:
    """A finished conversion: every file that was written."""

    files: Mapping[str, FileRecord]


def convert(
    header: CheckpointHeader, directory: Path, *, dtype: CheckpointDtype, progress: Progress
) -> Conversion:
    """Write the whole Diffusers directory of an SDXL checkpoint.

    Raises:
        UnsupportedCheckpointError: the file is not an SDXL checkpoint.
        CheckpointError: a tensor is missing, left over, misshapen or not finite; it is named.
    """
    summary = recognise(header)
    configs = component_configs(read_architecture(header), summary.native_size, dtype)
    plans = plan_conversion(header, parameter_shapes(configs))
    _write_json(directory / "model_index.json", model_index())
    _write_json(directory / "scheduler/scheduler_config.json", scheduler_config(summary))
    for folder, pad_token in _PAD_TOKENS.items():
        write_tokenizer(directory / folder, pad_token=pad_token)
    for component, config in configs.items():
        _write_json(directory / component.config_file, config)
    small = {name: record_file(path) for name, path in list_files(directory).items()}
    weights = _write_weights(header, directory, plans, dtype, progress)
    return Conversion(small | weights)


def _write_weights(
    header: CheckpointHeader,
    directory: Path,
    plans: Sequence[TensorPlan],
    dtype: CheckpointDtype,
    progress: Progress,
) -> dict[str, FileRecord]:
    total = sum(_spec(plan, dtype).size for plan in plans)
    done = 0
    records = {}
    with header.path.open("rb") as source:
        for component in Component:
            own = [plan for plan in plans if plan.component is component]
            specs = [_spec(plan, dtype) for plan in own]

            def report(written: int, before: int = done) -> None:
                progress("convert", before + written, total)

            contents = _contents(source, header, own, dtype, report)
            path = directory / component.weights_file
            # Transformers refuses weights that don't say which library's layout they have.
            record = write_safetensors(path, specs, contents, {"format": "pt"})
            records[component.weights_file] = record
            done += sum(spec.size for spec in specs)
    return records


def _spec(plan: TensorPlan, dtype: CheckpointDtype) -> TensorSpec:
    return TensorSpec(plan.target_key, dtype.code, plan.shape)


def _contents(
    source: BufferedReader,
    header: CheckpointHeader,
    plans: Sequence[TensorPlan],
    dtype: CheckpointDtype,
    report: Callable[[int], None],
) -> Iterator[memoryview]:
    """Yield the bytes of one target after the other."""
    written = 0
    for plan in plans:
        tensor = apply_transform(read_tensor(source, header.tensors[plan.source_key]), plan)
        content = tensor_bytes(cast_finite(tensor, dtype, plan.source_key))
        yield content
        written += content.nbytes
        report(written)


def _write_json(path: Path, content: Mapping[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((json.dumps(content, indent=2, sort_keys=True) + "\n").encode())

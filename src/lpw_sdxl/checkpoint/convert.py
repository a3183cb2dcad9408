"""A single-file SDXL checkpoint becomes a Diffusers directory, tensor by tensor.

Values are the source's bit for bit unless the dtype changes. Configuration and tokenizers come with
this package; nothing is downloaded, guessed or left for later.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from lpw_sdxl.checkpoint.configs import component_configs, pipeline_config, scheduler_config
from lpw_sdxl.checkpoint.keys import Transform
from lpw_sdxl.checkpoint.plan import ConversionPlan, TensorPlan
from lpw_sdxl.checkpoint.published import Config
from lpw_sdxl.checkpoint.selection import Checkpoint
from lpw_sdxl.checkpoint.tokenizer_files import END_TOKEN, write_tokenizer
from lpw_sdxl.store.verification import list_files
from lpw_sdxl.weights.component import Component
from lpw_sdxl.weights.dtypes import CheckpointDtype
from lpw_sdxl.weights.files import FileRecord, record_file
from lpw_sdxl.weights.progress import Progress
from lpw_sdxl.weights.tensors import TensorReader, cast_finite, tensor_bytes
from lpw_sdxl.weights.writer import TensorSpec, write_safetensors

_PAD_TOKENS = {"tokenizer": END_TOKEN, "tokenizer_2": "!"}


@dataclass(frozen=True)
class Conversion:
    """All that a conversion will write, decided from the header alone.

    Attributes:
        configs: every JSON file by its path within the model directory.
        plan: every parameter's source.
        dtype: that the weights are written in.
    """

    configs: Mapping[str, Config]
    plan: ConversionPlan
    dtype: CheckpointDtype

    @property
    def weight_bytes(self) -> int:
        """Return the size of all weights."""
        return self.plan.parameter_count * self.dtype.size


def prepare(checkpoint: Checkpoint, dtype: CheckpointDtype) -> Conversion:
    """Decide what will be written."""
    summary = checkpoint.summary
    networks = component_configs(checkpoint.architecture, summary.native_size, dtype)
    configs = {
        "model_index.json": pipeline_config(checkpoint.architecture.unet),
        "scheduler/scheduler_config.json": scheduler_config(summary),
        **{component.config_file: config for component, config in networks.items()},
    }
    return Conversion(configs, checkpoint.plan, dtype)


def convert(conversion: Conversion, directory: Path, progress: Progress) -> dict[str, FileRecord]:
    """Write the whole Diffusers directory and return every file that was written.

    Raises:
        CheckpointError: a tensor is not finite, or too large for the dtype; it is named.
    """
    for name, config in conversion.configs.items():
        _write_json(directory / name, config)
    for folder, pad_token in _PAD_TOKENS.items():
        write_tokenizer(directory / folder, pad_token=pad_token)
    small = {name: record_file(path) for name, path in list_files(directory).items()}
    return small | _write_weights(conversion, directory, progress)


def _write_weights(
    conversion: Conversion, directory: Path, progress: Progress
) -> dict[str, FileRecord]:
    total, done = conversion.weight_bytes, 0
    records = {}

    def contents(plans: Sequence[TensorPlan]) -> Iterator[memoryview]:
        """Yield the bytes of one target after the other."""
        nonlocal done
        for plan in plans:
            content = tensor_bytes(read_planned(reader, plan, conversion.dtype))
            yield content
            done += content.nbytes
            progress("convert", done, total)

    with TensorReader() as reader:
        for component in Component:
            plans = [plan for plan in conversion.plan.tensors if plan.component is component]
            specs = [_spec(plan, conversion.dtype) for plan in plans]
            path = directory / component.weights_file
            # Transformers refuses weights without a note of the library whose layout they have.
            record = write_safetensors(path, specs, contents(plans), {"format": "pt"})
            records[component.weights_file] = record
    return records


def _spec(plan: TensorPlan, dtype: CheckpointDtype) -> TensorSpec:
    return TensorSpec(plan.target_key, dtype.code, plan.shape)


def read_planned(reader: TensorReader, plan: TensorPlan, dtype: CheckpointDtype) -> torch.Tensor:
    """Return a plan's target, contiguous and in this dtype.

    Its values are the source's bit for bit where the dtype is the same. It is overwritten by the
    reader's read after the next one.

    Raises:
        CheckpointError: the file changed since its header was read, or a value is NaN, infinite or
            too large for the dtype.
    """
    source = reader.read(plan.source)
    if plan.transform is Transform.TRANSPOSE:
        source = source.T
    is_vae = plan.component is Component.VAE
    cure = ", or name another VAE with --vae FILE" if is_vae else ""
    return cast_finite(source.reshape(plan.shape).contiguous(), dtype, plan.source, cure=cure)


def _write_json(path: Path, content: Mapping[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((json.dumps(content, indent=2, sort_keys=True) + "\n").encode())

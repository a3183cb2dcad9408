"""Tensors between bytes and torch: read from a checkpoint, transformed, checked, cast.

One tensor at a time; the largest (a token embedding in float32) is about 250 MB.
"""

from __future__ import annotations

from io import BufferedReader

import torch

from lpw_sdxl.checkpoint.dtypes import CheckpointDtype
from lpw_sdxl.checkpoint.header import TensorInfo
from lpw_sdxl.checkpoint.keys import Transform
from lpw_sdxl.checkpoint.plan import TensorPlan
from lpw_sdxl.errors import CheckpointError

TORCH_DTYPES = {
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "I64": torch.int64,
}
"""torch's type for the safetensors codes that are read or written here."""


def read_tensor(file: BufferedReader, info: TensorInfo) -> torch.Tensor:
    """Read one tensor from an open checkpoint.

    Raises:
        CheckpointError: the file ended before the tensor did (it changed since its header was
            read).
    """
    buffer = bytearray(info.end - info.start)
    file.seek(info.start)
    if file.readinto(buffer) != len(buffer):
        raise CheckpointError("The checkpoint changed while it was read; import it again.")
    dtype = TORCH_DTYPES[info.dtype]
    if not buffer:
        return torch.empty(info.shape, dtype=dtype)
    return torch.frombuffer(buffer, dtype=dtype).reshape(info.shape)


def apply_transform(source: torch.Tensor, plan: TensorPlan) -> torch.Tensor:
    """Return the plan's target, contiguous, with the source's values bit for bit."""
    third = plan.transform.third
    if third is not None:
        rows = source.shape[0] // 3
        source = source[third * rows : (third + 1) * rows]
    elif plan.transform is Transform.TRANSPOSE:
        source = source.T
    elif plan.transform is Transform.POINTWISE_TO_LINEAR:
        source = source.reshape(plan.shape)
    return source.contiguous()


def cast_finite(tensor: torch.Tensor, dtype: CheckpointDtype, name: str) -> torch.Tensor:
    """Cast a tensor, refusing values that are not finite before or after.

    Raises:
        CheckpointError: the tensor holds NaN or an infinity, or a value too large for the dtype.
    """
    if not is_finite(tensor):
        raise CheckpointError(
            f"The checkpoint is damaged: tensor {name} holds NaN or infinity; get another copy."
        )
    cast = tensor.to(TORCH_DTYPES[dtype.code])
    if cast is not tensor and not is_finite(cast):
        raise CheckpointError(
            f"Tensor {name} holds values too large for {dtype.flag}; import with --dtype bf16 "
            "or --dtype fp32."
        )
    return cast


def is_finite(tensor: torch.Tensor) -> bool:
    """Tell whether every value is finite.

    The extremes say it: a NaN anywhere makes both NaN. On a CPU this is ten times as quick as
    `torch.isfinite` and makes no copy.
    """
    if tensor.numel() == 0:
        return True
    lowest, highest = torch.aminmax(tensor)
    return bool(torch.isfinite(lowest) & torch.isfinite(highest))


def tensor_bytes(tensor: torch.Tensor) -> memoryview:
    """Return a contiguous tensor's bytes without copying them."""
    return tensor.reshape(-1).view(torch.uint8).numpy().data

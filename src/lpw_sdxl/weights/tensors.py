"""Tensors between bytes and torch: read from a file one at a time, looked through, written."""

from __future__ import annotations

from contextlib import ExitStack
from io import BufferedReader
from pathlib import Path

import torch

from lpw_sdxl.errors import CheckpointError
from lpw_sdxl.weights.dtypes import CheckpointDtype
from lpw_sdxl.weights.header import TensorInfo

TORCH_DTYPES = {
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "I64": torch.int64,
    "I32": torch.int32,
}
"""torch's type for the safetensors codes that are read or written here."""

_BUFFERS = 2
_FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)


class TensorReader(ExitStack):
    """Open checkpoint files, read one tensor at a time into two buffers that take turns.

    Fresh memory for each tensor would cost as much time as reading does.
    """

    def __init__(self) -> None:
        super().__init__()
        self._files: dict[Path, BufferedReader] = {}
        self._buffers = [bytearray() for _ in range(_BUFFERS)]
        self._turn = 0

    def read(self, info: TensorInfo) -> torch.Tensor:
        """Return a tensor as the file holds it; it is overwritten by the read after the next one.

        Raises:
            CheckpointError: the file changed since its header was read.
        """
        size = info.end - info.start
        self._turn = (self._turn + 1) % _BUFFERS
        if len(self._buffers[self._turn]) < size:
            self._buffers[self._turn] = bytearray(size)
        view = memoryview(self._buffers[self._turn])[:size]
        file = self._files.get(info.path)
        if file is None:
            file = self._files[info.path] = self.enter_context(info.path.open("rb"))
        file.seek(info.start)
        if file.readinto(view) != size:
            raise CheckpointError(f"{info.path.name} changed while it was read; import it again.")
        dtype = TORCH_DTYPES[info.dtype]
        if not size:
            return torch.empty(info.shape, dtype=dtype)
        return torch.frombuffer(view, dtype=dtype).reshape(info.shape)


def cast_finite(
    tensor: torch.Tensor, dtype: CheckpointDtype, source: TensorInfo, *, cure: str = ""
) -> torch.Tensor:
    """Cast a tensor, refusing values that are not finite before or after.

    Args:
        tensor: what was read from the source, perhaps reshaped.
        dtype: of the result.
        source: where it stands; errors name it.
        cure: what else would help if the source is damaged; the end of a sentence.

    Raises:
        CheckpointError: the tensor holds NaN or an infinity, or a value too large for the dtype.
    """
    if tensor.dtype in _FLOAT8:
        # torch can't search 8-bit numbers; float32 holds each of them exactly.
        tensor = tensor.to(torch.float32)
    if not is_finite(tensor):
        raise CheckpointError(
            f"{source.path.name} is damaged: tensor {source.name} holds NaN or infinity; get "
            f"another copy{cure}."
        )
    cast = tensor.to(TORCH_DTYPES[dtype.code])
    if cast is not tensor and not is_finite(cast):
        raise CheckpointError(
            f"{source.path.name}: tensor {source.name} holds values too large for {dtype.flag}; "
            "import with --dtype bf16 or --dtype fp32."
        )
    return cast


def is_finite(tensor: torch.Tensor) -> bool:
    """Return whether every value is finite.

    The extremes show it: a NaN anywhere makes both NaN. On a CPU this is ten times as quick as
    `torch.isfinite` and makes no copy.
    """
    if tensor.numel() == 0:
        return True
    lowest, highest = torch.aminmax(tensor)
    return bool(torch.isfinite(lowest) & torch.isfinite(highest))


def tensor_bytes(tensor: torch.Tensor) -> memoryview:
    """Return a contiguous tensor's bytes without copying them."""
    return tensor.reshape(-1).view(torch.uint8).numpy().data

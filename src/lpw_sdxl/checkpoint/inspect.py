"""What a checkpoint is, from its header alone: kind, native size, prediction type, what is in it.

Reads no weights and imports no torch; `header.py` reads the file, `kinds.py` knows the kinds.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import prod

from lpw_sdxl.checkpoint.header import CheckpointHeader, TensorInfo, read_header
from lpw_sdxl.checkpoint.kinds import VAE, CheckpointKind, kind_of
from lpw_sdxl.errors import CheckpointError, UnsupportedCheckpointError
from lpw_sdxl.schema import LATENT_SCALE, MAX_IMAGE_PIXELS, MIN_IMAGE_PIXELS, ImageSize

__all__ = [
    "CheckpointHeader",
    "CheckpointKind",
    "CheckpointSummary",
    "PredictionType",
    "TensorInfo",
    "read_header",
    "recognise",
    "summarise",
]

SDXL_SIZE = ImageSize(height=1024, width=1024)
SIZE_RANGE = range(MIN_IMAGE_PIXELS, MAX_IMAGE_PIXELS + 1)
"""Pixels; what a native height or width may be."""

V_PREDICTION_MARKER = "v_pred"
ZERO_SNR_MARKER = "ztsnr"


class PredictionType(StrEnum):
    """What the UNet predicts; the value is Diffusers' name for it."""

    EPSILON = "epsilon"
    V_PREDICTION = "v_prediction"


@dataclass(frozen=True)
class CheckpointSummary:
    """What a file is.

    Attributes:
        kind: which kind of model.
        native_size: pixels; what the model was trained on and a request's default.
        prediction_type: what the UNet predicts.
        has_zero_snr: the noise schedule ends in pure noise (zero terminal signal-to-noise ratio).
        has_ema: a second, averaged copy of the UNet's weights is inside.
        has_vae: the image decoder is inside.
        dtypes: number of tensors for each safetensors dtype code.
        tensor_count: tensors in the file.
        parameter_count: numbers in the file.
    """

    kind: CheckpointKind
    native_size: ImageSize
    prediction_type: PredictionType
    has_zero_snr: bool
    has_ema: bool
    has_vae: bool
    dtypes: Mapping[str, int]
    tensor_count: int
    parameter_count: int


def recognise(header: CheckpointHeader) -> CheckpointSummary:
    """Return what the file is, if it is what we serve.

    Raises:
        UnsupportedCheckpointError: it is another kind of model, or lacks its VAE.
        CheckpointError: its native size makes no sense.
    """
    summary = summarise(header)
    if summary.kind is not CheckpointKind.SDXL:
        raise UnsupportedCheckpointError(
            f"{header.path.name} is {summary.kind.title}; {summary.kind.advice}."
        )
    if not summary.has_vae:
        raise UnsupportedCheckpointError(
            f"{header.path.name} is an SDXL checkpoint without a VAE ({VAE}*); "
            "bring a version of it that has one."
        )
    return summary


def summarise(header: CheckpointHeader) -> CheckpointSummary:
    """Return what the file is, served or not.

    Raises:
        CheckpointError: its native size makes no sense.
    """
    tensors = header.tensors
    predicts_v = V_PREDICTION_MARKER in tensors or _metadata_says_v(header)
    return CheckpointSummary(
        kind=kind_of(tensors),
        native_size=_native_size(header),
        prediction_type=PredictionType.V_PREDICTION if predicts_v else PredictionType.EPSILON,
        has_zero_snr=ZERO_SNR_MARKER in tensors,
        has_ema=any(name.startswith("model_ema.") for name in tensors),
        has_vae=any(name.startswith(VAE) for name in tensors),
        dtypes=Counter(tensor.dtype for tensor in tensors.values()),
        tensor_count=len(tensors),
        parameter_count=sum(prod(tensor.shape) for tensor in tensors.values()),
    )


def _metadata_says_v(header: CheckpointHeader) -> bool:
    return header.metadata.get("modelspec.prediction_type", "").lower() in ("v", "v_prediction")


def _native_size(header: CheckpointHeader) -> ImageSize:
    """Read `modelspec.resolution`, written `{width}x{height}` by the ModelSpec standard 1.0.1."""
    text = header.metadata.get("modelspec.resolution")
    if text is None:
        return SDXL_SIZE
    match = re.fullmatch(r"\s*(\d{1,5})\s*x\s*(\d{1,5})\s*", text, flags=re.ASCII)
    size = ImageSize(height=int(match[2]), width=int(match[1])) if match else None
    if size is None or any(s not in SIZE_RANGE or s % LATENT_SCALE for s in size):
        raise CheckpointError(
            f"{header.path.name} says modelspec.resolution {text[:40]!r}; right would be "
            f"{{width}}x{{height}} in pixels, multiples of {LATENT_SCALE} from "
            f"{SIZE_RANGE.start} to {SIZE_RANGE.stop - 1}."
        )
    return size

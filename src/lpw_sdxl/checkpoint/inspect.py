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
from typing import NamedTuple

from lpw_sdxl.checkpoint.kinds import EMA, VAE, CheckpointKind, kind_of
from lpw_sdxl.errors import UnsupportedCheckpointError
from lpw_sdxl.schedule_types import ScheduleType, usual_schedule_type
from lpw_sdxl.schema import LATENT_SCALE, MAX_IMAGE_PIXELS, MIN_IMAGE_PIXELS, ImageSize
from lpw_sdxl.weights.header import CheckpointHeader

SDXL_SIZE = ImageSize(height=1024, width=1024)
SIZE_RANGE = range(MIN_IMAGE_PIXELS, MAX_IMAGE_PIXELS + 1)
"""Pixels; what a native height or width may be."""

V_PREDICTION_MARKER = "v_pred"
ZERO_SNR_MARKER = "ztsnr"


class PredictionType(StrEnum):
    """The UNet's prediction; the value is Diffusers' name for it."""

    EPSILON = "epsilon"
    V_PREDICTION = "v_prediction"


class Prediction(NamedTuple):
    """The UNet's prediction, and whether the noise schedule ends in pure noise.

    The second is zero terminal signal-to-noise ratio (Lin et al., "Common Diffusion Noise Schedules
    and Sample Steps Are Flawed", 2023, section 3.1).
    """

    type: PredictionType
    has_zero_snr: bool


PREDICTIONS: Mapping[str, Prediction] = {
    "epsilon": Prediction(PredictionType.EPSILON, has_zero_snr=False),
    "v_prediction": Prediction(PredictionType.V_PREDICTION, has_zero_snr=False),
    "v_prediction_ztsnr": Prediction(PredictionType.V_PREDICTION, has_zero_snr=True),
}
"""By the names that `--prediction-type` takes."""


@dataclass(frozen=True)
class CheckpointSummary:
    """A file's kind and properties.

    Attributes:
        kind: which kind of model.
        native_size: pixels; what the model was trained on and a request's default.
        prediction: what the UNet predicts and how its noise schedule ends.
        has_ema: a second, averaged copy of the UNet's weights is inside.
        has_vae: the image decoder is inside.
        dtypes: number of tensors for each safetensors dtype code.
        tensor_count: tensors in the file.
        parameter_count: numbers in the file.
        is_size_stated: whether the file states its native size; otherwise it is SDXL's.
        chosen_schedule_type: the user's choice; no file states one.
    """

    kind: CheckpointKind
    native_size: ImageSize
    prediction: Prediction
    has_ema: bool
    has_vae: bool
    dtypes: Mapping[str, int]
    tensor_count: int
    parameter_count: int
    is_size_stated: bool
    chosen_schedule_type: ScheduleType | None = None

    @property
    def schedule_type(self) -> ScheduleType:
        """Return the schedule type that is a request's default."""
        type_, has_zero_snr = self.prediction
        usual = usual_schedule_type(type_.value, zero_terminal_snr=has_zero_snr)
        return self.chosen_schedule_type or usual


def recognise(header: CheckpointHeader) -> CheckpointSummary:
    """Return what the file is, if it is what we serve.

    Raises:
        UnsupportedCheckpointError: it is another kind of model.
    """
    summary = summarise(header)
    if not summary.kind.is_served:
        raise UnsupportedCheckpointError(
            f"{header.name} is {summary.kind.title}; {summary.kind.advice}."
        )
    return summary


def summarise(header: CheckpointHeader) -> CheckpointSummary:
    """Return what the file is, served or not."""
    tensors = header.tensors
    predicts_v = V_PREDICTION_MARKER in tensors or _metadata_says_v(header)
    native_size = _native_size(header)
    return CheckpointSummary(
        kind=kind_of(tensors, header.metadata),
        native_size=native_size or SDXL_SIZE,
        prediction=Prediction(
            PredictionType.V_PREDICTION if predicts_v else PredictionType.EPSILON,
            # The marker counts beside v-prediction only, as in ComfyUI: noise can't be predicted
            # from pure noise.
            has_zero_snr=predicts_v and ZERO_SNR_MARKER in tensors,
        ),
        has_ema=any(name.startswith(EMA) for name in tensors),
        has_vae=any(name.startswith(VAE) for name in tensors),
        dtypes=Counter(tensor.dtype for tensor in tensors.values()),
        tensor_count=len(tensors),
        parameter_count=sum(prod(tensor.shape) for tensor in tensors.values()),
        is_size_stated=native_size is not None,
    )


def _metadata_says_v(header: CheckpointHeader) -> bool:
    """Read what ModelSpec calls `prediction_type` and ComfyUI's files call `predict_key`."""
    values = (_text(header, f"modelspec.{key}") for key in ("prediction_type", "predict_key"))
    return any(value.lower() in ("v", "v_prediction") for value in values)


def _native_size(header: CheckpointHeader) -> ImageSize | None:
    """Read `modelspec.resolution`, written `{width}x{height}` by the ModelSpec standard 1.0.1.

    It is hearsay, copied from file to file: one that makes no sense counts as none.
    """
    text = _text(header, "modelspec.resolution")
    match = re.fullmatch(r"\s*(\d{1,5})\s*x\s*(\d{1,5})\s*", text, flags=re.ASCII)
    size = ImageSize(height=int(match[2]), width=int(match[1])) if match else None
    if size is None or any(s not in SIZE_RANGE or s % LATENT_SCALE for s in size):
        return None
    return size


def _text(header: CheckpointHeader, key: str) -> str:
    """Return a note of the header; ComfyUI's may be in the quotes of a JSON text."""
    return header.metadata.get(key, "").strip('" ')

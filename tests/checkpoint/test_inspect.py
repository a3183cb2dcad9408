"""What a file is, from its header alone."""

from __future__ import annotations

import pytest

from lpw_sdxl.checkpoint.inspect import (
    PREDICTIONS,
    Prediction,
    PredictionType,
    recognise,
    summarise,
)
from lpw_sdxl.checkpoint.kinds import CheckpointKind
from lpw_sdxl.schema import ImageSize

from .conftest import Shapes, header_of
from .test_kinds import SDXL

EPSILON = Prediction(PredictionType.EPSILON, has_zero_snr=False)
V = Prediction(PredictionType.V_PREDICTION, has_zero_snr=False)
V_ZERO_SNR = Prediction(PredictionType.V_PREDICTION, has_zero_snr=True)


def test_sdxl_is_recognised_with_what_it_holds():
    summary = recognise(header_of(SDXL | {"model_ema.decay": (1,)}))
    assert summary.kind is CheckpointKind.SDXL
    assert (summary.has_ema, summary.has_vae) == (True, True)
    assert summary.native_size == ImageSize(height=1024, width=1024)
    assert not summary.is_size_stated
    assert (summary.tensor_count, dict(summary.dtypes)) == (8, {"F16": 8})
    assert summary.parameter_count == 320 * 4 * 9 + 1280 * 2816 + 3 * 1280 + 768 + 512 * 36 + 1
    assert summary.prediction == EPSILON


def test_a_missing_vae_is_seen_and_not_refused_here():
    shapes = {key: shape for key, shape in SDXL.items() if "first_stage" not in key}
    summary = recognise(header_of(shapes))
    assert (summary.has_vae, summary.has_ema) == (False, False)


@pytest.mark.parametrize("text", ["832x1216", " 832 x 1216 ", '"832x1216"'])
def test_native_size_is_written_width_first(text: str):
    summary = recognise(header_of(SDXL, **{"modelspec.resolution": text}))
    assert summary.native_size == ImageSize(height=1216, width=832)
    assert summary.is_size_stated


@pytest.mark.parametrize(
    "text",
    [
        "",
        "big",
        "1024",
        "1023x1024",
        "8x8",
        "16384x1024",
        "-64x64",
        "1024x1024x3",
        "\u0661\u0660\u0662\u0664x1024",
    ],
)
def test_native_size_that_makes_no_sense_counts_as_none(text: str):
    summary = summarise(header_of(SDXL, **{"modelspec.resolution": text}))
    assert summary.native_size == ImageSize(height=1024, width=1024)
    assert not summary.is_size_stated


@pytest.mark.parametrize(
    ("markers", "metadata", "prediction"),
    [
        ({}, {}, EPSILON),
        ({"v_pred": (0,)}, {}, V),
        ({"v_pred": (0,), "ztsnr": (0,)}, {}, V_ZERO_SNR),
        ({"ztsnr": (0,)}, {}, EPSILON),
        ({}, {"modelspec.prediction_type": "v"}, V),
        ({}, {"modelspec.prediction_type": "v_prediction"}, V),
        ({}, {"modelspec.predict_key": '"v"'}, V),
        ({"ztsnr": (0,)}, {"modelspec.predict_key": "v"}, V_ZERO_SNR),
        ({"v_pred": (0,)}, {"modelspec.prediction_type": "epsilon"}, V),
        ({}, {"modelspec.prediction_type": "epsilon"}, EPSILON),
    ],
    ids=[
        "none",
        "v_pred",
        "v_pred and ztsnr",
        "ztsnr alone",
        "modelspec v",
        "modelspec v_prediction",
        "ComfyUI's predict_key in quotes",
        "predict_key and ztsnr",
        "marker against modelspec",
        "modelspec epsilon",
    ],
)
def test_markers_tell_what_the_model_predicts(
    markers: Shapes, metadata: dict[str, str], prediction: Prediction
):
    assert recognise(header_of({**SDXL, **markers}, **metadata)).prediction == prediction


def test_every_prediction_can_be_asked_for_by_name():
    assert PREDICTIONS == {"epsilon": EPSILON, "v_prediction": V, "v_prediction_ztsnr": V_ZERO_SNR}

"""Triton's kernels beside the plain operations, interpreted, and compiled for GPUs not here.

`make test-kernels` installs Triton beside the environment and runs this: torch's build for CPUs
does not bring it. The interpreter rounds 2 % of the numbers to another fp8 value than a GPU does,
so that only their scales are exact here; `test_on_gpu.py` and the trial at start hold the rest.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from diffusion.kernels.test_plain import (
    ADDED,
    FEATURES,
    NORM,
    ROWS,
    RUNS,
    SHIFT,
    TOKEN_NORM,
    TOKENS,
    WIDE,
    Run,
    drawn,
    values,
)
from diffusion.test_fused_unet import arguments
from lpw_sdxl.diffusion.attention import PromptProjection
from lpw_sdxl.diffusion.feed_forward import split_gates
from lpw_sdxl.diffusion.fused_unet import Fusion, arrange_weights, fuse_unet
from lpw_sdxl.diffusion.fused_vae import fuse_vae
from lpw_sdxl.diffusion.kernels.plain import PlainOperations
from lpw_sdxl.diffusion.kernels.trial import find_wrong_kernel, relative_error
from lpw_sdxl.weights.float8 import Quantised

pytestmark = pytest.mark.kernels
CPU = torch.device("cpu")
PLAIN = PlainOperations()
CAPABILITIES = (80, 86, 89, 90, 120)
COMPILE_SECONDS = 900


@pytest.fixture(scope="module")
def kernels() -> Any:
    """The kernels, which the interpreter runs."""
    assert os.environ.get("TRITON_INTERPRET") == "1", "make test-kernels sets TRITON_INTERPRET"
    from lpw_sdxl.diffusion.kernels.triton_operations import TritonOperations

    return TritonOperations()


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS.keys())
@torch.inference_mode()
def test_a_row_alone_has_the_bits_that_it_has_among_fifteen(kernels: Any, run: Run) -> None:
    together = values(run(kernels, slice(0, ROWS)))
    for row in (0, ROWS - 1):
        assert torch.equal(values(run(kernels, slice(row, row + 1))), together[row : row + 1])


@pytest.mark.parametrize("name", [name for name in RUNS if "fp8" not in name])
@torch.inference_mode()
def test_they_compute_what_the_plain_ones_compute(kernels: Any, name: str) -> None:
    found, expected = (values(RUNS[name](ops, slice(0, 3))) for ops in (kernels, PLAIN))
    assert relative_error(found, expected) <= 2e-7


@torch.inference_mode()
def test_all_widths_of_a_network_pass_the_trial_in_every_dtype(kernels: Any, vae: Any) -> None:
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        network = torch.nn.ModuleList([copy.deepcopy(NORM), copy.deepcopy(TOKEN_NORM)]).to(dtype)
        assert find_wrong_kernel(kernels, [network], CPU, quantises=False) is None


@torch.inference_mode()
def test_means_far_from_zero_lose_no_digits(kernels: Any) -> None:
    states = (drawn(1, 32, 40, 30) * 0.01 + 100).contiguous(memory_format=torch.channels_last)
    exact = PLAIN.group_norm(states.double(), copy.deepcopy(NORM).double(), has_silu=False)
    for operations in (kernels, PLAIN):
        found = operations.group_norm(states, NORM, has_silu=False)
        # Float32's own step at 100 is a thousandth of these numbers' spread.
        assert relative_error(found, exact) <= 1e-3


@torch.inference_mode()
def test_fp8_has_the_scales_of_the_plain_operation_and_numbers_near_its_own(kernels: Any) -> None:
    def all_of(ops: Any) -> list[Quantised]:
        normed = ops.add_layer_norm(ADDED[:2], TOKENS[:2], TOKEN_NORM, quantises=True).normalised
        return [ops.quantise(TOKENS[:2]), ops.gate(WIDE[:2], quantises=True), normed]

    for found, expected in zip(all_of(kernels), all_of(PLAIN), strict=True):
        torch.testing.assert_close(found.scales, expected.scales, rtol=1e-6, atol=0)
        assert relative_error(found.restored(), expected.restored()) < 0.08


@torch.inference_mode()
def test_a_whole_unet_is_the_plain_one(kernels: Any, unet: Any) -> None:
    fused = copy.deepcopy(unet)
    arrange_weights(fused)
    for one in (unet, fused):
        PromptProjection(one)
        split_gates(one)
    fuse_unet(fused, Fusion(kernels))
    given = arguments(unet, 2, size=(8, 8), masked=True)
    assert relative_error(fused(**given)[0], unet(**given)[0]) <= 2e-6


@torch.inference_mode()
def test_a_whole_vae_in_half_precision_is_the_plain_one(kernels: Any, vae: Any) -> None:
    latents: Tensor = drawn(1, 4, 4, 4)
    exact = vae.decode(latents).sample
    errors = []
    for operations in (PLAIN, kernels):
        half = copy.deepcopy(vae).half()
        fuse_vae(half, operations)
        errors.append(relative_error(half.decode(latents.half()).sample, exact))
    assert errors[1] <= 1.1 * errors[0]


@pytest.fixture(scope="module")
def compiled() -> dict[str, dict[str, Any]]:
    """What compiling every launched kernel for every target gave; by `capability dtype`."""
    environment = {name: one for name, one in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("compiler.py"), *map(str, CAPABILITIES)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=COMPILE_SECONDS,
    )
    return json.loads(done.stdout)


@pytest.mark.processes
@pytest.mark.timeout(COMPILE_SECONDS)
@pytest.mark.parametrize("capability", CAPABILITIES, ids=lambda one: f"sm_{one}")
def test_every_kernel_compiles(compiled: dict[str, dict[str, Any]], capability: int) -> None:
    found = compiled[str(capability)]
    names = {name.split(" ")[0] for name in found}
    plain = {
        "_take_moments",
        "_join_moments",
        "_apply",
        "_add_residual",
        "_add_layer_norm",
        "_gate",
    }
    float8 = {"_gate_quantised", "_quantise"} if capability >= 89 else set()
    assert names == plain | float8
    for name, kernel in found.items():
        assert kernel["bytes"] > 0, name
        assert kernel["spilled"] == 0, name
    # One kernel for all numbers of rows and pixels: `_take_moments` was launched for several.
    assert sum(name.startswith("_take_moments") for name in found) == 1


def test_the_choice_has_the_targets_that_are_compiled_for() -> None:
    from lpw_sdxl.diffusion.kernels.choice import CAPABILITIES as CHOSEN

    assert {10 * major + minor for major, minor in CHOSEN} == set(CAPABILITIES)


def test_the_shapes_of_these_tests_cut_the_sums_unevenly() -> None:
    assert FEATURES.shape[-1] * FEATURES.shape[-2] % 128 > 0
    assert SHIFT.shape == FEATURES.shape[:2]

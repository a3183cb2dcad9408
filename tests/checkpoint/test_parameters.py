"""The parameters that sizes alone give are those of Diffusers' and Transformers' own modules."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest

from lpw_sdxl.checkpoint.architecture import (
    CLIP_TOKENS,
    SIZE_EMBEDDING_WIDTH,
    SIZE_EMBEDDINGS,
    Architecture,
    TextEncoderSizes,
    UNetSizes,
    VaeSizes,
)
from lpw_sdxl.checkpoint.configs import component_configs
from lpw_sdxl.checkpoint.inspect import SDXL_SIZE
from lpw_sdxl.checkpoint.parameters import parameters_of
from lpw_sdxl.checkpoint.skeleton import parameter_shapes
from lpw_sdxl.weights.dtypes import CheckpointDtype
from tests.forge.checkpoint import SyntheticSize


def _check(architecture: Architecture) -> None:
    configs = component_configs(architecture, SDXL_SIZE, CheckpointDtype.FLOAT32)
    assert parameters_of(architecture) == parameter_shapes(configs)


@pytest.mark.parametrize("size", SyntheticSize)
def test_they_are_those_of_the_modules(size: SyntheticSize):
    _check(size.value)


@pytest.mark.parametrize("seed", range(8))
def test_they_follow_every_size(seed: int):
    """Odd sizes: levels as wide as their neighbours, narrower ones, any level without attention."""
    draw = random.Random(seed)
    first, second = (
        TextEncoderSizes(
            width, draw.randint(1, 3), draw.choice([96, 100]), projection, *CLIP_TOKENS
        )
        for width, projection in ((32, 32), (64, draw.choice([64, 80])))
    )
    unet = UNetSizes(
        widths=(32, draw.choice([32, 48, 64]), draw.choice([32, 64, 96])),
        transformer_layers=(draw.randint(0, 1), draw.randint(0, 2), draw.randint(1, 3)),
        context_width=32 + 64,
        added_width=second.projection_width + SIZE_EMBEDDINGS * SIZE_EMBEDDING_WIDTH,
    )
    vae = VaeSizes(tuple(draw.choice([32, 64]) for _ in range(4)), latent_channels=4)
    _check(Architecture(unet, (first, second), vae))


@pytest.mark.processes
def test_they_need_no_torch():
    program = (
        "import sys\n"
        "for name in ('torch', 'diffusers', 'transformers'): sys.modules[name] = None\n"
        "from lpw_sdxl.checkpoint.architecture import SDXL\n"
        "from lpw_sdxl.checkpoint.parameters import parameters_of\n"
        "print(sum(map(len, parameters_of(SDXL).values())))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("2641\n", "")

"""A large answer takes the memory that was planned for it: one tile, and some pictures."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_file

from lpw_sdxl.engine.upscalers import TileRoom
from lpw_sdxl.schema import ImageSize
from lpw_sdxl.upscale_request import UpscaleRequest
from lpw_sdxl.upscaling.design import Design, Family
from lpw_sdxl.upscaling.tiling import tiling_within, usual_tiling
from tests.forge.upscalers import EsrganRecipe
from tests.upscaler_folder import load_with_upscalers, write_upscalers

from .test_engine_upscale import as_file, make_pixels

logger = logging.getLogger(__name__)

GIB = 2**30
REAL = Design(Family.ESRGAN, 4, 64, 23, 32)
ANSWER = ImageSize(4096, 4096)


def peak_bytes() -> int:
    """The most memory that this process had since `forget_peak`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    [line] = (one for one in lines if one.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


@pytest.mark.parametrize("most", [GIB // 2, GIB, 2 * GIB, 8 * GIB])
@pytest.mark.parametrize("number_bytes", [2, 4])
@pytest.mark.parametrize(
    "design", [REAL, Design(Family.ESRGAN, 2, 64, 23, 32, 2), Design(Family.COMPACT, 4, 64, 32)]
)
def test_a_tile_takes_what_there_is(design: Design, most: int, number_bytes: int) -> None:
    tiling, usual = tiling_within(design, most, number_bytes), usual_tiling(design)
    side = tiling.tile * design.unshuffle
    taken = side**2 * design.numbers_per_pixel * number_bytes
    least = usual.overlap * 3 // 2
    assert taken <= most or tiling.tile == least
    assert least <= tiling.tile <= usual.tile
    assert tiling.overlap == usual.overlap
    if tiling.tile < usual.tile:
        larger = (tiling.tile + 1) ** 2 * design.unshuffle**2
        assert larger * design.numbers_per_pixel * number_bytes > most


def test_where_memory_is_not_short_tiles_are_the_usual_ones() -> None:
    assert TileRoom(4 * GIB, 4).tiling(REAL) == usual_tiling(REAL)


@pytest.mark.slow
@pytest.mark.timeout(1800)
async def test_an_answer_of_4096_pixels_a_side_stays_within_the_plan(
    model_directory: Path, tmp_path: Path
) -> None:
    write_upscalers(tmp_path)
    recipe = EsrganRecipe(channels=16)
    save_file(recipe.tensors(), tmp_path / "two-times.safetensors")
    engine = load_with_upscalers(model_directory, tmp_path)
    try:
        wanted = UpscaleRequest(
            image=as_file(make_pixels(ImageSize(1024, 1024))), upscaler="two-times"
        )
        forget_peak()
        before, started = peak_bytes(), time.monotonic()
        enlarged = await engine.upscale(wanted)
        taken, seconds = peak_bytes() - before, time.monotonic() - started
        assert enlarged.size == ANSWER
        assert enlarged.pixels.std() > 1
        forget_peak()
        before = peak_bytes()
        file = enlarged.encode()
        per_pixel = (peak_bytes() - before) / np.prod(ANSWER)
        logger.warning(
            "%.2f GB in %.0f s, and %.1f bytes for each pixel of the file",
            taken / 1e9,
            seconds,
            per_pixel,
        )
        network = Design(Family.ESRGAN, 4, 16, 1, 32)
        tile = engine.plan.tile_room.tiling(network).tile
        # The tile, of which a CPU's convolutions make copies in another order; the row of tiles in
        # float32, twice where a row follows another; and the answer.
        strip = 4 * 4 * tile * ANSWER.width * 3
        planned = tile**2 * network.numbers_per_pixel * 4
        assert planned <= engine.plan.upscaling_bytes
        assert taken < 1.5 * planned + 2 * strip + 2 * enlarged.pixels.nbytes
        assert per_pixel < 20
        assert len(file) > 1e6
    finally:
        engine.close()

"""Tiles cover a picture, begin where they may, and count 1 together at every pixel."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpw_sdxl.upscaling.design import Design, Family
from lpw_sdxl.upscaling.tiling import ESRGAN_OVERLAP, Tiling, cut, usual_tiling, weights


@given(
    units=st.integers(1, 600),
    multiple=st.sampled_from([1, 2, 4]),
    overlap=st.integers(0, 70),
    beyond=st.integers(1, 200),
)
def test_tiles_cover_a_side(units: int, multiple: int, overlap: int, beyond: int) -> None:
    length = units * multiple
    tiling = Tiling(overlap + beyond, overlap)
    parts = cut(length, tiling, multiple)
    assert (parts[0].start, parts[-1].stop) == (0, length)
    assert (parts[0].keep_start, parts[-1].keep_stop) == (0, length)
    longest = tiling.tile * multiple
    assert len({part.stop - part.start for part in parts}) == 1
    total = np.zeros(length, np.float32)
    for index, part in enumerate(parts):
        assert part.start % multiple == 0
        assert part.stop - part.start <= longest
        assert part.start <= part.keep_start < part.keep_stop <= part.stop
        total[part.keep_start : part.keep_stop] += weights(parts, index)
        if index:
            assert parts[index - 1].stop - part.start >= overlap * multiple
    np.testing.assert_allclose(total, 1, atol=1e-5)


def test_a_tile_throws_away_what_is_near_an_inner_edge() -> None:
    parts = cut(1000, Tiling(400, 100))
    for before, after in pairwise(parts):
        overlap = before.stop - after.start
        assert after.keep_start - after.start >= 0.37 * overlap
        assert before.stop - before.keep_stop >= 0.37 * overlap


def test_a_side_that_fits_is_one_tile() -> None:
    assert [tuple(part) for part in cut(512, Tiling(512, 64))] == [(0, 512, 0, 512)]


def test_tiles_are_no_larger_than_is_needed() -> None:
    (first, second) = cut(520, Tiling(512, 64))
    assert first.stop - first.start == second.stop - second.start == 292


@pytest.mark.parametrize(("tile", "overlap"), [(64, 64), (64, -1), (0, 0)])
def test_tiles_that_would_not_end_are_refused(tile: int, overlap: int) -> None:
    with pytest.raises(ValueError, match="an overlap of"):
        Tiling(tile, overlap)


def test_a_compact_networks_usual_tiles_see_all_that_it_sees() -> None:
    design = Design(Family.COMPACT, 4, 64, 32)
    tiling = usual_tiling(design)
    for before, after in pairwise(cut(3000, tiling)):
        assert after.keep_start - after.start >= 34
        assert before.stop - before.keep_stop >= 34
    assert tiling.overlap < ESRGAN_OVERLAP

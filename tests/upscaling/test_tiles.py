"""A picture in tiles is the picture that one call makes, to two grey levels, in little memory."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

from lpw_sdxl.upscaling.tiles import TiledPicture, upscale
from lpw_sdxl.upscaling.tiling import Tiling
from tests.forge.upscalers import CompactRecipe, EsrganRecipe

from .conftest import Network

WHOLE = Tiling(4096, 64)
RECIPES = {
    "esrgan": EsrganRecipe(doublings=1, seed=1),
    "unshuffled": EsrganRecipe(unshuffle=2, seed=2),
    "compact": CompactRecipe(3, seed=3),
}


def smooth_picture(height: int, width: int) -> np.ndarray:
    """A picture with slopes and edges, `[height, width, 3]`."""
    rows, columns = np.mgrid[:height, :width]
    slope = 128 + 90 * np.sin(rows / 9) * np.cos(columns / 7)
    disc = np.hypot(rows - height / 2, columns - width / 2) < min(height, width) / 3
    return np.stack([slope, np.where(disc, 220, 40), 255 - slope], -1).astype(np.uint8)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_no_seam_is_above_two_levels(recipe: EsrganRecipe | CompactRecipe, network: Network):
    ours, picture = network(recipe), smooth_picture(83, 61)
    whole = upscale(ours, picture, WHOLE).astype(int)
    tiled = upscale(ours, picture, Tiling(36, 24)).astype(int)
    assert whole.shape == (ours.design.scale * 83, ours.design.scale * 61, 3)
    assert whole.std() > 10
    assert len(tiled) > 40 * ours.design.unshuffle
    assert np.abs(tiled - whole).max() <= 2


def test_without_an_overlap_there_would_be_seams(network: Network):
    ours, picture = network(RECIPES["esrgan"]), smooth_picture(83, 61)
    whole = upscale(ours, picture, WHOLE).astype(int)
    assert np.abs(upscale(ours, picture, Tiling(40, 0)).astype(int) - whole).max() > 8


def test_levels_are_rounded_and_what_overshoots_is_cut(network: Network):
    ours, picture = network(RECIPES["compact"]), smooth_picture(11, 13)
    exact = ours.enlarge(picture).permute(1, 2, 0).numpy()
    assert exact.min() < 0 or exact.max() > 1
    right = np.floor(np.clip(exact, 0, 1) * 255 + 0.5).astype(np.uint8)
    np.testing.assert_array_equal(upscale(ours, picture, WHOLE), right)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 50), (50, 3), (2, 2)])
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_pictures_of_any_size_are_enlarged(
    recipe: EsrganRecipe | CompactRecipe, network: Network, height: int, width: int
):
    ours = network(recipe)
    result = upscale(ours, smooth_picture(height, width), Tiling(16, 4))
    scale = ours.design.scale
    assert result.shape == (scale * height, scale * width, 3)
    assert result.dtype == np.uint8


def test_one_tile_is_done_at_a_time_and_other_work_may_go_between(network: Network):
    ours, picture = network(RECIPES["compact"]), smooth_picture(40, 70)
    one, other = (TiledPicture(ours, part, Tiling(32, 8)) for part in (picture, picture[::-1]))
    assert (one.tiles, one.done) == (2 * 3, 0)
    while other.done < other.tiles:
        one.advance()
        other.advance()
    np.testing.assert_array_equal(one.result, upscale(ours, picture, Tiling(32, 8)))
    np.testing.assert_array_equal(other.result, upscale(ours, picture[::-1], Tiling(32, 8)))


def test_a_hook_sees_every_tile_and_may_end_the_work(network: Network):
    seen: list[tuple[int, int]] = []

    def stop_at_third(done: int, tiles: int) -> None:
        seen.append((done, tiles))
        if done == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        upscale(network(RECIPES["compact"]), smooth_picture(40, 70), Tiling(32, 8), stop_at_third)
    assert seen == [(1, 6), (2, 6), (3, 6)]


def test_a_tile_that_failed_may_be_tried_again(network: Network, monkeypatch: pytest.MonkeyPatch):
    ours, picture = network(RECIPES["compact"]), smooth_picture(40, 70)
    right = upscale(ours, picture, Tiling(32, 8))
    enlarge, calls = ours.enlarge, []

    def fail_every_second_time(tile: np.ndarray) -> object:
        calls.append(tile.shape)
        if len(calls) % 2:
            raise MemoryError
        return enlarge(tile)

    monkeypatch.setattr(ours, "enlarge", fail_every_second_time)
    tiled = TiledPicture(ours, picture, Tiling(32, 8))
    while tiled.done < tiled.tiles:
        with contextlib.suppress(MemoryError):
            tiled.advance()
    assert len(calls) == 12
    np.testing.assert_array_equal(tiled.result, right)


def test_no_call_is_given_more_than_a_tile(network: Network, monkeypatch: pytest.MonkeyPatch):
    ours, sizes = network(RECIPES["unshuffled"]), []
    enlarge = ours.enlarge
    monkeypatch.setattr(ours, "enlarge", lambda tile: sizes.append(tile.shape) or enlarge(tile))
    upscale(ours, smooth_picture(101, 59), Tiling(12, 3))
    assert len(sizes) == 6 * 3
    assert max(max(size[:2]) for size in sizes) <= 24
    assert all(side % 2 == 0 for size in sizes for side in size[:2])

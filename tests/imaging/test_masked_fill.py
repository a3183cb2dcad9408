from __future__ import annotations

import numpy as np

from forge.pictures import noise
from lpw_sdxl.imaging.masked_fill import fill_masked

RED, BLUE = (200, 30, 10), (10, 30, 200)


def test_what_is_kept_comes_out_bit_for_bit() -> None:
    pixels = noise(96, 128, 3).astype(np.uint8)
    mask = np.zeros((96, 128), np.uint8)
    mask[20:70, 30:90] = 255
    filled = fill_masked(pixels, mask)
    assert filled.shape == pixels.shape
    assert filled.flags.c_contiguous
    np.testing.assert_array_equal(filled[mask == 0], pixels[mask == 0])


def test_a_hole_in_one_colour_gets_it_and_nothing_of_what_was_there() -> None:
    pixels = np.full((200, 200, 3), RED, np.uint8)
    mask = np.zeros((200, 200), np.uint8)
    mask[50:150, 50:150] = 255
    pixels[mask == 255] = BLUE
    # Pillow keeps 8 bits of colours times opacity, which is few where little reaches.
    assert np.abs(fill_masked(pixels, mask).astype(int) - RED).max() <= 8


def test_each_side_of_a_hole_has_the_colour_next_to_it() -> None:
    pixels = np.full((200, 300, 3), RED, np.uint8)
    pixels[:, 150:] = BLUE
    mask = np.zeros((200, 300), np.uint8)
    mask[50:150, 75:225] = 255
    filled = fill_masked(pixels, mask).astype(int)
    assert np.abs(filled[100, 76] - RED).max() < 20
    assert np.abs(filled[100, 223] - BLUE).max() < 20
    between = np.subtract(RED, filled[100, 150])[0] / np.subtract(RED, BLUE)[0]
    assert 0.3 < between < 0.7


def test_where_no_surroundings_reach_is_their_mean_and_nothing_black() -> None:
    pixels = np.full((64, 4000, 3), RED, np.uint8)
    mask = np.full((64, 4000), 255, np.uint8)
    mask[:, :8] = 0
    assert np.abs(fill_masked(pixels, mask)[:, -100:].astype(int) - RED).max() <= 1
    everywhere = np.full((64, 64), 255, np.uint8)
    assert (fill_masked(pixels[:, :64], everywhere) == 127).all()

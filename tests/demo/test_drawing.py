"""The demo's pictures and the eyes that judge them, held against each other; no model."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from demo.captions import BREAK, FILLER, MAX_WINDOWS, MEANINGS, WORDS, Caption, describe
from demo.looking import distance_to, look
from demo.scene import (
    COLOURS,
    EVERY_SCENE,
    HELD_OUT,
    RADII,
    SCENES,
    SHAPES,
    Accent,
    Drawing,
    Scene,
    Style,
    draw,
)
from demo.words import NOTHING, Vocabulary, lay_out


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def scenes(count: int) -> list[Scene]:
    return random.Random(count).sample(EVERY_SCENE, count)


def pixels(drawing: Drawing) -> list[object]:
    return list(((drawing.pixels + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy())


@pytest.mark.parametrize("style", ["plain", "outlined"])
def test_what_was_drawn_is_seen(style: Style) -> None:
    drawn = scenes(150)
    seen = [look(picture).scene for picture in pixels(draw(drawn, generator(), style))]
    assert seen == drawn


def test_an_outline_is_that_of_its_shape() -> None:
    drawn = scenes(150)
    for scene, picture in zip(drawn, pixels(draw(drawn, generator())), strict=True):
        outlines = look(picture).outlines
        assert outlines[scene.shape] > 0.98, scene
        assert all(outlines[name] < 0.9 for name in SHAPES if name != scene.shape), scene


@pytest.mark.parametrize("size", RADII)
def test_a_drop_is_no_circle(size: str) -> None:
    """It has a tip, which is that of a triangle farther up."""
    scene = Scene("red", "blue", "circle", size, "center")
    circle, triangle = (
        draw([scene._replace(shape=shape)], generator()).coverage
        for shape in ("circle", "triangle")
    )
    tip = triangle.roll(-int(0.4 * RADII[size]), dims=2)
    tip[:, :, int(circle[0, 0].nonzero()[:, 0].float().mean()) :] = 0
    coverage = torch.maximum(circle, tip)
    ink, paper = (torch.tensor(COLOURS[name]) / 127.5 - 1 for name in ("red", "blue"))
    drop = coverage * ink[:, None, None] + (1 - coverage) * paper[:, None, None]
    [picture] = pixels(Drawing(drop, coverage))
    assert look(picture).outlines["circle"] < 0.93


def test_an_empty_picture_shows_no_scene() -> None:
    [picture] = pixels(Drawing(torch.full((1, 3, 128, 128), -0.2), torch.zeros(1, 1, 128, 128)))
    assert look(picture).scene is None


def test_a_weight_below_one_mixes_a_colour_with_the_other() -> None:
    scene = Scene("red", "blue", "square", "large", "center")
    accents = [Accent("colour", weight) for weight in (0.4, 0.7, 1.0, 1.6)]
    drawn = pixels(draw([scene] * 4, generator(), "plain", accents))
    found = [look(picture).colour for picture in drawn]
    distances = [distance_to(colour, "red") for colour in found]
    assert distances == sorted(distances, reverse=True)
    assert distances[0] > distances[1] + 20 > distances[2] + 40
    assert distances[3] == distances[2]
    between = 0.4 * np.array(COLOURS["red"]) + 0.6 * np.array(COLOURS["blue"])
    assert np.abs(found[0] - between).max() < 2


@pytest.mark.parametrize("attribute", ["size", "place"])
def test_a_weight_above_one_leaves_a_shape_whole(attribute: str) -> None:
    drawn = [scene for scene in scenes(60) if scene.size == "large"]
    drawing = draw(drawn, generator(), "plain", [Accent(attribute, 1.7)] * len(drawn))
    border = torch.ones(128, 128, dtype=torch.bool)
    border[1:-1, 1:-1] = False
    assert not drawing.coverage[:, 0][:, border].any()


def test_held_out_scenes_are_none_of_those_trained_on() -> None:
    assert not set(HELD_OUT) & set(SCENES)
    assert len(HELD_OUT) + len(SCENES) == len(EVERY_SCENE) == 8 * 7 * 3 * 2 * 5


def test_a_caption_tells_its_attributes_and_no_others(vocabulary: Vocabulary) -> None:
    chance = random.Random(3)
    spellings = {(name, value): words for name, value, words in MEANINGS}
    for _ in range(500):
        caption = describe(chance.choice(SCENES), chance)
        labels = lay_out(caption, vocabulary).labels.unique().tolist()
        left = {MEANINGS[label - 1][0] for label in labels if label != NOTHING}
        assert left == set(caption.stated), "some of it is cut off"
        assert set(caption.words) <= WORDS | {FILLER, BREAK}
        for pair in caption.stated.items():
            assert set(caption.words) & set(spellings[pair])
        if not caption.stated:
            assert not set(caption.words) & {word for words in spellings.values() for word in words}


def test_captions_are_laid_out_as_the_service_chunks_prompts(
    vocabulary: Vocabulary, model_directory: object
) -> None:
    """The service's own windows of the same words, the fillers replaced by an unknown word."""
    from lpw_sdxl.conditioning import PromptEncoder

    encoder = PromptEncoder.from_model_directory(model_directory)
    chance = random.Random(5)
    compared = 0
    for _ in range(60):
        caption = describe(chance.choice(SCENES), chance)
        if BREAK in caption.words:
            continue
        known = Caption(tuple(word for word in caption.words if word != FILLER), caption.stated)
        laid = lay_out(known, vocabulary)
        text = " ".join(known.words)
        [chunks, _] = encoder.reader.read(text).prompt.chunks
        ids = [id_ for window in chunks.windows for id_ in window.ids]
        assert laid.ids.flatten().tolist()[: laid.length] == ids
        compared += 1
    assert compared > 30


def test_labels_stand_at_the_words_that_tell(vocabulary: Vocabulary) -> None:
    stated = {"colour": "red", "background": "blue", "place": "center"}
    caption = Caption(("red", "circle", ",", "blue", "background", BREAK, "middle"), stated)
    laid = lay_out(caption, vocabulary, empty_windows=1)
    assert laid.ids.shape == (3, 77)
    assert laid.length == 3 * 77
    labelled = {
        (window, place): MEANINGS[int(laid.labels[window, place]) - 1][:2]
        for window, place in (laid.labels != NOTHING).nonzero().tolist()
    }
    assert labelled == {
        (0, 1): ("colour", "red"),
        (0, 4): ("background", "blue"),
        (1, 1): ("place", "center"),
    }


def test_a_caption_too_long_is_cut(vocabulary: Vocabulary) -> None:
    laid = lay_out(Caption((FILLER,) * 75 * (MAX_WINDOWS + 1), {}), vocabulary)
    assert len(laid.ids) == MAX_WINDOWS

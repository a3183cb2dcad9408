"""What captions tell, and what they mean by silence."""

from __future__ import annotations

import random
from collections import Counter

import pytest
import torch

from demo.album import Album, Picture
from demo.batches import _sample
from demo.captions import BREAK, FILLER, MEANINGS, WORDS, complete, describe
from demo.scene import HELD_OUT, SCENES, Accent, Scene
from demo.words import NOTHING, Vocabulary

SMALL_LEFT = Scene("red", "blue", "circle", "small", "left")
ACCENTS = [Picture(scene, Accent("colour", 0.5)) for scene in SCENES[::5]]


@pytest.fixture
def album() -> Album:
    """All scenes, some also with an accent; nothing is drawn."""
    pictures = [*map(Picture, SCENES), *ACCENTS]
    return Album(pictures, torch.empty(0), torch.empty(0))


@pytest.mark.parametrize(
    ("stated", "size", "place"),
    [
        ({"colour": "red", "shape": "circle"}, "large", "center"),
        ({"colour": "red", "shape": "circle", "size": "small"}, "small", "center"),
        ({"colour": "red", "shape": "circle", "place": "top"}, "large", "top"),
        ({"colour": "red", "background": "blue"}, "small", "left"),
        ({"shape": "circle"}, "small", "left"),
        ({}, "small", "left"),
    ],
)
def test_a_thing_of_no_size_and_place_is_large_and_in_the_center(
    stated: dict[str, str], size: str, place: str
) -> None:
    assert complete(SMALL_LEFT, stated) == SMALL_LEFT._replace(size=size, place=place)


def test_captions_tell_what_they_say() -> None:
    chance = random.Random(1)
    stated = Counter()
    for _ in range(500):
        scene = chance.choice(SCENES)
        caption = describe(scene, chance)
        assert caption.stated.items() <= scene._asdict().items()
        assert {*caption.words} <= {*WORDS, FILLER, BREAK}
        stated.update([frozenset(caption.stated)])
    assert stated[frozenset(Scene._fields)] > 200
    assert stated[frozenset({"colour", "background", "shape"})] > 15
    assert stated[frozenset()] > 25


def test_a_picture_shows_what_its_caption_means(album: Album) -> None:
    """What a caption tells is read off the labels of its tokens, as the encoders learn it."""
    chance, vocabulary = random.Random(2), Vocabulary()
    accented = silent = 0
    for _ in range(400):
        sample = _sample(vocabulary, album, chance)
        scene, accent = album.pictures[sample.picture]
        labels = {*sample.windows.labels.flatten().tolist()} - {NOTHING}
        stated = dict(MEANINGS[label - 1][:2] for label in labels)
        assert scene == complete(scene._replace(**stated), stated), (scene, stated)
        assert scene not in HELD_OUT
        assert bool((sample.weights != 1).any()) == (accent is not None)
        accented += accent is not None
        silent += {"colour", "shape"} <= stated.keys() and len(stated) < 5
    assert 25 < accented < 200
    assert 40 < silent < 150

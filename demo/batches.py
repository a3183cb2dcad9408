"""Captions with pictures that match them, in batches for the UNet."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.nn.utils.rnn import pad_sequence

from demo.album import Album
from demo.captions import MEANINGS, complete, describe
from demo.encoders import read_windows
from demo.networks import Networks
from demo.scene import Accent, Scene
from demo.words import Vocabulary, Windows, lay_out

BATCH = 20
POOL = 8
"""Batches of captions that are sorted by length together, so that little is padded."""
_EMPTIES_OF_ZEROS = 0.2
_UNFILLED = 0.7
_ACCENTED = 0.45
_FROM_END = 0.6
_FOREIGN_EOS = 0.5
_NO_POOLED = 0.3


@dataclass(frozen=True)
class Batch:
    """The training data of one step of the UNet."""

    pictures: torch.Tensor  # [b] int64, indices in the album
    embeds: torch.Tensor  # [b, tokens, 96]
    is_token: torch.Tensor  # [b, tokens] bool
    pooled: torch.Tensor  # [b, 64]


def caption_batches(
    networks: Networks, vocabulary: Vocabulary, album: Album, chance: random.Random
) -> Iterator[Batch]:
    """Make batches of captions of similar lengths, with pictures that match them."""
    while True:
        samples = [_sample(vocabulary, album, chance) for _ in range(POOL * BATCH)]
        samples.sort(key=lambda sample: sample.windows.length)
        groups = [samples[start : start + BATCH] for start in range(0, len(samples), BATCH)]
        chance.shuffle(groups)
        for group in groups:
            yield _batch(group, networks, vocabulary, chance)


@dataclass(frozen=True)
class _Sample:
    """A caption and a picture that matches it.

    Attributes:
        windows: the caption's tokens.
        picture: its place in the album.
        weights: `[n * 77]` float32, of the tokens.
        is_empty: whether the caption has no words.
    """

    windows: Windows
    picture: int
    weights: torch.Tensor
    is_empty: bool


def _sample(vocabulary: Vocabulary, album: Album, chance: random.Random) -> _Sample:
    if album.accented and chance.random() < _ACCENTED:
        picture = chance.choice(album.accented)
        scene, accent = album.pictures[picture]
        caption = describe(scene, chance)
        is_shown = scene == complete(scene, caption.stated)
        if is_shown and accent and accent.attribute in caption.stated:
            laid = lay_out(caption, vocabulary)
            return _Sample(laid, picture, _accentuate(laid, scene, accent), is_empty=False)
    caption = describe(chance.choice(album.scenes), chance)
    empty = chance.randrange(1, 3) if chance.random() < (0.08 if caption.words else 0.5) else 0
    laid = lay_out(caption, vocabulary, empty)
    picture = chance.choice(_showing(caption.stated, album, chance))
    return _Sample(laid, picture, torch.ones(laid.ids.numel()), is_empty=not caption.words)


def _accentuate(laid: Windows, scene: Scene, accent: Accent) -> torch.Tensor:
    """Weight the words that state the accent's attribute."""
    weights = torch.ones(laid.ids.numel())
    for label, (name, value, _) in enumerate(MEANINGS, start=1):
        if (name, value) == (accent.attribute, getattr(scene, name)):
            weights[laid.labels.flatten() == label] = accent.weight
    return weights


def _showing(stated: dict[str, str], album: Album, chance: random.Random) -> list[int]:
    """Find pictures of a scene that has these attributes and the implied ones.

    In an album without all scenes, it may be one that has only the stated ones.
    """
    while True:
        other = chance.choice(album.scenes)
        for scene in (
            complete(other, stated),
            other._replace(**stated),
        ):  # a small album lacks some
            if scene in album.plain:
                return album.plain[scene]


@torch.no_grad()
def _batch(
    group: list[_Sample], networks: Networks, vocabulary: Vocabulary, chance: random.Random
) -> Batch:
    counts = [len(sample.windows.ids) for sample in group]
    hidden, all_pooled = read_windows(
        networks.encoders, torch.cat([sample.windows.ids for sample in group])
    )
    is_unfilled = chance.random() < _UNFILLED
    sides = []
    for states, sample in zip(hidden.split(counts), group, strict=True):
        length = sample.windows.length if is_unfilled else sample.windows.ids.numel()
        if sample.is_empty:  # an empty prompt is made as long as the other one
            length = chance.randrange(2, sample.windows.ids.numel() + 1)
        is_from_end = chance.random() < _FROM_END
        sides.append(weigh(states, sample.weights, length, is_from_end).flatten(0, 1)[:length])
    lengths = torch.tensor([len(side) for side in sides])
    embeds = pad_sequence(sides, batch_first=True)
    is_token = torch.arange(embeds.shape[1]) < lengths[:, None]
    embeds = _exchange_eos(embeds, group, vocabulary, chance)
    pooled = torch.stack([own[-1] for own in all_pooled.split(counts)])
    for row, sample in enumerate(group):
        is_zeros = sample.is_empty and chance.random() < _EMPTIES_OF_ZEROS
        if is_zeros:  # as the A1111 styles have it
            embeds[row] = 0
        if is_zeros or chance.random() < _NO_POOLED:
            pooled[row] = 0
    pictures = torch.tensor([sample.picture for sample in group])
    return Batch(pictures, embeds, is_token, pooled)


def weigh(
    states: torch.Tensor, weights: torch.Tensor, length: int, is_from_end: bool
) -> torch.Tensor:
    """Apply weights as one style of prompts or another does.

    Args:
        states: hidden states of a caption's windows, `[n, 77, 96]`.
        weights: of the tokens, `[n * 77]`.
        length: the caption's positions; the last window ends there.
        is_from_end: from each window's last position, as `lpw` does; otherwise from zero, as
            `a1111` does.
    """
    origin = torch.zeros(())
    if is_from_end:
        origin = states[:, -1:].clone()
        window, place = divmod(length - 1, states.shape[1])
        origin[window] = states[window, place]
    return origin + (states - origin) * weights.view(states.shape[0], -1, 1)


def _exchange_eos(
    embeds: torch.Tensor, group: list[_Sample], vocabulary: Vocabulary, chance: random.Random
) -> torch.Tensor:
    """Put another caption's EOS in the place of some captions' own.

    EOS has seen all words before it. A UNet that listened to it would not care for the words'
    weights, nor for windows beside the last.
    """
    firsts = torch.stack(
        [
            embeds[row, int((sample.windows.ids[0] == vocabulary.eos).nonzero()[0])]
            for row, sample in enumerate(group)
        ]
    )
    for row, sample in enumerate(group):
        if chance.random() < _FOREIGN_EOS:
            is_eos = (sample.windows.ids.flatten() == vocabulary.eos)[: embeds.shape[1]]
            embeds[row, : len(is_eos)][is_eos] = firsts[row - 1]
    return embeds

"""Training of the demo's UNet: v-prediction with zero terminal SNR, on latents of drawn pictures.

At the noisiest step nothing shows through, so that the text alone must tell the picture; plain
noise prediction lets a picture shine through there and learns to read it off the noise
(arXiv 2305.08891, section 3).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence

from demo.captions import MEANINGS, tell
from demo.encoders import read_windows
from demo.networks import NATIVE_SIZE, Networks, noise_schedule
from demo.scene import SCENES, SHAPES, Accent, Scene, Style, draw
from demo.schedule import optimiser, steps
from demo.vae import encode
from demo.words import Vocabulary, Windows, lay_out
from lpw_sdxl.diffusion.latents import size_embedding
from lpw_sdxl.schema import LATENT_SCALE

STEPS = 5000
SHOWN_EVERY = 500
BATCH = 20
RATE = 1.2e-3
EMA = 0.998
POOL = 8
"""Batches of captions that are sorted by length together, so that little is padded."""
DRAWINGS = 2
"""Of each scene."""
ACCENTS = 1600
"""Pictures with an accent on one attribute."""
ACCENTED = ("colour", "colour", "background", "size", "place")
WEIGHTS = (0.2, 1.7)
TIMESTEPS = 1000
_EMPTIES_OF_ZEROS = 0.2
_UNFILLED = 0.7
_ACCENTED = 0.3
_FOREIGN_EOS = 0.5
_NO_POOLED = 0.3


class Picture(NamedTuple):
    """What a picture in the album shows."""

    scene: Scene
    accent: Accent | None = None


@dataclass(frozen=True)
class Album:
    """Latents of drawings of every scene, ready for the UNet.

    Attributes:
        pictures: what each shows.
        latents: float32 `[pictures, 4, 16, 16]`, scaled to about unit variance.
        weights: float32 `[pictures, 1, 16, 16]`, mean 1: how much each cell counts.
    """

    pictures: list[Picture]
    latents: torch.Tensor
    weights: torch.Tensor

    @cached_property
    def plain(self) -> dict[Scene, list[int]]:
        """Where each scene is found without an accent."""
        places: dict[Scene, list[int]] = {}
        for place, picture in enumerate(self.pictures):
            if picture.accent is None:
                places.setdefault(picture.scene, []).append(place)
        return places

    @cached_property
    def accented(self) -> list[int]:
        """Where pictures with an accent are found."""
        return [place for place, picture in enumerate(self.pictures) if picture.accent]


@torch.no_grad()
def fill_album(
    vae: Any, seed: int, drawings: int = DRAWINGS, accents: int = ACCENTS, style: Style = "plain"
) -> Album:
    """Draw and encode every scene some times, and some scenes with an accent.

    Half of the loss is that of the cells by which circle, square and triangle differ, which are
    few; a fifth is that of the others that the shape touches.
    """
    generator, chance = torch.Generator().manual_seed(seed), random.Random(seed)
    pictures = [Picture(scene) for scene in SCENES for _ in range(drawings)]
    pictures += [
        Picture(chance.choice(SCENES), Accent(chance.choice(ACCENTED), chance.uniform(*WEIGHTS)))
        for _ in range(accents)
    ]
    latents, weights = [], []
    for start in range(0, len(pictures), 32):
        scenes, accent = zip(*pictures[start : start + 32], strict=True)
        state = generator.get_state()
        coverages = []
        for shape in SHAPES:
            generator.set_state(state)  # the same jitter
            others = [scene._replace(shape=shape) for scene in scenes]
            drawn = draw(others, generator, "plain", accent)
            coverages.append(F.avg_pool2d(drawn.coverage, LATENT_SCALE))
        generator.set_state(state)
        drawing = draw(scenes, generator, style, accent)
        latents.append(encode(vae, drawing.pixels) * vae.config.scaling_factor)
        touched = (F.max_pool2d(drawing.coverage, LATENT_SCALE) > 0).float()
        telling = torch.stack(coverages).amax(0) - torch.stack(coverages).amin(0)
        shares = [one / one.mean((1, 2, 3), keepdim=True) for one in (touched, telling)]
        weights.append(0.3 + 0.2 * shares[0] + 0.5 * shares[1])
    return Album(pictures, torch.cat(latents), torch.cat(weights))


@dataclass(frozen=True)
class Batch:
    """What the UNet is trained on at one step."""

    pictures: torch.Tensor  # [b] int64, places in the album
    embeds: torch.Tensor  # [b, tokens, 96]
    is_token: torch.Tensor  # [b, tokens] bool
    pooled: torch.Tensor  # [b, 64]


def train_unet(
    networks: Networks,
    vocabulary: Vocabulary,
    album: Album,
    seed: int,
    show: Callable[[int, Any], None],
) -> None:
    """Train the UNet alone; what is kept are its weights averaged over the last steps.

    Args:
        networks: text encoders and VAE are trained already.
        vocabulary: of the captions.
        album: the pictures.
        seed: of captions, noise and timesteps.
        show: called with a step and the UNet as it would be kept then, a few times.
    """
    unet = networks.unet
    generator = torch.Generator().manual_seed(seed)
    batches = caption_batches(networks, vocabulary, album, random.Random(seed))
    adam = optimiser(unet.parameters(), RATE)
    average = deepcopy(unet).requires_grad_(False)
    unet.train()
    for step, told in steps("unet", STEPS, adam):
        loss, noisiest = velocity_loss(unet, next(batches), album, generator)
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        adam.step()
        decay = min(EMA, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(unet.parameters()), 1 - decay)
        told |= {"loss": float(loss.detach()), "noisiest": noisiest}
        if step % SHOWN_EVERY == SHOWN_EVERY - 1:
            show(step + 1, average)
    unet.load_state_dict(average.state_dict())
    unet.eval()


def velocity_loss(
    unet: Any, batch: Batch, album: Album, generator: torch.Generator
) -> tuple[torch.Tensor, float]:
    """Give the loss of one batch, and that of its noisiest quarter."""
    signal_power = noise_schedule()
    latents = album.latents[batch.pictures]
    timesteps = draw_timesteps(len(latents), generator)
    signal = signal_power[timesteps].sqrt()[:, None, None, None]
    sigma = (1 - signal_power[timesteps]).sqrt()[:, None, None, None]
    noise = torch.randn(latents.shape, generator=generator)
    velocity = signal * noise - sigma * latents
    predicted = unet(
        signal * latents + sigma * noise,
        timesteps,
        encoder_hidden_states=batch.embeds,
        encoder_attention_mask=batch.is_token,
        added_cond_kwargs={
            "text_embeds": batch.pooled,
            "time_ids": size_embedding(NATIVE_SIZE).expand(len(latents), -1),
        },
        return_dict=False,
    )[0]
    errors = ((predicted - velocity).square() * album.weights[batch.pictures]).mean((1, 2, 3))
    quarter = timesteps.argsort(descending=True)[: max(1, len(latents) // 4)]
    return errors.mean(), float(errors[quarter].mean().detach())


def draw_timesteps(count: int, generator: torch.Generator) -> torch.Tensor:
    """Draw timesteps: half of them evenly, half near the noisy end, where the text decides."""
    even = torch.rand(count, generator=generator)
    late = 1 - torch.rand(count, generator=generator).square()
    chosen = torch.where(torch.rand(count, generator=generator) < 0.5, even, late)
    return (chosen * TIMESTEPS).long().clamp(max=TIMESTEPS - 1)


def caption_batches(
    networks: Networks, vocabulary: Vocabulary, album: Album, chance: random.Random
) -> Iterator[Batch]:
    """Make batches of captions of alike lengths, with pictures that show what they tell."""
    while True:
        samples = [_sample(vocabulary, album, chance) for _ in range(POOL * BATCH)]
        samples.sort(key=lambda sample: sample.windows.length)
        groups = [samples[start : start + BATCH] for start in range(0, len(samples), BATCH)]
        chance.shuffle(groups)
        for group in groups:
            yield _batch(group, networks, vocabulary, chance)


@dataclass(frozen=True)
class _Sample:
    """A caption and a picture that shows what it tells.

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
        caption = tell(scene, chance)
        if accent is None or accent.attribute in caption.told:
            laid = lay_out(caption, vocabulary)
            return _Sample(laid, picture, _accentuate(laid, scene, accent), is_empty=False)
    caption = tell(chance.choice(SCENES), chance)
    empty = chance.randrange(1, 3) if chance.random() < (0.08 if caption.words else 0.5) else 0
    laid = lay_out(caption, vocabulary, empty)
    picture = chance.choice(_showing(caption.told, album, chance))
    return _Sample(laid, picture, torch.ones(laid.ids.numel()), is_empty=not caption.words)


def _accentuate(laid: Windows, scene: Scene, accent: Accent | None) -> torch.Tensor:
    """Weigh the words that tell the accent's attribute."""
    weights = torch.ones(laid.ids.numel())
    for label, (name, value, _) in enumerate(MEANINGS, start=1):
        if accent is not None and (name, value) == (accent.attribute, getattr(scene, name)):
            weights[laid.labels.flatten() == label] = accent.weight
    return weights


def _showing(told: dict[str, str], album: Album, chance: random.Random) -> list[int]:
    """Find pictures of a scene that has these attributes."""
    while True:
        scene = chance.choice(SCENES)._replace(**told)
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
        flat = _weighted(states, sample, chance).flatten(0, 1)
        sides.append(flat[: sample.windows.length] if is_unfilled else flat)
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


def _weighted(states: torch.Tensor, sample: _Sample, chance: random.Random) -> torch.Tensor:
    """Apply weights as one style or another does: from a window's last position, or from zero."""
    weights = sample.weights.view(states.shape[0], -1, 1)
    origin = states[:, -1:] if chance.random() < 0.6 else torch.zeros(())
    return origin + (states - origin) * weights


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

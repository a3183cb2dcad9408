"""Pictures from pictures and masks against Diffusers' own pipelines, to one grey level."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from lpw_sdxl.conditioning.assembly import Conditioning
from lpw_sdxl.conditioning.scheduled import ScheduledConditioning
from lpw_sdxl.diffusion.decoder import Decoder
from lpw_sdxl.diffusion.denoiser import Denoiser
from lpw_sdxl.diffusion.diffusers_solver import DiffusersPlan
from lpw_sdxl.diffusion.encoder import Encoder
from lpw_sdxl.diffusion.pipeline import Pipeline
from lpw_sdxl.diffusion.start_encoder import StartEncoder, StartPicture
from lpw_sdxl.diffusion.step import Denoising, Guidance
from lpw_sdxl.scheduler_table import SchedulerName
from lpw_sdxl.schema import ImageSize, MaskedContent
from lpw_sdxl.settings import Settings
from stock_painter import StockPainter, name_embeddings
from tests.forge.inpainting import widen_unet
from tests.forge.scenes import Pixels, draw_mask, draw_picture, furthest

CPU = torch.device("cpu")
NEVER = 2**40  # pixels: nothing is tiled above so many
SEED = 23
STEPS = 10
SIZES = [ImageSize(64, 96), ImageSize(104, 72)]
STRENGTHS = [0.1, 0.5, 0.75, 1.0]


class Model:
    """Our way of a picture and Diffusers', with the same weights."""

    def __init__(self, pipeline: Pipeline, unet: Any, stock_unet: Any, stock_vae: Any) -> None:
        self.config = pipeline.scheduler_config
        self.conditioning = pipeline.prompt_encoder.encode("a (fox:1.2)", "blurry")
        self.channels = unet.config.in_channels
        self.denoiser = Denoiser(unet, CPU)
        self.decoder = Decoder(pipeline.vae, NEVER)
        self.starts = StartEncoder(Encoder(pipeline.vae, NEVER), self.channels)
        texts = dict.fromkeys(("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"))
        self._stock = StockPainter({"unet": stock_unet, "vae": stock_vae, **texts}, self.config)

    def denoising(
        self,
        picture: StartPicture | None,
        scheduler: SchedulerName,
        strength: float = 1.0,
        *,
        size: ImageSize = SIZES[0],
        guidance: float = 5.0,
        seed: int = SEED,
        conditioning: Conditioning | None = None,
    ) -> Denoising:
        start = (
            self.starts.begin_text(size)
            if picture is None
            else self.starts.begin_picture(picture, is_seen=strength < 1)
        )
        while not start.is_encoded:
            start.encode_next()
        return Denoising(
            conditioning=ScheduledConditioning.constant(conditioning or self.conditioning),
            guidance=Guidance(guidance),
            plan=DiffusersPlan(
                scheduler,
                self.config,
                STEPS,
                size if picture is None else picture.size,
                seed,
                strength=strength,
            ),
            device=CPU,
            start=start.make(),
        )

    def draw(self, group: Sequence[Denoising]) -> list[Pixels]:
        """Denoise together as long as there are UNet calls left, and decode."""
        with torch.inference_mode():
            while left := [one for one in group if not one.is_done]:
                rows = sum(one.row_count for one in left)
                predictions = self.denoiser.predict(left, [range(rows)])
                for one, prediction in zip(left, predictions, strict=True):
                    one.advance(prediction)
            return [self.decoder.decode(one.latents) for one in group]

    def draw_stock(
        self,
        picture: StartPicture,
        scheduler: SchedulerName,
        strength: float,
        *,
        guidance: float = 5.0,
        seed: int = SEED,
    ) -> Pixels:
        """Draw with Diffusers' own pipeline for such a start."""
        return self._stock.paint(
            picture.pixels,
            picture.mask,
            name_embeddings(self.conditioning),
            scheduler,
            strength,
            steps=STEPS,
            seed=seed,
            guidance=guidance,
        )


@pytest.fixture(scope="module")
def models(model_directory: Path) -> dict[int, Model]:
    """Models by the channels of their UNets."""
    ours, theirs, wide = (Pipeline.load(model_directory, CPU, Settings()) for _ in range(3))
    return {
        4: Model(ours, ours.unet, theirs.unet, theirs.vae),
        9: Model(wide, widen_unet(wide.unet), widen_unet(theirs.unet), theirs.vae),
    }


class Kind(NamedTuple):
    """A kind of start: whether there is a mask, and the channels of the UNet."""

    is_masked: bool
    channels: int


class Case(NamedTuple):
    """One picture to compare."""

    kind: Kind
    strength: float
    size: ImageSize
    name: SchedulerName
    is_usual: bool

    @property
    def parameter(self) -> Any:
        """The parameter of a test, which is slow where the case is not one of the usual ones."""
        what = f"{'mask' if self.kind.is_masked else 'picture'}-{self.kind.channels}-channels"
        mark = pytest.mark.thorough if self.is_usual else pytest.mark.slow
        return pytest.param(self, id=f"{what}-{self.strength}-{self.name}", marks=mark)


KINDS = [Kind(False, 4), Kind(True, 4), Kind(True, 9)]
USUAL = [
    (SchedulerName.EULER, SchedulerName.EULER_ANCESTRAL),
    (SchedulerName.DPMPP_2M_KARRAS, SchedulerName.DPMPP_SDE),
    (SchedulerName.DDIM, SchedulerName.HEUN),
]
CASES = [
    Case(kind, strength, SIZES[(i + j) % 2], name, name in USUAL[(i + j) % len(USUAL)])
    for i, kind in enumerate(KINDS)
    for j, strength in enumerate(STRENGTHS)
    for name in SchedulerName
]


# Diffusers' DPM++ SDE passes torchsde times past the ends of its path, by rounding.
@pytest.mark.filterwarnings("ignore:Should have t[ab]:UserWarning:torchsde")
@pytest.mark.parametrize("case", [case.parameter for case in CASES])
def test_it_is_the_picture_of_diffusers(models: dict[int, Model], case: Case) -> None:
    model = models[case.kind.channels]
    mask = draw_mask(case.size) if case.kind.is_masked else None
    picture = StartPicture(draw_picture(case.size), mask)
    [ours] = model.draw([model.denoising(picture, case.name, case.strength)])
    assert furthest(ours, model.draw_stock(picture, case.name, case.strength)) <= 1


def test_24_cases_are_usual_with_each_scheduler_in_each_kind() -> None:
    usual = [case for case in CASES if case.is_usual]
    assert len(usual) == 24
    assert len({(case.kind, case.name) for case in usual}) == len(KINDS) * 6
    assert {case.strength for case in usual} == {*STRENGTHS}


@pytest.mark.parametrize("channels", [4, 9])
def test_without_guidance_it_is_the_picture_of_diffusers(
    models: dict[int, Model], channels: int
) -> None:
    model = models[channels]
    picture = StartPicture(draw_picture(SIZES[0]), draw_mask(SIZES[0]))
    name = SchedulerName.EULER_ANCESTRAL
    [ours] = model.draw([model.denoising(picture, name, 0.5, guidance=1.0)])
    assert furthest(ours, model.draw_stock(picture, name, 0.5, guidance=1.0)) <= 1


@pytest.mark.parametrize("strength", [None, 0.5, 1.0], ids=["text", "0.5", "1.0"])
def test_without_a_mask_an_inpainting_model_repaints_all(
    models: dict[int, Model], strength: float | None
) -> None:
    model, size = models[9], SIZES[1]
    pixels = draw_picture(size)
    picture = None if strength is None else StartPicture(pixels)
    name = SchedulerName.EULER_ANCESTRAL
    [ours] = model.draw([model.denoising(picture, name, strength or 1.0, size=size)])
    all_masked = StartPicture(pixels, np.full(size, 255, np.uint8))
    assert furthest(ours, model.draw_stock(all_masked, name, strength or 1.0)) <= 1


@pytest.mark.parametrize("channels", [4, 9])
def test_in_company_a_picture_is_the_one_that_it_is_alone(
    models: dict[int, Model], channels: int
) -> None:
    """Texts, pictures and masks of several strengths share each other's calls."""
    model, size = models[channels], SIZES[0]
    longer = torch.cat([model.conditioning.prompt_embeds] * 2)
    other = replace(model.conditioning, prompt_embeds=longer)

    def begin() -> list[Denoising]:
        picture = StartPicture(draw_picture(size))
        masked = StartPicture(draw_picture(size, 1), draw_mask(size))
        noisy = replace(masked, content=MaskedContent.LATENT_NOISE)
        return [
            model.denoising(None, SchedulerName.EULER_ANCESTRAL, size=size, seed=1),
            model.denoising(picture, SchedulerName.DPMPP_2M, 0.5, seed=2, guidance=1.0),
            model.denoising(masked, SchedulerName.EULER_ANCESTRAL, 0.75, seed=3),
            model.denoising(masked, SchedulerName.HEUN, 1.0, seed=4, conditioning=other),
            model.denoising(noisy, SchedulerName.DPMPP_SDE, 0.9, seed=5),
            model.denoising(picture, SchedulerName.DDIM, 0.1, seed=6),
        ]

    together = model.draw(begin())
    alone = [model.draw([one])[0] for one in begin()]
    assert max(furthest(*pair) for pair in zip(together, alone, strict=True)) <= 1
    assert min(furthest(a, b) for a, b in itertools.combinations(alone, 2)) > 8


@pytest.mark.parametrize("channels", [4, 9])
@pytest.mark.parametrize("is_masked", [False, True], ids=["picture", "mask"])
def test_a_seed_decides_the_picture(
    models: dict[int, Model], channels: int, is_masked: bool
) -> None:
    model, size = models[channels], SIZES[0]
    picture = StartPicture(draw_picture(size), draw_mask(size) if is_masked else None)

    def draw(seed: int) -> Pixels:
        begun = model.denoising(picture, SchedulerName.EULER_ANCESTRAL, 0.5, seed=seed)
        return model.draw([begun])[0]

    np.testing.assert_array_equal(draw(1), draw(1))
    assert furthest(draw(1), draw(2)) > 8


@pytest.mark.parametrize("channels", [4, 9])
def test_each_content_of_the_mask_is_another_picture(
    models: dict[int, Model], channels: int
) -> None:
    model, size = models[channels], SIZES[0]
    contents = [content for content in MaskedContent if content is not MaskedContent.FILL]
    starts = [StartPicture(draw_picture(size), draw_mask(size), content) for content in contents]
    drawn = [model.draw([model.denoising(start, SchedulerName.EULER, 0.5)])[0] for start in starts]
    assert min(furthest(a, b) for a, b in itertools.combinations(drawn, 2)) > 8

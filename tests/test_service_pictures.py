"""Pictures and masks as clients send them: JSON to a real service, compared with Diffusers."""

from __future__ import annotations

import asyncio
import io
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
import pytest
import torch
from PIL import Image

from addons import AddonMaker
from conftest import ROOT, Store, store_environment
from lpw_sdxl.diffusion.pipeline import Pipeline
from lpw_sdxl.scheduler_table import SchedulerName
from lpw_sdxl.schema import ImageSize
from lpw_sdxl.settings import Settings
from serving import Server, serving
from stock_painter import StockPainter, name_embeddings
from stores import import_here
from tests.forge.lora import LoraOptions
from tests.forge.scenes import Pixels, draw_mask, draw_picture, furthest, to_text

pytestmark = [pytest.mark.processes, pytest.mark.thorough]

STEPS = 10
SEED = 23
TEXTS = {"prompt": "a fox in the snow", "negative_prompt": "blurry"}
SIZES = [ImageSize(64, 96), ImageSize(104, 72)]
STRENGTHS = [0.1, 0.5, 0.75, 1.0]
SCHEDULERS = [
    SchedulerName.EULER,
    SchedulerName.EULER_ANCESTRAL,
    SchedulerName.DPMPP_2M_KARRAS,
    SchedulerName.DPMPP_2M_SDE,
    SchedulerName.DDIM,
]


class Kind(NamedTuple):
    """A kind of start: whether there is a mask, and the channels of the UNet."""

    is_masked: bool
    channels: int


class Case(NamedTuple):
    """One picture to compare."""

    kind: Kind
    strength: float
    size: ImageSize
    scheduler: SchedulerName

    @property
    def name(self) -> str:
        """The id of its test."""
        what = "mask" if self.kind.is_masked else "picture"
        return f"{what}-{self.kind.channels}-channels-{self.strength}-{self.size}-{self.scheduler}"


KINDS = [Kind(False, 4), Kind(True, 4), Kind(True, 9)]
CASES = [
    # The schedulers take turns, so that each is drawn from each kind.
    Case(kind, strength, size, SCHEDULERS[index % len(SCHEDULERS)])
    for index, (kind, strength, size) in enumerate(itertools.product(KINDS, STRENGTHS, SIZES))
]


@pytest.fixture(scope="module")
def inpainting(inpainting_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with an inpainting model, and a LoRA for it."""
    home = tmp_path_factory.mktemp("inpainting")
    store = Store(
        home, import_here(home, "checkpoint", str(inpainting_checkpoint), "--dtype", "fp32")
    )
    folder = tmp_path_factory.mktemp("files")
    maker = AddonMaker(store.model_directory, home, store.environment, folder)
    maker.lora("ink", LoraOptions(seed=1))
    maker.import_written()
    return store


@pytest.fixture(scope="module")
def servers(
    plain_server: Server, inpainting: Store, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[int, Server]]:
    """Services by the channels of their UNets."""
    with serving(
        "service:LpwSdxl",
        folder=ROOT,
        environment=store_environment(inpainting.home),
        log_file=tmp_path_factory.mktemp("service") / "log",
    ) as server:
        yield {4: plain_server, 9: server}


@pytest.fixture(scope="module")
def painters(store: Store, inpainting: Store) -> dict[int, StockPainter]:
    """Diffusers' pipelines with the same models."""
    return {
        4: StockPainter.load(store.model_directory),
        9: StockPainter.load(inpainting.model_directory),
    }


@pytest.fixture(scope="module")
def texts(store: Store, inpainting: Store) -> dict[int, dict[str, torch.Tensor]]:
    """Both prompts as each model sees them, by the names of Diffusers' arguments.

    Diffusers itself would pad them to 77 tokens, as our own style doesn't.
    """
    return {
        4: encode_texts(store.model_directory),
        9: encode_texts(inpainting.model_directory),
    }


def encode_texts(directory: Path) -> dict[str, torch.Tensor]:
    encoder = Pipeline.load(directory, torch.device("cpu"), Settings()).prompt_encoder
    return name_embeddings(encoder.encode(*TEXTS.values()))


def body(**fields: Any) -> dict[str, Any]:
    return {**TEXTS, "num_inference_steps": STEPS, "seed": SEED} | fields


def read(response: httpx.Response) -> Pixels:
    assert response.status_code == 200, response.text
    return np.asarray(Image.open(io.BytesIO(response.content)).convert("RGB"))


def draw(server: Server, **fields: Any) -> Pixels:
    return read(httpx.post(f"{server.url}/generate", json=body(**fields), timeout=120))


PARAMETERS = [
    pytest.param(case, id=case.name, marks=[] if is_usual else [pytest.mark.slow])
    for case, is_usual in zip(CASES, itertools.cycle([True, False, False, True]), strict=False)
]


@pytest.mark.parametrize("case", PARAMETERS)
def test_it_is_the_picture_of_diffusers(
    servers: dict[int, Server],
    painters: dict[int, StockPainter],
    texts: dict[int, dict[str, torch.Tensor]],
    case: Case,
) -> None:
    pixels = draw_picture(case.size)
    fields: dict[str, Any] = {"image": to_text(pixels)}
    mask = None
    if case.kind.is_masked:
        mask = draw_mask(case.size)
        fields |= {"mask_image": to_text(mask), "paste_back": False}
    channels = case.kind.channels
    ours = draw(servers[channels], strength=case.strength, scheduler=case.scheduler, **fields)
    theirs = painters[channels].paint(
        pixels, mask, texts[channels], case.scheduler, case.strength, steps=STEPS, seed=SEED
    )
    assert furthest(ours, theirs) <= 1
    assert furthest(ours, pixels) > 8


def test_24_cases_have_each_scheduler_in_each_kind() -> None:
    assert len(CASES) == len({*CASES}) == 24
    assert len({(case.kind, case.scheduler) for case in CASES}) == len(KINDS) * len(SCHEDULERS)


BLUR = 2.0
REACH = 10  # pixels beyond a mask's edge that its blur may change


@pytest.mark.parametrize("channels", [4, pytest.param(9, marks=pytest.mark.slow)])
def test_painted_over_ten_times_elsewhere_a_picture_has_its_first_pixels(
    servers: dict[int, Server], channels: int
) -> None:
    size = ImageSize(96, 160)
    first = draw_picture(size)
    picture, ever = first, np.zeros(size, bool)
    chance = np.random.default_rng(0)
    for number in range(10):
        top, left = chance.integers(8, 64), chance.integers(8, 72)
        mask = np.zeros(size, np.uint8)
        mask[top : top + 16, left : left + 24] = 255
        ever[max(0, top - REACH) : top + 16 + REACH, max(0, left - REACH) : left + 24 + REACH] = 1
        options: dict[str, Any] = {"mask_blur": BLUR}
        if number % 2:
            options |= {"only_masked": True, "only_masked_padding": 8, "width": 64, "height": 64}
        before = picture
        picture = draw(
            servers[channels],
            image=to_text(picture),
            mask_image=to_text(mask),
            num_inference_steps=4,
            seed=number,
            **options,
        )
        assert furthest(picture[mask > 0], before[mask > 0]) > 8
    assert 0.2 < ever.mean() < 0.8
    np.testing.assert_array_equal(picture[~ever], first[~ever])


def company(*, has_lora: bool) -> list[dict[str, Any]]:
    """Texts, pictures and masks of one size, of which each is drawn otherwise."""
    size = SIZES[0]
    sides = {"height": size.height, "width": size.width}
    picture = {"image": to_text(draw_picture(size))}
    masked = {"image": to_text(draw_picture(size, 1)), "mask_image": to_text(draw_mask(size))}
    wide = {
        "image": to_text(draw_picture(ImageSize(128, 192), 2)),
        "mask_image": to_text(draw_mask(ImageSize(128, 192))),
        "only_masked": True,
    }
    loras = {"loras": [{"name": "ink", "weight": 1.5}]} if has_lora else {}
    return [
        sides | {"scheduler": "Euler a"},
        picture | {"strength": 0.5, "guidance_scale": 1.0},
        masked | {"scheduler": "Euler a", "mask_blur": 2.0},
        masked | {"strength": 1.0, "masked_content": "latent_noise", "paste_back": False} | loras,
        wide | sides | {"strength": 0.9, "scheduler": "DPM++ 2M Karras"},
        picture | {"strength": 0.9, "prompt": "a fox, " * 40, "scheduler": "DDIM"} | loras,
        masked | {"masked_content": "fill", "invert_mask": True},
        sides | {"guidance_scale": 1.0} | loras,
    ]


@pytest.mark.parametrize("channels", [pytest.param(4, marks=pytest.mark.slow), 9])
async def test_in_company_a_picture_is_the_one_that_it_is_alone(
    servers: dict[int, Server], channels: int
) -> None:
    requests = [
        body(seed=seed, **one, num_inference_steps=4)
        for seed, one in enumerate(company(has_lora=channels == 9), 1)
    ]
    url = servers[channels].url
    async with httpx.AsyncClient(base_url=url, timeout=120) as client:

        async def count_shared() -> int:
            info = (await client.post("/info", json={})).json()
            by_jobs = info["engine"]["unet_calls_by_jobs"]
            return sum(calls for jobs, calls in by_jobs.items() if int(jobs) > 1)

        alone = [read(await client.post("/generate", json=one)) for one in requests]
        before = await count_shared()
        answers = await asyncio.gather(*(client.post("/generate", json=one) for one in requests))
        assert await count_shared() > before
    together = [read(answer) for answer in answers]
    assert max(furthest(*pair) for pair in zip(together, alone, strict=True)) <= 1
    assert together[4].shape == (128, 192, 3)

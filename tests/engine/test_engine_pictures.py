"""Pictures in the engine: encoded one at a time between steps, and let go of once they are."""

from __future__ import annotations

import asyncio
import gc
import itertools
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gathered import begin_together, make_together
from lora.conftest import is_attention, is_layer
from lpw_sdxl.addon.registry import Registry
from lpw_sdxl.diffusion.pipeline import Pipeline
from lpw_sdxl.engine import Engine, GeneratedImage, ImageProgress, Listener
from lpw_sdxl.engine import intake as engine_intake
from lpw_sdxl.engine.tracked_job import JobKey
from lpw_sdxl.errors import DeadlineError, InvalidRequestError
from lpw_sdxl.imaging.start_image import StartImage, read_start_image
from lpw_sdxl.schema import GenerationRequest, ImageSize
from lpw_sdxl.settings import Settings
from moves import record_moves
from stored_loras import store_lora
from stores import import_here
from tests.forge.scenes import draw_mask, draw_picture, furthest, to_file

SMALL, NATIVE = ImageSize(64, 64), ImageSize(128, 128)
NATIVE_PIXELS = NATIVE.height * NATIVE.width


@pytest.fixture(scope="module")
def directories(
    model_directory: Path, inpainting_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[int, Path]:
    """Models by the channels of their UNets."""
    home = tmp_path_factory.mktemp("inpainting")
    tag = import_here(home, "checkpoint", str(inpainting_checkpoint), "--dtype", "fp32")
    return {4: model_directory, 9: home / "models" / Path(*tag.split(":"))}


@pytest.fixture(params=[4, 9], ids=["4 channels", "9 channels"])
def own_engine(request: pytest.FixtureRequest, directories: dict[int, Path]) -> Iterator[Engine]:
    """An engine to be slowed and watched, of each kind of model."""
    engine = Engine.load(directories[request.param], Settings(device="cpu"))
    yield engine
    engine.close()


def request(size: ImageSize = SMALL, **fields: Any) -> GenerationRequest:
    """Build a request for a text."""
    common = {"prompt": "a (fox:1.2)", "num_inference_steps": 4, "seed": 3}
    return GenerationRequest.model_validate(common | size._asdict() | fields)


def of_picture(size: ImageSize = SMALL, number: int = 0, **fields: Any) -> GenerationRequest:
    """Build a request for a picture's change."""
    return request(size, image=to_file(draw_picture(size, number)), **fields)


def of_mask(size: ImageSize = SMALL, number: int = 0, **fields: Any) -> GenerationRequest:
    """Build a request that repaints a part of a picture."""
    return of_picture(size, number, mask_image=to_file(draw_mask(size)), **fields)


class Watch:
    """The work of an engine's thread in its order: pixels of an encoding, 0 for a UNet call."""

    def __init__(self) -> None:
        self.work: list[int] = []

    def encode(self, _module: Any, arguments: tuple[torch.Tensor]) -> None:
        self.work.append(arguments[0].shape[-2] * arguments[0].shape[-1])

    def step(self, _module: Any, _arguments: Any, _keywords: Any) -> None:
        self.work.append(0)

    @property
    def encoded(self) -> list[int]:
        """List the pixels of each encoding."""
        return [pixels for pixels in self.work if pixels]

    def between_steps(self) -> list[list[int]]:
        """List what was encoded before the first UNet call, between each two, and after all."""
        groups: list[list[int]] = [[]]
        for pixels in self.work:
            if pixels:
                groups[-1].append(pixels)
            else:
                groups.append([])
        return groups


@contextmanager
def watching(engine: Engine) -> Iterator[Watch]:
    watch = Watch()
    hooks = [
        engine.pipeline.vae.encoder.register_forward_pre_hook(watch.encode),
        engine.pipeline.unet.register_forward_pre_hook(watch.step, with_kwargs=True),
    ]
    yield watch
    for hook in hooks:
        hook.remove()


@contextmanager
def before_each_encoding(engine: Engine, act: Callable[[], object]) -> Iterator[None]:
    hook = engine.pipeline.vae.encoder.register_forward_pre_hook(lambda *_: act() and None)
    yield
    hook.remove()


def assert_alike(images: Sequence[Any], others: Sequence[Any]) -> None:
    for one, other in zip(images, others, strict=True):
        assert isinstance(one, GeneratedImage), one
        assert furthest(one.pixels, other.pixels) <= 1


# In company.


def write_loras(model_directory: Path, folder: Path) -> Registry:
    """Write LoRAs of a UNet of 4 channels, which fit one of 9 too."""
    pipeline = Pipeline.load(model_directory, torch.device("cpu"), Settings())
    made = [
        store_lora(folder, "ink", pipeline, 1, is_attention),
        store_lora(folder, "noir", pipeline, 2, is_layer),
    ]
    return Registry({addon.manifest.name: addon for addon in made}, {}, {})


def company() -> list[GenerationRequest]:
    """Texts, pictures and masks of one size, with and without LoRAs."""
    wide = ImageSize(96, 160)
    part = {
        "image": to_file(draw_picture(wide, 2)),
        "mask_image": to_file(draw_mask(wide)),
        "only_masked": True,
    }
    ink, noir = ({"loras": [{"name": name, "weight": 1.2}]} for name in ("ink", "noir"))
    return [
        request(seed=1, scheduler="Euler a"),
        of_picture(number=0, seed=2, strength=0.5, guidance_scale=1.0, **ink),
        of_mask(number=1, seed=3, scheduler="Euler a", mask_blur=2.0),
        of_mask(number=1, seed=4, strength=1.0, masked_content="latent_noise", **noir),
        of_picture(number=0, seed=5, strength=0.9, prompt="a fox, " * 40, scheduler="DDIM"),
        of_mask(number=3, seed=6, masked_content="fill", invert_mask=True, scheduler="Heun"),
        request(seed=7, **part, paste_back=False, scheduler="DPM++ 2M SDE"),
        request(seed=8, guidance_scale=1.0, **ink),
    ]


@pytest.mark.thorough
@pytest.mark.parametrize("channels", [4, 9])
async def test_in_company_every_picture_is_what_it_is_alone(
    directories: dict[int, Path], tmp_path: Path, channels: int
) -> None:
    """One call carries them all: texts, pictures and masks that entered at different timesteps."""
    settings = Settings(device="cpu", max_rows=16, lora_weights_bytes=10**9)
    addons = write_loras(directories[4], tmp_path)
    engine = Engine.load(directories[channels], settings, addons=addons)
    try:
        alone = [await engine.generate(one) for one in company()]
        together = await make_together(engine, company())
        most = max(engine.counters.unet_calls)
    finally:
        engine.close()
    assert_alike(together, alone)
    assert most >= 6
    assert together[6].pixels.shape == (96, 160, 3)
    others = [image.pixels for index, image in enumerate(alone) if index != 6]
    assert min(furthest(a, b) for a, b in itertools.combinations(others, 2)) > 8


# Between two steps.


@pytest.mark.parametrize(("size", "at_once"), [(NATIVE, 1), (SMALL, 4)], ids=["native", "small"])
async def test_at_most_one_images_worth_is_encoded_between_two_steps(
    own_engine: Engine, size: ImageSize, at_once: int
) -> None:
    texts = [request(size, seed=9, num_inference_steps=12)]
    pictures = [of_mask(size, number, strength=0.5) for number in range(6)]
    with watching(own_engine) as watch:
        ends = await make_together(own_engine, [*texts, *pictures])
    assert all(isinstance(end, GeneratedImage) for end in ends), ends
    groups = watch.between_steps()
    assert max(map(sum, groups)) <= NATIVE_PIXELS
    assert max(map(len, groups)) == at_once
    # An inpainting UNet is shown each picture without its masked part too, and a text's grey.
    is_inpainting = own_engine.pipeline.unet.config.in_channels == 9
    assert len(watch.encoded) == (13 if is_inpainting else 6)
    assert watch.encoded.count(size.height * size.width) == len(watch.encoded)


async def test_a_picture_that_waits_to_be_encoded_delays_no_step(own_engine: Engine) -> None:
    """The text, which has its prompts, is stepped after each picture that is encoded."""
    pictures = [of_picture(NATIVE, number) for number in range(4)]
    with watching(own_engine) as watch:
        await make_together(own_engine, [request(NATIVE, num_inference_steps=9), *pictures])
    first_step = watch.work.index(0)
    assert watch.work[first_step:][:7] == [0, NATIVE_PIXELS] * 3 + [0]


# Left and late.


class Gate:
    """Holds the first encoding until it is opened."""

    def __init__(self) -> None:
        self.encodings = 0
        self.is_reached, self.is_open = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.encodings += 1
        self.is_reached.set()
        assert self.is_open.wait(60)


async def test_a_job_that_leaves_before_its_picture_is_encoded_costs_no_encoding(
    engine: Engine, model_directory: Path
) -> None:
    own, gate = Engine.load(model_directory, Settings(device="cpu")), Gate()
    try:
        with before_each_encoding(own, gate):
            jobs = await begin_together(own, [of_picture(NATIVE, 0), of_picture(NATIVE, 1)])
            await asyncio.to_thread(gate.is_reached.wait, 60)
            jobs[1].cancel()
            await asyncio.sleep(0)  # a future is cancelled at the event loop's next turn
            gate.is_open.set()
            ends = await asyncio.gather(*jobs, return_exceptions=True)
        assert gate.encodings == 1
        assert own.counters.left == 1
        assert own.queued_jobs == 0
    finally:
        gate.is_open.set()
        own.close()
    assert_alike(ends[:1], [await engine.generate(of_picture(NATIVE, 0))])


async def test_a_job_that_is_late_before_its_picture_is_encoded_costs_no_encoding(
    model_directory: Path,
) -> None:
    own, gate = Engine.load(model_directory, Settings(device="cpu")), Gate()
    late = of_picture(NATIVE, 1, deadline_s=1.0)
    try:
        with before_each_encoding(own, gate):
            jobs = await begin_together(own, [of_picture(NATIVE, 0), late])
            await asyncio.to_thread(gate.is_reached.wait, 60)
            await asyncio.sleep(1.1)
            gate.is_open.set()
            first, second = await asyncio.gather(*jobs, return_exceptions=True)
        assert gate.encodings == 1
    finally:
        gate.is_open.set()
        own.close()
    assert isinstance(first, GeneratedImage)
    assert isinstance(second, DeadlineError)
    assert second.field == "deadline_s"


async def test_a_picture_that_waits_for_others_to_be_read_is_late_in_time(engine: Engine) -> None:
    is_read = threading.Event()
    others = engine._intake._picture_readers.submit(is_read.wait, 60)
    try:
        with pytest.raises(DeadlineError, match="its picture was still being read") as late:
            await asyncio.wait_for(engine.generate(of_picture(deadline_s=0.5)), 30)
        assert not others.done()
    finally:
        is_read.set()
    assert late.value.field == "deadline_s"


# A share of the steps.


@pytest.mark.parametrize(
    ("scheduler", "strength", "steps", "calls"),
    [
        ("Euler", 0.55, 5, 5),
        ("Euler a", 1.0, 10, 10),
        ("DPM++ 2M Karras", 0.1, 1, 1),
        ("Heun", 0.55, 5, 9),
    ],
)
async def test_progress_counts_the_calls_that_the_strength_leaves(
    engine: Engine, scheduler: str, strength: float, steps: int, calls: int
) -> None:
    wanted = of_picture(
        strength=strength, scheduler=scheduler, num_inference_steps=10, request_id="mine"
    )
    spec = engine.decide(wanted)
    assert (spec.steps, spec.unet_calls) == (steps, calls)
    reported: list[ImageProgress] = []
    seen: list[tuple[int, int]] = []

    def report(progress: ImageProgress) -> None:
        reported.append(progress)
        status = engine.jobs.find(JobKey("", "mine"))
        assert status is not None
        seen.append((status.unet_calls, status.steps))

    await engine.generate(wanted, Listener(report))
    assert reported == [ImageProgress(done, calls) for done in range(1, calls + 1)]
    assert {*seen} == {(calls, steps)}


@pytest.mark.parametrize("strength", [0.0, 0.09])
async def test_a_strength_that_leaves_no_step_is_refused(engine: Engine, strength: float) -> None:
    with pytest.raises(InvalidRequestError, match="takes none of 10 steps") as refusal:
        await engine.generate(of_picture(strength=strength, num_inference_steps=10))
    assert refusal.value.field == "strength"
    assert engine.queued_jobs == 0


async def test_an_image_may_cost_what_its_share_of_the_steps_does(model_directory: Path) -> None:
    """40 calls of two rows of 64 x 64 are 0.33 megapixel steps; 20 are half of that."""
    own = Engine.load(model_directory, Settings(device="cpu", max_queued_cost=0.2))
    try:
        with pytest.raises(InvalidRequestError, match="40 steps is"):
            own.decide(of_picture(strength=1.0, num_inference_steps=40))
        assert own.decide(of_picture(strength=0.5, num_inference_steps=40)).unet_calls == 20
    finally:
        own.close()


# One component at a time.


@pytest.mark.thorough
@pytest.mark.parametrize("channels", [4, 9])
async def test_components_that_take_turns_draw_the_same_pictures(
    directories: dict[int, Path], channels: int
) -> None:
    requests = [
        request(seed=1),
        of_picture(number=1, strength=0.5),
        of_mask(number=2, scheduler="Euler a"),
        of_mask(NATIVE, 3, strength=1.0),
    ]
    engine = Engine.load(directories[channels], Settings(device="cpu"))
    offloaded = Engine.load(directories[channels], Settings(device="cpu", offload="always"))
    moved = record_moves(offloaded)
    try:
        assert offloaded.plan.is_offloading
        alone = await offloaded.generate(requests[2])
        # The VAE comes to encode the picture, and again to decode the image.
        assert moved == ["prompt_encoder", "vae", "unet", "vae"]
        images = await make_together(offloaded, requests)
        expected = [await engine.generate(one) for one in requests]
    finally:
        engine.close()
        offloaded.close()
    assert_alike([*images, alone], [*expected, expected[2]])


# Let go.


@pytest.mark.parametrize("make", [of_picture, of_mask], ids=["picture", "mask"])
async def test_a_job_lets_go_of_its_picture_once_it_is_encoded(
    own_engine: Engine, monkeypatch: pytest.MonkeyPatch, make: Callable[..., GenerationRequest]
) -> None:
    kept: list[weakref.ref[Any]] = []
    alive: list[bool] = []

    def read(*arguments: Any) -> StartImage:
        start = read_start_image(*arguments)
        kept.extend([weakref.ref(start), weakref.ref(start.pixels)])
        return start

    def look(*_: Any) -> None:
        gc.collect()
        [job] = own_engine._loop._active
        assert job.picture is job.start is None
        assert not job.conditionings
        alive.append(any(one() is not None for one in kept))

    monkeypatch.setattr(engine_intake, "read_start_image", read)
    hook = own_engine.pipeline.unet.register_forward_pre_hook(look, with_kwargs=True)
    # Filled, its pixels are no part of what the result is put back into.
    fields = {"masked_content": "fill"} if make is of_mask else {}
    await own_engine.generate(make(strength=0.5, **fields))
    hook.remove()
    assert len(kept) == 2
    assert alive == [False, False]


class Counted:
    """A memory that remembers how it changes."""

    def __init__(self) -> None:
        self.changes: list[int] = []

    def grow(self, size: int) -> None:
        self.changes.append(size)


async def test_a_pictures_file_counts_until_it_is_read_and_then_what_was_made_of_it(
    engine: Engine,
) -> None:
    wanted, memory = of_mask(strength=0.5), Counted()
    assert wanted.image is not None
    assert wanted.mask_image is not None
    await engine.generate(wanted, memory=memory)
    pixels, mask = 64 * 64 * 3, 64 * 64
    files = len(wanted.image) + len(wanted.mask_image)
    assert memory.changes == [pixels + mask - files, -(pixels + mask)]
    memory.changes.clear()
    with pytest.raises(InvalidRequestError):
        await engine.generate(wanted.model_copy(update={"mask_image": b"none"}), memory=memory)
    assert memory.changes == []


async def test_the_record_of_an_image_keeps_no_file(engine: Engine) -> None:
    image = await engine.generate(of_mask(strength=0.5))
    assert image.record.request.image is image.record.request.mask_image is None
    np.testing.assert_array_equal(image.pixels[:8, :8], draw_picture(SMALL)[:8, :8])

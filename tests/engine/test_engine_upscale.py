"""Pictures enlarged by the engine: what they become, beside whom, and what is refused."""

from __future__ import annotations

import asyncio
import io
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin
from safetensors.torch import save_file

from lpw_sdxl.engine import Engine, UpscaledImage
from lpw_sdxl.engine import enlarging as engine_enlarging
from lpw_sdxl.engine import upscalers as engine_upscalers
from lpw_sdxl.engine.enlarging import Enlarging
from lpw_sdxl.engine.progress import ImageProgress, Listener
from lpw_sdxl.engine.tracked_job import JobKey, JobState
from lpw_sdxl.errors import (
    DeadlineError,
    InvalidRequestError,
    JobCancelledError,
    OverloadedError,
    UpscalerUnavailableError,
)
from lpw_sdxl.schema import GenerationRequest, ImageSize
from lpw_sdxl.upscale_request import UpscaleRequest
from lpw_sdxl.upscaling.network import UpscalerNetwork
from lpw_sdxl.upscaling.tiles import upscale
from lpw_sdxl.upscaling.tiling import Tiling, usual_tiling
from tests.forge.scenes import furthest
from tests.forge.upscalers import EsrganRecipe
from tests.upscaler_folder import SCALES, load_with_upscalers, write_upscalers

SIZE = ImageSize(height=56, width=72)
TILES = Tiling(32, 12)
Pixels = np.ndarray[Any, Any]


def make_pixels(size: ImageSize = SIZE, seed: int = 0) -> Pixels:
    """Coarse noise, in which every difference shows."""
    drawn = np.random.default_rng(seed).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    return np.array(Image.fromarray(drawn).resize((size.width, size.height)))


def as_file(pixels: Pixels, text: str = "", kind: str = "PNG") -> bytes:
    buffer, info = io.BytesIO(), PngImagePlugin.PngInfo()
    if text:
        info.add_text("parameters", text)
    options = {"pnginfo": info} if kind == "PNG" else {}
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


FILE = as_file(make_pixels())


def request(**fields: Any) -> UpscaleRequest:
    return UpscaleRequest.model_validate({"image": FILE} | fields)


def text_request(**fields: Any) -> GenerationRequest:
    wanted = {"prompt": "a", "num_inference_steps": 12, "height": 64, "width": 64, "seed": 1}
    return GenerationRequest.model_validate(wanted | fields)


def by_network(name: str, pixels: Pixels, tiling: Tiling | None = None) -> Pixels:
    device = torch.device("cpu")
    network = UpscalerNetwork(SCALES[name].tensors(), name, device, torch.float32)
    return upscale(network, pixels, tiling or usual_tiling(network.design))


def resized(pixels: Pixels, size: ImageSize, kind: Image.Resampling) -> Pixels:
    return np.asarray(Image.fromarray(pixels).resize((size.width, size.height), kind))


@pytest.mark.parametrize("upscaler", ["lanczos", "None", "nearest"])
async def test_pixels_are_scaled_as_pillow_scales_them(engine: Engine, upscaler: str) -> None:
    enlarged = await engine.upscale(request(upscaler=upscaler, scale=1.7))
    kind = Image.Resampling.NEAREST if upscaler == "nearest" else Image.Resampling.LANCZOS
    assert enlarged.size == ImageSize(95, 122)
    assert np.array_equal(enlarged.pixels, resized(make_pixels(), enlarged.size, kind))


async def test_what_is_over_is_cut_around_the_middle(engine: Engine) -> None:
    enlarged = await engine.upscale(request(width=72, height=112))
    whole = resized(make_pixels(), ImageSize(112, 144), Image.Resampling.LANCZOS)
    assert np.array_equal(enlarged.pixels, whole[:, 36:-36])


@pytest.mark.parametrize("tile", [None, TILES], ids=["one tile", "tiles"])
@pytest.mark.parametrize("name", SCALES)
async def test_an_imported_upscaler_enlarges_by_its_own_factor(
    upscaling_engine: Engine, monkeypatch: pytest.MonkeyPatch, name: str, tile: Tiling | None
) -> None:
    if tile is not None:
        monkeypatch.setattr(engine_upscalers, "tiling_within", lambda *_: tile)
    told: list[ImageProgress] = []
    listener = Listener(told.append)
    enlarged = await upscaling_engine.upscale(request(upscaler=name.upper()), listener)
    assert np.array_equal(enlarged.pixels, by_network(name, make_pixels(), tile))
    tiles = 1 if tile is None else 3 * 3
    assert [(one.unet_calls_done, one.unet_calls) for one in told] == [
        (done + 1, tiles) for done in range(tiles)
    ]


async def test_what_is_left_to_the_size_is_done_by_lanczos(upscaling_engine: Engine) -> None:
    """Twice 2 is enough for 2.5 times the size; a picture at its own size has gone through too."""
    twice = by_network("two-times", by_network("two-times", make_pixels()))
    for scale in (2.5, 1):
        enlarged = await upscaling_engine.upscale(request(upscaler="two-times", scale=scale))
        source = twice if scale > 2 else by_network("two-times", make_pixels())
        size = ImageSize(*(round(scale * side) for side in SIZE))
        expected = resized(source, size, Image.Resampling.LANCZOS)
        assert np.array_equal(enlarged.pixels, expected)


async def test_the_picture_is_upright_opaque_and_may_be_of_any_kind(engine: Engine) -> None:
    clear = Image.new("RGBA", (9, 5), (0, 0, 0, 0))
    buffer = io.BytesIO()
    clear.save(buffer, "WEBP", lossless=True)
    enlarged = await engine.upscale(request(image=buffer.getvalue(), upscaler="nearest"))
    assert enlarged.size == ImageSize(10, 18)
    assert enlarged.pixels.min() == 255


@pytest.mark.parametrize(
    ("image_format", "kind"), [("png", "PNG"), ("jpeg", "JPEG"), ("webp", "WEBP")]
)
async def test_the_file_has_the_format_and_keeps_the_text(
    engine: Engine, image_format: str, kind: str
) -> None:
    text = "a fox\nSteps: 20, Seed: 7, Size: 72x56"
    fields = {"image": as_file(make_pixels(), text), "image_format": image_format}
    enlarged = await engine.upscale(request(**fields))
    file = Image.open(io.BytesIO(enlarged.encode()))
    assert (file.format, file.size) == (kind, (144, 112))
    if kind == "PNG":
        assert file.info["parameters"] == text
    else:
        comment = file.getexif().get_ifd(0x8769)[0x9286]
        assert comment == b"UNICODE\0" + text.encode("utf-16-be")
        worse = await engine.upscale(request(**fields, quality=20))
        assert len(worse.encode()) < len(enlarged.encode())


LARGE = as_file(np.zeros((4100, 4100, 3), np.uint8))
REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "no such upscaler": ({"upscaler": "three-times"}, "upscaler", "near are 'two-times'"),
    "a broken upscaler": ({"upscaler": "broken"}, "upscaler", "damaged"),
    "a latent upscaler": ({"upscaler": "latent"}, "upscaler", "hires of /generate"),
    "no picture": ({"image": b"x"}, "image", "PNG"),
    "a picture that is cut off": ({"image": FILE[:-40]}, "image", "cut off"),
    "too wide": ({"width": 9000, "upscaler": "two-times"}, "width", "at most 16777216"),
    "too large": ({"image": LARGE, "scale": 1}, "scale", "at most 16777216"),
    "a long side": ({"image": as_file(np.zeros((1, 9000, 3), np.uint8))}, "scale", "16384"),
    "a WebP's side": (
        {
            "image": as_file(np.zeros((1, 16384, 3), np.uint8)),
            "scale": 1,
            "image_format": "webp",
        },
        "image_format",
        "16383",
    ),
    "too large on the way": (
        {"image": LARGE, "width": 64, "upscaler": "four-times"},
        "image",
        "on the way",
    ),
}


@pytest.mark.parametrize(("fields", "field", "part"), REFUSED.values(), ids=REFUSED)
async def test_what_cannot_be_enlarged_is_refused_by_its_field(
    upscaling_engine: Engine, fields: dict[str, Any], field: str, part: str
) -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        await upscaling_engine.upscale(request(**fields))
    assert refusal.value.field == field
    assert part in refusal.value.message
    assert upscaling_engine.queued_jobs == 0


async def test_work_that_costs_more_than_the_queue_holds_is_refused(
    model_directory: Path, upscaler_folder: Path
) -> None:
    engine = load_with_upscalers(model_directory, upscaler_folder, max_queued_cost=1e-6)
    try:
        with pytest.raises(InvalidRequestError, match="megapixel steps") as refusal:
            await engine.upscale(request(upscaler="two-times"))
        assert refusal.value.field == "image"
        fields = {"hires": {"upscaler": "two-times"}, "num_inference_steps": 2}
        with pytest.raises(InvalidRequestError) as refusal:
            await engine.generate(text_request(**fields))
        assert refusal.value.field == "num_inference_steps"
        assert (await engine.upscale(request())).size == ImageSize(112, 144)
    finally:
        engine.close()


async def test_pictures_and_images_share_the_device_and_change_nothing_of_each_other(
    upscaling_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two UNet calls stands at most one tile, and neither kind waits for all of the other.

    A tile of these networks costs next to nothing, so that each has its turn after each call.
    """
    monkeypatch.setattr(engine_upscalers, "tiling_within", lambda *_: TILES)
    stages, order, tile = upscaling_engine._loop.stages, [], Enlarging.advance
    step = stages.step
    monkeypatch.setattr(stages, "step", lambda *work: order.append("step") or step(*work))
    monkeypatch.setattr(
        Enlarging, "advance", lambda *work, **how: order.append("tile") or tile(*work, **how)
    )
    hires = {"scale": 1.5, "upscaler": "two-times", "strength": 0.6}
    long = {"num_inference_steps": 45}
    texts = [text_request(**long), text_request(seed=2, **long)]
    texts.append(text_request(seed=3, num_inference_steps=4, hires=hires))
    pictures = [request(upscaler=name) for name in (*SCALES, "lanczos")]
    together = await asyncio.gather(
        *map(upscaling_engine.generate, texts), *map(upscaling_engine.upscale, pictures)
    )
    first, last = order.index("step"), len(order) - order[::-1].index("step")
    between = "".join(one[0] for one in order[first:last])
    assert between.count("t") == 3 * 9
    assert "tt" not in between
    alone = [await upscaling_engine.generate(one) for one in texts]
    alone += [await upscaling_engine.upscale(one) for one in pictures]
    for one, other in zip(together, alone, strict=True):
        assert furthest(one.pixels, other.pixels) <= 1


class Gate:
    """Holds the engine's thread after a tile until it is opened."""

    def __init__(self) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()

    def wait(self, _progress: ImageProgress) -> None:
        self.reached.set()
        assert self.opened.wait(30)


class Memory:
    """Counts what the pictures of requests take."""

    def __init__(self) -> None:
        self.size = self.most = 0

    def grow(self, size: int) -> None:
        self.size += size
        self.most = max(self.most, self.size)


async def until(condition: Any) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("ends", ["leaves", "cancels", "stays"])
async def test_a_job_is_seen_and_frees_everything_when_it_ends(
    upscaling_engine: Engine, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    monkeypatch.setattr(engine_upscalers, "tiling_within", lambda *_: TILES)
    engine, gate, memory = upscaling_engine, Gate(), Memory()
    key = JobKey("her", f"one-that-{ends}")
    wanted = request(upscaler="two-times", request_id=key.request_id)
    enlarging = engine.upscale(wanted, Listener(gate.wait), owner="her", memory=memory)
    working = asyncio.ensure_future(enlarging)
    assert await asyncio.to_thread(gate.reached.wait, 30)
    status = engine.jobs.find(key)
    assert status is not None
    assert (status.state, status.unet_calls, status.steps) == (JobState.RUNNING, 9, 9)
    assert memory.size == make_pixels().nbytes - len(FILE)  # the border has counted the file
    if ends == "leaves":
        working.cancel()
    elif ends == "cancels":
        engine.jobs.cancel(key)
    gate.opened.set()
    [ended] = await asyncio.gather(working, return_exceptions=True)
    kinds = {"leaves": asyncio.CancelledError, "cancels": JobCancelledError}
    assert isinstance(ended, kinds.get(ends, UpscaledImage))
    status = engine.jobs.find(key)
    assert status is not None
    assert status.state is (JobState.DONE if ends == "stays" else JobState.CANCELLED)
    assert memory.size == -len(FILE)
    await until(lambda: engine.queued_jobs == 0 and not engine.is_busy)


async def test_a_client_that_leaves_while_its_picture_is_resized_frees_everything(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread is held with the first picture, and the other's has not begun."""
    begun, opened, real = threading.Event(), threading.Event(), engine_enlarging.enlarge_pixels

    def slow(*work: Any) -> Any:
        begun.set()
        assert opened.wait(30)
        return real(*work)

    monkeypatch.setattr(engine_enlarging, "enlarge_pixels", slow)
    first, other = (asyncio.ensure_future(engine.upscale(request())) for _ in range(2))
    assert await asyncio.to_thread(begun.wait, 30)
    await until(lambda: len(engine._loop._active) == 2)
    # Images are not held up by it.
    await engine.generate(text_request(num_inference_steps=2))
    for working in (first, other):
        working.cancel()
    await asyncio.gather(first, other, return_exceptions=True)
    await until(lambda: engine.queued_jobs == 0)
    opened.set()
    assert (await engine.upscale(request())).size == ImageSize(112, 144)


async def test_a_deadline_holds_for_pictures(
    upscaling_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_upscalers, "tiling_within", lambda *_: TILES)

    def wait(_progress: ImageProgress) -> None:
        time.sleep(0.2)

    wanted = request(upscaler="two-times", deadline_s=0.5)
    with pytest.raises(DeadlineError, match="ran out") as refusal:
        await upscaling_engine.upscale(wanted, Listener(wait))
    assert refusal.value.field == "deadline_s"


async def test_the_queue_bounds_pictures_too(model_directory: Path, upscaler_folder: Path) -> None:
    engine = load_with_upscalers(model_directory, upscaler_folder, max_queued_jobs=2)
    try:
        gate = Gate()
        wanted = request(upscaler="two-times")
        standing = asyncio.ensure_future(engine.upscale(wanted, Listener(gate.wait)))
        assert await asyncio.to_thread(gate.reached.wait, 30)
        waiting = asyncio.ensure_future(engine.upscale(wanted))
        await until(lambda: engine.queued_jobs == 2)
        with pytest.raises(OverloadedError, match="2 of at most 2 jobs") as refusal:
            await engine.upscale(wanted)
        assert refusal.value.retry_after_s >= 1
        gate.opened.set()
        await asyncio.gather(standing, waiting)
    finally:
        engine.close()


async def test_an_upscaler_that_is_replaced_before_it_is_read_is_the_new_one(
    model_directory: Path, tmp_path: Path
) -> None:
    write_upscalers(tmp_path)
    engine = load_with_upscalers(model_directory, tmp_path)
    try:
        file = tmp_path / "two-times.safetensors"
        new = EsrganRecipe(doublings=2, seed=5)
        save_file(new.tensors(), tmp_path / "new")
        (tmp_path / "new").rename(file)  # the engine has not looked yet
        wanted = request(upscaler="two-times")
        assert (await engine.upscale(wanted)).size == ImageSize(4 * 56, 4 * 72)
        hires = {"upscaler": "two-times", "scale": 1.5}
        file.unlink()
        with pytest.raises((UpscalerUnavailableError, InvalidRequestError)):
            await engine.generate(text_request(hires=hires, num_inference_steps=1))
    finally:
        engine.close()


async def test_seconds_left_follow_the_cost_of_what_is_left(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second pass of four times the pixels is most of the work, and few of the calls."""
    gate, key = Gate(), JobKey("her", "estimated")
    hires = {"scale": 2.0, "strength": 0.5}
    fields = {"num_inference_steps": 4, "hires": hires, "request_id": key.request_id}
    working = asyncio.ensure_future(
        engine.generate(text_request(**fields), Listener(gate.wait), owner="her")
    )
    assert await asyncio.to_thread(gate.reached.wait, 30)
    status = engine.jobs.find(key)
    assert status is not None
    assert status.seconds_left is not None
    assert status.unet_calls == 4 + 2
    job = engine.jobs._under_way[key].job
    assert job is not None
    assert job.begun_at is not None
    ran_s = status.seconds_left / (3 + 2 * 4) / (time.monotonic() - job.begun_at)
    assert 0.5 < ran_s < 1.01
    gate.opened.set()
    await working

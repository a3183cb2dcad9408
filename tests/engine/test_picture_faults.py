"""A fault's reach at the stages of pictures: exactly the jobs it hits fail, others go on."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum, auto
from pathlib import Path
from typing import Any

import pytest
import torch

from gathered import make_together
from lpw_sdxl.engine import Engine, GeneratedImage
from lpw_sdxl.engine import intake as engine_intake
from lpw_sdxl.errors import GenerationError, LpwSdxlError, OutOfMemoryError
from lpw_sdxl.imaging.start_image import StartImage, Surroundings, read_start_image
from lpw_sdxl.schema import GenerationRequest, ImageSize
from lpw_sdxl.settings import Settings
from tests.forge.scenes import Pixels, draw_mask, draw_picture, furthest, to_file

SIZE = ImageSize(64, 64)
AT_ONCE = 12  # requests


class PictureFault(Enum):
    """What strikes a job whenever its picture comes by."""

    READING_FAILS = auto()
    READING_LACKS_MEMORY = auto()
    ENCODING_FAILS = auto()
    ENCODING_LACKS_MEMORY = auto()
    ENCODING_LACKS_MEMORY_BUT_FOR_TILES = auto()
    ENCODING_IS_NOT_FINITE = auto()
    PASTING_FAILS = auto()


ERRORS: Mapping[PictureFault, type[LpwSdxlError] | None] = {
    PictureFault.READING_FAILS: GenerationError,
    PictureFault.READING_LACKS_MEMORY: OutOfMemoryError,
    PictureFault.ENCODING_FAILS: GenerationError,
    PictureFault.ENCODING_LACKS_MEMORY: OutOfMemoryError,
    PictureFault.ENCODING_LACKS_MEMORY_BUT_FOR_TILES: None,
    PictureFault.ENCODING_IS_NOT_FINITE: GenerationError,
    PictureFault.PASTING_FAILS: GenerationError,
}
"""What each fault's job ends with; None is its image."""


def colour_of(number: int) -> tuple[int, int, int]:
    """Return the colour by which a job's picture is known: that of its first pixel."""
    return 3 + number // 200, 50 + number % 200, 100


def draw(number: int) -> Pixels:
    pixels = draw_picture(SIZE, number)
    pixels[:8, :8] = colour_of(number)
    return pixels


def make_request(number: int, choice: random.Random) -> GenerationRequest:
    """Build a request for a picture, a masked one or, seldom, a text."""
    fields: dict[str, Any] = {
        "prompt": "a fox",
        "seed": number,
        "num_inference_steps": choice.randint(2, 4),
        "guidance_scale": choice.choice([1.0, 5.0]),
        "scheduler": choice.choice(["Euler", "Euler a", "DDIM"]),
    }
    fields |= SIZE._asdict()
    return GenerationRequest.model_validate(fields)


def with_picture(
    request: GenerationRequest, fault: PictureFault | None, choice: random.Random
) -> GenerationRequest:
    added: dict[str, Any] = {
        "image": to_file(draw(request.seed or 0)),
        "strength": choice.choice([0.5, 0.75, 1.0]),
    }
    if fault is PictureFault.PASTING_FAILS or choice.random() < 0.5:
        added["mask_image"] = to_file(draw_mask(SIZE))
    return request.model_copy(update=added)


class PictureInjector:
    """Strikes the pictures of some of an engine's jobs.

    Args:
        engine: to be hurt.
        faults: by the seed of the job.
        patch: undoes what is no hook.

    Attributes:
        struck: the seed of each fault that struck.
    """

    def __init__(
        self, engine: Engine, faults: Mapping[int, PictureFault], patch: pytest.MonkeyPatch
    ) -> None:
        self.struck: list[int] = []
        self._faults = faults
        self._by_colour = {colour_of(number): number for number in faults}
        self._vae = engine.pipeline.vae
        self._hooks = [
            self._vae.encoder.register_forward_pre_hook(self._before_encoding),
            self._vae.encoder.register_forward_hook(self._after_encoding),
        ]
        patch.setattr(engine_intake, "read_start_image", self._read)
        put_back = Surroundings.put_back

        def put_back_or_fail(surroundings: Surroundings, painted: Pixels) -> Pixels:
            self._strike(self._find(surroundings.original), PictureFault.PASTING_FAILS)
            return put_back(surroundings, painted)

        patch.setattr(Surroundings, "put_back", put_back_or_fail)

    def remove(self) -> None:
        """Strike no more."""
        for hook in self._hooks:
            hook.remove()
        self._faults = {}

    def _find(self, pixels: Pixels) -> int | None:
        return self._by_colour.get(tuple(map(int, pixels[0, 0])))

    def _is_struck(self, number: int | None, fault: PictureFault) -> bool:
        if number is None or self._faults.get(number) is not fault:
            return False
        self.struck.append(number)
        return True

    def _strike(
        self,
        number: int | None,
        fault: PictureFault,
        error: Callable[[str], Exception] = RuntimeError,
    ) -> None:
        if self._is_struck(number, fault):
            raise error("injected")

    def _read(self, request: GenerationRequest, *arguments: Any) -> StartImage:
        self._strike(request.seed, PictureFault.READING_FAILS)
        self._strike(request.seed, PictureFault.READING_LACKS_MEMORY, MemoryError)
        return read_start_image(request, *arguments)

    def _find_encoded(self, images: torch.Tensor) -> int | None:
        levels = ((images[0, :, 0, 0] + 1) * 127.5).round()
        return self._by_colour.get(tuple(map(int, levels)))

    def _before_encoding(self, _module: Any, arguments: tuple[torch.Tensor]) -> None:
        number = self._find_encoded(arguments[0])
        self._strike(number, PictureFault.ENCODING_FAILS)
        self._strike(number, PictureFault.ENCODING_LACKS_MEMORY, torch.OutOfMemoryError)
        if not self._vae.use_tiling:
            fault = PictureFault.ENCODING_LACKS_MEMORY_BUT_FOR_TILES
            self._strike(number, fault, torch.OutOfMemoryError)

    def _after_encoding(
        self, _module: Any, arguments: tuple[torch.Tensor], encoded: torch.Tensor
    ) -> torch.Tensor:
        number = self._find_encoded(arguments[0])
        if self._is_struck(number, PictureFault.ENCODING_IS_NOT_FINITE):
            return encoded * torch.nan
        return encoded


@pytest.fixture
def own_engine(model_directory: Path) -> Iterator[Engine]:
    """An engine to be hurt."""
    engine = Engine.load(model_directory, Settings(device="cpu", stall_s=60))
    yield engine
    engine.close()


async def crowd(engine: Engine, requests: Sequence[GenerationRequest]) -> dict[int, Any]:
    """Make all images, AT_ONCE at a time; return each job's image or error by its seed."""
    room = asyncio.Semaphore(AT_ONCE)

    async def make(wanted: GenerationRequest) -> GeneratedImage:
        async with room:
            return await engine.generate(wanted)

    ends = await asyncio.gather(*map(make, requests), return_exceptions=True)
    return {one.seed or 0: end for one, end in zip(requests, ends, strict=True)}


def draw_faults(each: int, among: int, choice: random.Random) -> dict[int, PictureFault]:
    """Draw jobs for `each` faults of every kind."""
    kinds = [*PictureFault] * each
    return dict(zip(choice.sample(range(among), len(kinds)), kinds, strict=True))


def assert_ends(
    ends: Mapping[int, Any],
    faults: Mapping[int, PictureFault],
    alone: Mapping[int, GeneratedImage],
) -> None:
    for number, end in ends.items():
        fault = faults.get(number)
        error = None if fault is None else ERRORS[fault]
        if error is not None:
            assert type(end) is error, (number, fault, end)
            assert "injected" not in str(end)  # a foreign error's words are for the log
        else:
            assert isinstance(end, GeneratedImage), (number, fault, end)
            # Of this size a tile is all of a picture.
            assert furthest(end.pixels, alone[number].pixels) <= 1, (number, fault)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("each", "unhurt"),
    [(1, 7), pytest.param(15, 35, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])],
    ids=["7 faults", "105 faults"],
)
async def test_faults_fail_exactly_the_jobs_that_they_hit(
    engine: Engine,
    own_engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    each: int,
    unhurt: int,
) -> None:
    choice = random.Random(5)
    count = each * len(PictureFault) + unhurt
    faults = draw_faults(each, count, choice)
    requests = [make_request(number, choice) for number in range(count)]
    requests = [
        one
        if number not in faults and choice.random() < 0.3  # a text
        else with_picture(one, faults.get(number), choice)
        for number, one in enumerate(requests)
    ]
    failing = {number for number, fault in faults.items() if ERRORS[fault] is not None}
    alone = await crowd(engine, [one for one in requests if one.seed not in failing])
    injector = PictureInjector(own_engine, faults, monkeypatch)
    ends = await crowd(own_engine, requests)
    injector.remove()
    assert {*injector.struck} == {*faults}
    assert_ends(ends, faults, alone)
    assert own_engine.queued_jobs == 0
    assert own_engine.is_alive
    again = min(failing)
    assert isinstance(await own_engine.generate(requests[again]), GeneratedImage)


@pytest.mark.parametrize("fault", list(PictureFault), ids=lambda fault: fault.name.lower())
async def test_a_fault_fails_its_job_and_leaves_the_one_beside_it(
    engine: Engine, own_engine: Engine, monkeypatch: pytest.MonkeyPatch, fault: PictureFault
) -> None:
    choice = random.Random(1)
    one, other = (
        with_picture(make_request(number, choice), PictureFault.PASTING_FAILS, choice)
        for number in (1, 2)
    )
    injector = PictureInjector(own_engine, {1: fault}, monkeypatch)
    ends = await asyncio.gather(
        own_engine.generate(one), own_engine.generate(other), return_exceptions=True
    )
    injector.remove()
    assert injector.struck
    alone = {number: await engine.generate(each) for number, each in ((1, one), (2, other))}
    assert_ends({1: ends[0], 2: ends[1]}, {1: fault}, alone)
    assert own_engine.queued_jobs == 0


async def test_a_lack_of_memory_in_an_encoding_leaves_the_unets_calls_what_they_were(
    own_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    choice = random.Random(2)
    requests = [with_picture(make_request(number, choice), None, choice) for number in range(4)]
    faults = {2: PictureFault.ENCODING_LACKS_MEMORY}
    before = own_engine._loop._capacity.row_limit(SIZE)
    injector = PictureInjector(own_engine, faults, monkeypatch)
    ends = await make_together(own_engine, requests)
    injector.remove()
    assert [number for number, end in enumerate(ends) if isinstance(end, LpwSdxlError)] == [2]
    assert injector.struck == [2, 2]  # whole, and in tiles
    assert own_engine._loop._capacity.row_limit(SIZE) == before

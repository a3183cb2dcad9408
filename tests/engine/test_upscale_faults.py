"""A fault's reach among pictures that are enlarged: exactly those it hits fail, nothing is kept."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from enum import Enum, auto
from typing import Any

import numpy as np
import pytest
import torch

from lpw_sdxl.engine import Engine, faults
from lpw_sdxl.engine import enlarging as engine_enlarging
from lpw_sdxl.engine.upscale_job import UpscaleJob
from lpw_sdxl.errors import GenerationError, LpwSdxlError, OutOfMemoryError
from lpw_sdxl.schema import GenerationRequest
from lpw_sdxl.second_pass import Enlargement
from lpw_sdxl.upscale_request import UpscaleRequest
from lpw_sdxl.upscaling.network import UpscalerNetwork

from .test_engine_upscale import FILE, text_request, until

AT_ONCE, FAULTS = 20, 100
IMAGES = 3  # beside the pictures


class Fault(Enum):
    """What strikes a picture."""

    TILE_FAILS = auto()
    TILE_LACKS_MEMORY = auto()
    TILE_LACKS_MEMORY_BUT_FOR_SMALLER_ONES = auto()
    TILE_IS_NOT_FINITE = auto()
    RESIZING_FAILS = auto()
    RESIZING_LACKS_MEMORY = auto()


ERRORS: Mapping[Fault, type[LpwSdxlError] | None] = {
    Fault.TILE_FAILS: GenerationError,
    Fault.TILE_LACKS_MEMORY: OutOfMemoryError,
    Fault.TILE_LACKS_MEMORY_BUT_FOR_SMALLER_ONES: None,
    Fault.TILE_IS_NOT_FINITE: GenerationError,
    Fault.RESIZING_FAILS: GenerationError,
    Fault.RESIZING_LACKS_MEMORY: OutOfMemoryError,
}
"""What each fault's picture ends with; None is its answer."""


class Injection:
    """Faults by the widths of the answers that they strike, in an engine."""

    def __init__(self, engine: Engine, patch: pytest.MonkeyPatch) -> None:
        self.faults: dict[int, Fault] = {}
        self.struck: set[int] = set()
        stages = engine._loop.stages
        self._tile, self._resize = stages.enlarge_tile, engine_enlarging.enlarge_pixels
        self._call = UpscalerNetwork._call
        self._is_not_finite = False
        patch.setattr(stages, "enlarge_tile", self._strike_tile)
        patch.setattr(engine_enlarging, "enlarge_pixels", self._strike_resizing)
        patch.setattr(UpscalerNetwork, "_call", self._strike_call)

    def strike(self, width: int, fault: Fault) -> bool:
        if self.faults.get(width) is not fault:
            return False
        self.struck.add(width)
        return True

    def _strike_tile(self, job: UpscaleJob, *, in_tiles: bool = False) -> None:
        width = job.spec.enlargement.size.width
        if self.strike(width, Fault.TILE_FAILS):
            raise RuntimeError("a kernel failed")
        if self.strike(width, Fault.TILE_LACKS_MEMORY):
            raise torch.OutOfMemoryError
        if self.strike(width, Fault.TILE_LACKS_MEMORY_BUT_FOR_SMALLER_ONES) and not in_tiles:
            raise torch.OutOfMemoryError
        self._is_not_finite = self.strike(width, Fault.TILE_IS_NOT_FINITE)
        self._tile(job, in_tiles=in_tiles)

    def _strike_call(self, *work: Any) -> torch.Tensor | None:
        return None if self._is_not_finite else self._call(*work)

    def _strike_resizing(self, pixels: Any, enlargement: Enlargement, upscaler: Any) -> Any:
        if self.strike(enlargement.size.width, Fault.RESIZING_FAILS):
            raise RuntimeError("a decoder failed")
        if self.strike(enlargement.size.width, Fault.RESIZING_LACKS_MEMORY):
            raise MemoryError
        return self._resize(pixels, enlargement, upscaler)


def make_request(width: int, choice: random.Random) -> UpscaleRequest:
    upscaler = choice.choice(["two-times", "four-times"])
    return UpscaleRequest(image=FILE, upscaler=upscaler, width=width)


@pytest.mark.thorough
@pytest.mark.timeout(900)
async def test_exactly_the_pictures_that_are_hit_fail(
    upscaling_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, choice = upscaling_engine, random.Random(6)
    injection = Injection(engine, monkeypatch)
    # After each lack of memory: seconds, in a process with all that tests have.
    monkeypatch.setattr(faults.gc, "collect", lambda: 0)
    images = [text_request(seed=seed, num_inference_steps=3) for seed in range(IMAGES)]
    right = [(await engine.generate(one)).pixels for one in images]
    struck = 0
    while struck < FAULTS:
        # Odd, so that something is left to be resized.
        wanted = [make_request(81 + 2 * number, choice) for number in range(AT_ONCE)]
        injection.struck = set()
        hit = [one.width for one in wanted if one.width and choice.random() < 0.8]
        injection.faults = {one: choice.choice([*Fault]) for one in hit}
        work: list[UpscaleRequest | GenerationRequest] = [*wanted, *images]
        choice.shuffle(work)
        done = await asyncio.gather(
            *(
                engine.upscale(one) if isinstance(one, UpscaleRequest) else engine.generate(one)
                for one in work
            ),
            return_exceptions=True,
        )
        ended = dict(zip(map(id, work), done, strict=True))
        for one in wanted:
            fault, answer = injection.faults.get(one.width or 0), ended[id(one)]
            error = None if fault is None else ERRORS[fault]
            if error is None:
                assert not isinstance(answer, BaseException), (one, fault)
                assert answer.size.width == one.width
            else:
                assert isinstance(answer, error), (one, fault, answer)
        for image, pixels in zip(images, right, strict=True):
            drawn = ended[id(image)]
            assert not isinstance(drawn, BaseException)
            assert np.abs(drawn.pixels.astype(int) - pixels).max() <= 1
        assert injection.faults.keys() == injection.struck
        struck += len(injection.struck)
        await until(lambda: engine.queued_jobs == 0 and not engine.is_busy)
    injection.faults = {}
    last = make_request(81, choice)
    one, other = await engine.upscale(last), await engine.upscale(last)
    assert np.array_equal(one.pixels, other.pixels)

"""A fault's reach in a second pass: exactly the jobs it hits fail, and everything is freed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from enum import Enum, auto
from typing import Any

import pytest
import torch

from lpw_sdxl.diffusion.step import Denoising
from lpw_sdxl.engine import Engine
from lpw_sdxl.engine import stages as engine_stages
from lpw_sdxl.engine.job import Job
from lpw_sdxl.errors import GenerationError, LpwSdxlError, OutOfMemoryError
from lpw_sdxl.schema import GenerationRequest, ImageSize
from lpw_sdxl.second_pass import Upscaler
from tests.forge.scenes import furthest
from tests.upscaler_folder import SCALES

SIZE, LARGER = ImageSize(64, 64), ImageSize(80, 80)
AT_ONCE, FAULTS = 20, 100


class Fault(Enum):
    """What strikes a job in its second pass, or on the way there."""

    ENLARGING_FAILS = auto()
    ENLARGING_LACKS_MEMORY = auto()
    ENLARGING_LACKS_MEMORY_BUT_FOR_TILES = auto()
    FIRST_PASS_IS_NOT_FINITE = auto()
    STEP_FAILS = auto()
    STEP_LACKS_MEMORY = auto()
    DECODING_FAILS = auto()


ERRORS: Mapping[Fault, type[LpwSdxlError] | None] = {
    Fault.ENLARGING_FAILS: GenerationError,
    Fault.ENLARGING_LACKS_MEMORY: OutOfMemoryError,
    Fault.ENLARGING_LACKS_MEMORY_BUT_FOR_TILES: None,
    Fault.FIRST_PASS_IS_NOT_FINITE: GenerationError,
    Fault.STEP_FAILS: GenerationError,
    Fault.STEP_LACKS_MEMORY: OutOfMemoryError,
    Fault.DECODING_FAILS: GenerationError,
}
"""What each fault's job ends with; None is its image."""


class Injection:
    """Faults by the seeds of the jobs that they strike, in an engine."""

    def __init__(self, engine: Engine, patch: pytest.MonkeyPatch) -> None:
        self.faults: dict[int, Fault] = {}
        self.struck: set[int] = set()
        stages = engine._loop.stages
        self._enlarge, self._decode = stages.enlarge, stages.decode
        patch.setattr(stages, "enlarge", self._strike_enlarging)
        patch.setattr(stages, "decode", self._strike_decoding)
        patch.setattr(engine_stages, "Denoising", self._begin)

    def strike(self, seed: int, fault: Fault) -> bool:
        if self.faults.get(seed) is not fault:
            return False
        self.struck.add(seed)
        return True

    def _strike_enlarging(self, job: Job, *, in_tiles: bool = False) -> None:
        seed = job.spec.record.seed
        if self.strike(seed, Fault.ENLARGING_FAILS):
            raise RuntimeError("a kernel failed")
        if self.strike(seed, Fault.ENLARGING_LACKS_MEMORY):
            raise torch.OutOfMemoryError
        if self.strike(seed, Fault.ENLARGING_LACKS_MEMORY_BUT_FOR_TILES) and not in_tiles:
            raise torch.OutOfMemoryError
        if self.strike(seed, Fault.FIRST_PASS_IS_NOT_FINITE):
            assert job.denoising is not None
            job.denoising.latents.fill_(torch.nan)
        self._enlarge(job, in_tiles=in_tiles)

    def _strike_decoding(self, job: Job, *, in_tiles: bool = False) -> Any:
        if job.is_in_last_pass and self.strike(job.spec.record.seed, Fault.DECODING_FAILS):
            raise RuntimeError("a kernel failed")
        return self._decode(job, in_tiles=in_tiles)

    def _begin(self, **arguments: Any) -> Denoising:
        """Begin a real run, and put the fault before its second step."""
        denoising, plan = Denoising(**arguments), arguments["plan"]
        advance = denoising.advance

        def strike_or_advance(predictions: torch.Tensor) -> None:
            if plan.size == LARGER and denoising.unet_calls_done:
                if self.strike(plan.seed, Fault.STEP_FAILS):
                    raise RuntimeError("a kernel failed")
                if self.strike(plan.seed, Fault.STEP_LACKS_MEMORY):
                    raise torch.OutOfMemoryError
            advance(predictions)

        denoising.advance = strike_or_advance  # type: ignore[method-assign]
        return denoising


def make_request(seed: int, choice: random.Random) -> GenerationRequest:
    fields: dict[str, Any] = {"prompt": "a fox", "seed": seed, "guidance_scale": 1.0}
    fields |= {"num_inference_steps": 2, **SIZE._asdict()}
    fields["hires"] = {
        "scale": 1.25,
        "strength": 1.0,
        "upscaler": choice.choice([Upscaler.LATENT, Upscaler.LANCZOS, *SCALES]),
    }
    return GenerationRequest.model_validate(fields)


@pytest.mark.thorough
async def test_exactly_the_jobs_that_are_hit_fail(
    upscaling_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    choice = random.Random(5)
    injection = Injection(upscaling_engine, monkeypatch)
    seed = 0
    while len(injection.struck) < FAULTS:
        wanted = [make_request(seed + number, choice) for number in range(AT_ONCE)]
        seed += AT_ONCE
        hit = [one.seed for one in wanted if one.seed and choice.random() < 0.8]
        injection.faults = {one: choice.choice([*Fault]) for one in hit}
        done = await asyncio.gather(*map(upscaling_engine.generate, wanted), return_exceptions=True)
        for one, image in zip(wanted, done, strict=True):
            fault = injection.faults.get(one.seed or 0)
            error = None if fault is None else ERRORS[fault]
            if error is None:
                assert not isinstance(image, BaseException), (one, fault)
                assert image.size == LARGER
            else:
                assert isinstance(image, error), (one, fault, image)
        assert injection.faults.keys() <= injection.struck
        assert upscaling_engine.queued_jobs == 0
    injection.faults = {}
    last = make_request(seed, choice)
    one, other = await upscaling_engine.generate(last), await upscaling_engine.generate(last)
    assert furthest(one.pixels, other.pixels) == 0

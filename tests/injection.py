"""Faults put into a loaded engine's own model from outside, by torch hooks and around real methods.

A fault knows its job again wherever it comes by, however many others it comes with: in the text
encoder by its tokens, in the UNet by its pooled prompt, in the scheduler's step by whose scheduler
it is, in the VAE by its last latents. Every job of a test therefore has its own words and seed.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, cast

import pytest
import torch

from lpw_sdxl.diffusion.step import Denoising
from lpw_sdxl.engine import Engine
from lpw_sdxl.engine import stages as engine_stages
from lpw_sdxl.schema import GenerationRequest


class Place(Enum):
    """Where a fault strikes."""

    ENCODE = auto()
    UNET = auto()
    SCHEDULER = auto()
    DECODE = auto()


NO_MEMORY: Sequence[Callable[[], Exception]] = (
    lambda: torch.OutOfMemoryError("injected"),
    lambda: RuntimeError("[enforce fail] . DefaultCPUAllocator: can't allocate memory: injected"),
    lambda: MemoryError("injected"),
)
TRANSIENT_EVERY = 4  # UNet calls
EXCEPTIONS: Sequence[Callable[[], Exception]] = (
    lambda: RuntimeError("injected"),
    lambda: ValueError("injected"),
    lambda: AssertionError("injected"),
)


@dataclass(frozen=True)
class Fault:
    """What strikes one job whenever it comes by.

    Attributes:
        place: where.
        error: makes what is raised.
        from_timestep: UNet and scheduler: not before this one; timesteps go down from 999.
    """

    place: Place
    error: Callable[[], Exception]
    from_timestep: float = 1000.0


class Injector:
    """Injects faults into an engine until it is removed.

    Args:
        engine: whose jobs are struck.
        faults: by the seed of the job.
        requests: of all jobs that will run.
        patch: undoes what is no hook.

    Attributes:
        transient: raised once each, from the end, in UNet calls that hold more than one job.
        raised: faults raised so far.
        rows: of each UNet call so far, those that failed included.
    """

    def __init__(
        self,
        engine: Engine,
        faults: Mapping[int, Fault],
        requests: Sequence[GenerationRequest],
        patch: pytest.MonkeyPatch,
    ) -> None:
        self.transient: list[Exception] = []
        self.raised = 0
        self.rows: list[int] = []
        self._engine = engine
        self._faults = faults
        encoder = engine.pipeline.prompt_encoder
        self._words: dict[tuple[int, ...], int] = {}
        self._last_latents: dict[int, torch.Tensor] = {}  # by seed, of jobs to fail in their decode
        self._pooled: dict[int, torch.Tensor] = {}
        for request in requests:
            seed = request.seed or 0
            fault = faults.get(seed)
            prompts = encoder.reader.read(request.prompt, request.negative_prompt)
            [conditioning] = encoder.encode_many([prompts])
            self._pooled[seed] = conditioning.pooled_prompt_embeds
            if fault is not None and fault.place is Place.ENCODE:
                window = prompts.prompt.chunks[0].windows[0]
                self._words[window.ids[: window.text_count + 1]] = seed
        pipeline = engine.pipeline
        self._handles = [
            encoder._encoders[-1].model.register_forward_pre_hook(self._encode, with_kwargs=True),
            pipeline.unet.register_forward_pre_hook(self._unet, with_kwargs=True),
            pipeline.vae.post_quant_conv.register_forward_pre_hook(self._decode),
        ]
        patch.setattr(engine_stages, "Denoising", self._denoising)

    def remove(self) -> None:
        """Strike no more."""
        for handle in self._handles:
            handle.remove()
        self._faults = {}
        self._last_latents.clear()
        self._pooled.clear()

    def _strike(self, seed: int, place: Place, timestep: float = 0.0) -> None:
        fault = self._faults.get(seed)
        if fault is not None and fault.place is place and timestep <= fault.from_timestep:
            self.raised += 1
            raise fault.error()

    def _encode(self, module: Any, arguments: Any, keywords: dict[str, Any]) -> None:
        for row in keywords["input_ids"].tolist():
            for ids, seed in self._words.items():
                if tuple(row[: len(ids)]) == ids:
                    self._strike(seed, Place.ENCODE)

    def _unet(self, module: Any, arguments: Any, keywords: dict[str, Any]) -> None:
        timesteps = keywords["timestep"].tolist()
        self.rows.append(len(timesteps))
        is_shared = len(timesteps) > 2  # a job has two rows at most
        if self.transient and is_shared and not len(self.rows) % TRANSIENT_EVERY:
            self.raised += 1
            raise self.transient.pop()
        pooled = keywords["added_cond_kwargs"]["text_embeds"]
        for row, timestep in zip(pooled, timesteps, strict=True):
            for seed, own in self._pooled.items():
                if torch.allclose(row, own, atol=1e-4):
                    self._strike(seed, Place.UNET, timestep)

    def _denoising(self, **arguments: Any) -> Denoising:
        """Begin a real run, and put the fault between it and its scheduler."""
        denoising = Denoising(**arguments)
        plan: Any = arguments["plan"]
        seed, solver = plan.seed, cast("Any", denoising._solver)
        scheduler: Any = solver._scheduler
        step = scheduler.step

        def strike_or_step(prediction: Any, timestep: Any, *more: Any, **keywords: Any) -> Any:
            self._strike(seed, Place.SCHEDULER, float(timestep))
            outcome = step(prediction, timestep, *more, **keywords)
            fault = self._faults.get(seed)
            if fault is not None and fault.place is Place.DECODE:
                self._last_latents[seed] = outcome[0]
            return outcome

        scheduler.step = strike_or_step
        return denoising

    def _decode(self, module: Any, arguments: tuple[torch.Tensor]) -> None:
        latents = arguments[0] * self._engine.pipeline.vae.config.scaling_factor
        for seed, own in self._last_latents.items():
            if own.shape == latents.shape and torch.allclose(latents, own, atol=1e-3):
                self._strike(seed, Place.DECODE)


def tensor_bytes() -> int:
    """Count the bytes of all tensors that are alive in this process, each storage once."""
    gc.collect()
    storages = {}
    for thing in gc.get_objects():
        if issubclass(type(thing), torch.Tensor):
            storage = thing.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())

"""The three stages of a job on the device: its prompt is encoded, it is stepped, it is decoded.

Raises whatever goes wrong; who fails by it is decided in faults.py.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from lpw_sdxl.diffusion.decoder import Decoder, Pixels
from lpw_sdxl.diffusion.denoiser import Denoiser
from lpw_sdxl.diffusion.pipeline import Pipeline
from lpw_sdxl.diffusion.preview import Preview
from lpw_sdxl.diffusion.residence import Residence
from lpw_sdxl.diffusion.schedulers import make_scheduler
from lpw_sdxl.diffusion.step import Denoising
from lpw_sdxl.engine.job import Job, Progress
from lpw_sdxl.engine.memory import MemoryPlan
from lpw_sdxl.engine.policy import Phase, share_calls
from lpw_sdxl.lora.adapters import Adapters
from lpw_sdxl.lora.library import LoraLibrary
from lpw_sdxl.lora.sets import LoraSet
from lpw_sdxl.weights.component import Component

logger = logging.getLogger(__name__)

PHASES = {"prompt_encoder": Phase.ENCODE, "unet": Phase.STEP, "vae": Phase.DECODE}

Guard = Callable[[Job, Callable[[], None]], None]  # does one job's work; its error fails it alone


class Stages:
    """Works on jobs with one pipeline.

    Args:
        pipeline: the loaded model.
        plan: how memory is used.
        library: the LoRAs that jobs may name; None where there are none.
    """

    def __init__(
        self, pipeline: Pipeline, plan: MemoryPlan, library: LoraLibrary | None = None
    ) -> None:
        self.residence = Residence(pipeline, shares_device=not plan.is_offloading)
        self.adapters = None if library is None else _make_adapters(pipeline, plan, library)
        if self.adapters is not None:
            self.residence.before_travel = self.adapters.reset
        self.decoder = Decoder(pipeline.vae, plan.tile_above_pixels)
        self._pipeline = pipeline
        self._denoiser = Denoiser(
            pipeline.unet,
            pipeline.device,
            self.adapters,
            keeps_projections=plan.keeps_projections,
            graph_pixels=plan.graph_pixels,
        )
        self._preview: Preview | None = None  # until one is asked for

    @property
    def phase(self) -> Phase:
        """Say what the component on the device is for, where there is one at a time."""
        return PHASES.get(self.residence.current or "", Phase.ENCODE)

    def encode(self, jobs: Sequence[Job]) -> None:
        """Encode the prompts of jobs together and draw their noise."""
        self.residence.call("prompt_encoder")
        for loras, some in _by_text_loras(jobs).items():
            self._encode(some, loras)

    def _encode(self, jobs: Sequence[Job], loras: LoraSet) -> None:
        """Encode the prompts of jobs whose text encoders have the same LoRAs."""
        adapters = self.adapters
        conditionings = self._pipeline.prompt_encoder.encode_many(
            [job.spec.prompts for job in jobs],
            weights_key=loras,
            prepare=None if adapters is None else partial(adapters.use_in_encoders, loras),
        )
        for job, conditioning in zip(jobs, conditionings, strict=True):
            record = job.spec.record
            job.denoising = Denoising(
                conditioning=conditioning,
                guidance=job.spec.guidance,
                scheduler=make_scheduler(
                    record.scheduler,
                    self._pipeline.scheduler_config,
                    record.request.num_inference_steps,
                ),
                size=record.size,
                seed=record.seed,
                device=self._pipeline.device,
                loras=job.spec.loras.unet,
            )
            prompt, negative_prompt = job.spec.prompts.texts
            logger.info(
                "encoded: %s prompt of %d tokens in %d chunks, negative prompt of %d in %d",
                job.spec.prompts.style,
                prompt.token_count,
                prompt.chunk_count,
                negative_prompt.token_count,
                negative_prompt.chunk_count,
            )

    def step(self, group: Sequence[Job], max_rows: int, guard: Guard) -> list[int]:
        """Predict for jobs of one size in as few UNet calls as can be, and advance each of them.

        Args:
            group: encoded jobs.
            max_rows: rows of one UNet call.
            guard: what one job's own part is done in.

        Returns:
            how many jobs each UNet call carried.
        """
        self.residence.call("unet")
        denoisings = [job.denoising for job in group if job.denoising is not None]
        owners = [index for index, one in enumerate(denoisings) for _ in range(one.row_count)]
        calls = share_calls(len(owners), max_rows)
        predictions = self._denoiser.predict(denoisings, calls)
        for job, denoising, prediction in zip(group, denoisings, predictions, strict=True):
            guard(job, partial(denoising.advance, prediction))
        return [len({owners[row] for row in call}) for call in calls]

    def tell(self, job: Job) -> None:
        """Tell a job's listener how far it is."""
        if job.listener is None or job.denoising is None:
            return
        preview = None
        if job.listener.wants_previews:
            preview = self._draw(job, job.denoising)
        job.tell(Progress(job.denoising.step_index, job.denoising.steps, preview))

    def rest(self) -> None:
        """Let go of what only jobs under way need."""
        self._denoiser.forget()
        self._reset(Adapters.reset)

    def make_room(self) -> None:
        """Let go of what can be made again: memory is short."""
        self._denoiser.make_room()
        self._reset(Adapters.forget)

    def _reset(self, reset: Callable[[Adapters], None]) -> None:
        # A component that comes and goes gets its base weights, which are at home, when it goes.
        if self.adapters is not None and self.residence.current is None:
            reset(self.adapters)

    def decode(self, job: Job, *, in_tiles: bool = False) -> Pixels:
        """Decode a job that has done its steps, in tiles where memory is short."""
        assert job.denoising is not None
        self.residence.call("vae")
        return self.decoder.decode(job.denoising.latents, in_tiles=in_tiles)

    def _draw(self, job: Job, denoising: Denoising) -> Pixels | None:
        """Draw a preview; where that fails, the image goes on without any."""
        try:
            if self._preview is None:
                self.residence.call("vae")
                self._preview = Preview(self.decoder)
            return self._preview.draw(denoising.outlook)
        except Exception:
            logger.exception("a preview could not be drawn")
            job.listener = replace(job.listener, wants_previews=False) if job.listener else None
            return None


def _make_adapters(pipeline: Pipeline, plan: MemoryPlan, library: LoraLibrary) -> Adapters:
    first, second = pipeline.prompt_encoder.models
    networks = {
        Component.UNET: pipeline.unet,
        Component.TEXT_ENCODER: first,
        Component.TEXT_ENCODER_2: second,
    }
    return Adapters(networks, library, pipeline.device, plan.merged_bytes)


def _by_text_loras(jobs: Sequence[Job]) -> dict[LoraSet, list[Job]]:
    """Sort jobs by the LoRAs of their text encoders."""
    groups: dict[LoraSet, list[Job]] = {}
    for job in jobs:
        groups.setdefault(job.spec.loras.text_encoders, []).append(job)
    return groups

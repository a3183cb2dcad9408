"""The stages of a job on the device: prompts are encoded, its picture too, it is stepped, decoded.

Errors are raised as they come; faults.py decides which jobs fail by them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice

import torch

from lpw_sdxl.conditioning.scheduled import ScheduledConditioning
from lpw_sdxl.diffusion.decoder import Decoder, Pixels
from lpw_sdxl.diffusion.denoiser import Denoiser
from lpw_sdxl.diffusion.encoder import Encoder
from lpw_sdxl.diffusion.offloader import Offloader
from lpw_sdxl.diffusion.pipeline import Pipeline
from lpw_sdxl.diffusion.preview import Preview
from lpw_sdxl.diffusion.start_encoder import StartEncoder, StartPicture, UnfinishedStart
from lpw_sdxl.diffusion.step import Denoising
from lpw_sdxl.engine.enlarger import Enlarger
from lpw_sdxl.engine.job import Job
from lpw_sdxl.engine.job_pass import JobPass, group_by_text_loras
from lpw_sdxl.engine.memory import MemoryPlan
from lpw_sdxl.engine.phases import Phase
from lpw_sdxl.engine.policy import share_calls
from lpw_sdxl.engine.progress import ImageProgress, Listener, PreviewPicture, wants_none
from lpw_sdxl.engine.upscale_job import UpscaleJob
from lpw_sdxl.errors import GenerationError, InvalidRequestError
from lpw_sdxl.lora.adapters import Adapters
from lpw_sdxl.lora.library import LoraLibrary
from lpw_sdxl.lora.sets import LoraSet
from lpw_sdxl.weights.component import Component

logger = logging.getLogger(__name__)

PHASES = {"prompt_encoder": Phase.ENCODE, "unet": Phase.STEP, "vae": Phase.PICTURE}

RunAlone = Callable[[Job, Callable[[], None]], None]
"""Runs one job's part; its error fails that job only."""


class Stages:
    """The work on jobs with one pipeline.

    Args:
        pipeline: the loaded model.
        plan: how memory is used.
        library: the LoRAs that jobs may name; None where there are none.
    """

    def __init__(
        self, pipeline: Pipeline, plan: MemoryPlan, library: LoraLibrary | None = None
    ) -> None:
        self.offloader = Offloader(pipeline, is_offloading=plan.is_offloading)
        self.adapters = None if library is None else _make_adapters(pipeline, plan, library)
        if self.adapters is not None:
            self.offloader.before_move = self.adapters.reset
        self.decoder = Decoder(pipeline.vae, plan.tile_above_pixels)
        self._starts = StartEncoder(
            Encoder(pipeline.vae, plan.tile_above_pixels), pipeline.unet.config.in_channels
        )
        self._pipeline = pipeline
        self._denoiser = Denoiser(
            pipeline.unet,
            pipeline.device,
            self.adapters,
            keeps_projections=plan.keeps_projections,
            graph_pixels=plan.graph_pixels,
        )
        self._enlarger = Enlarger(self._starts, self.offloader, self.decode, pipeline.device)
        self._preview: Preview | None = None  # until a listener wants one

    @property
    def phase(self) -> Phase:
        """Return the phase of the component on the device, where there is one at a time."""
        return PHASES.get(self.offloader.current or "", Phase.ENCODE)

    def encode(self, jobs: Sequence[Job]) -> None:
        """Encode the prompts of jobs together; those that start from noise can then be stepped."""
        self.offloader.require("prompt_encoder")
        for loras, some in group_by_text_loras(jobs).items():
            self._encode(some, loras)
        for job in jobs:
            job.start = self._begin_start(job)
            if job.start.is_encoded:
                self._begin_denoising(job)

    def _encode(self, passes: Sequence[JobPass], loras: LoraSet) -> None:
        """Encode the prompts of passes whose text encoders have the same LoRAs."""
        adapters = self.adapters
        encoded = iter(
            self._pipeline.prompt_encoder.encode_many(
                [pair for one in passes for pair in one.spec.prompts.pairs],
                weights_key=loras,
                prepare=None if adapters is None else partial(adapters.use_in_encoders, loras),
            )
        )
        for job, index in passes:
            schedule = job.spec.passes[index].prompts
            pairs = [*islice(encoded, len(schedule.pairs))]
            job.conditionings[index] = ScheduledConditioning.of(schedule, pairs)
            prompt, negative_prompt = schedule.longest
            logger.info(
                "encoded: %s prompt of %d tokens in %d chunks, negative prompt of %d in %d%s",
                schedule.pairs[0].style,
                prompt.token_count,
                prompt.chunk_count,
                negative_prompt.token_count,
                negative_prompt.chunk_count,
                f", the longest of {len(schedule.texts)} texts" if len(schedule.pairs) > 1 else "",
            )

    def _begin_start(self, job: Job) -> UnfinishedStart:
        if job.picture is None:
            return self._starts.begin_text(job.size)
        content = job.spec.request.masked_content
        plan = job.current.plan
        picture = StartPicture(job.picture.pixels, job.picture.mask, content, plan.mask_reduction)
        return self._starts.begin_picture(picture, is_seen=plan.enters_late)

    def _begin_denoising(self, job: Job) -> None:
        """Make a pass's denoising of its whole start, and draw its noise."""
        assert job.start is not None
        current = job.current
        # A try that fails has taken of its noise: the next one draws it anew, which gives the same.
        noise, job.noises[job.pass_index] = job.noises[job.pass_index], None
        job.denoising = Denoising(
            conditioning=job.conditionings[job.pass_index],
            guidance=current.guidance,
            plan=current.plan,
            device=self._pipeline.device,
            loras=current.loras.unet,
            start=job.start.make(),
            noise=noise,
        )
        job.release_start()

    def enlarge(self, job: Job, *, in_tiles: bool = False) -> None:
        """Take a job whose first pass is done to the start of its second, or a part nearer to it.

        Latents are scaled; pixels are decoded, scaled, and encoded as a picture is.

        Args:
            job: whose first pass is done.
            in_tiles: whether to decode in tiles whatever the size.

        Raises:
            GenerationError: the first pass diverged.
        """
        if job.start is None:  # else its second pass could not begin before
            start = self._enlarger.make_start(job, in_tiles=in_tiles)
            if start is None:
                return
            job.begin_next_pass(start)
        assert job.start is not None
        if job.start.is_encoded:
            self._begin_denoising(job)

    def begin_upscale(self, job: UpscaleJob) -> None:
        """Begin a picture to enlarge."""
        self._enlarger.begin(job)

    def enlarge_tile(self, job: UpscaleJob, *, in_tiles: bool = False) -> None:
        """Enlarge the next tile of a picture.

        Args:
            job: that has tiles left.
            in_tiles: whether memory is short, and tiles have to be smaller.

        Raises:
            GenerationError: the network gave numbers that are not finite.
        """
        self._enlarger.advance(job, in_tiles=in_tiles)

    def wait_for_device(self) -> None:
        """Wait until the device has done all that was given to it; a CPU always has."""
        if self._pipeline.device.type == "cuda":
            torch.cuda.synchronize(self._pipeline.device)

    def encode_picture(self, job: Job, *, in_tiles: bool = False) -> None:
        """Encode the next part of a job's picture, in tiles where memory is short.

        After the last part the job can be stepped.

        Raises:
            GenerationError: the picture can't be encoded.
        """
        assert job.start is not None
        self.offloader.require("vae")
        job.start.encode_next(in_tiles=in_tiles)
        if job.start.is_encoded:
            self._begin_denoising(job)

    def step(self, group: Sequence[Job], max_rows: int, run_alone: RunAlone) -> list[int]:
        """Predict for jobs of one size in as few UNet calls as possible, and advance each of them.

        Args:
            group: encoded jobs.
            max_rows: rows of one UNet call.
            run_alone: runs each job's own part.

        Returns:
            how many jobs each UNet call carried.
        """
        self.offloader.require("unet")
        denoisings = [job.denoising for job in group if job.denoising is not None]
        owners = [index for index, one in enumerate(denoisings) for _ in range(one.row_count)]
        calls = share_calls(len(owners), max_rows)
        predictions = self._denoiser.predict(denoisings, calls)
        for job, denoising, prediction in zip(group, denoisings, predictions, strict=True):
            run_alone(job, partial(denoising.advance, prediction))
        return [len({owners[row] for row in call}) for call in calls]

    def report_progress(self, job: Job) -> None:
        """Report a job's progress to its listener, with a preview if it wants one."""
        if job.listener is None or job.denoising is None:
            return
        preview = self._take_preview(job.listener, job)
        job.report(ImageProgress(job.calls_done, job.spec.unet_calls, preview))

    def release_idle_memory(self) -> None:
        """Free what only jobs under way need."""
        self._denoiser.release_prompts()
        self._reset(Adapters.reset)

    def release_memory(self) -> None:
        """Free what can be made again, for memory is short."""
        self._denoiser.release_graphs()
        self._enlarger.release_networks()
        self._reset(Adapters.forget)

    def _reset(self, reset: Callable[[Adapters], None]) -> None:
        # With offloading a component gets its base weights, which the host has, when it is moved.
        if self.adapters is not None and self.offloader.current is None:
            reset(self.adapters)

    def decode(self, job: Job, *, in_tiles: bool = False) -> Pixels:
        """Decode a job whose UNet calls are done, in tiles where memory is short.

        One that is stopped before is decoded from its last estimate.

        Raises:
            GenerationError: the image diverged.
            InvalidRequestError: it diverged, and its LoRAs may be why.
        """
        assert job.denoising is not None
        self.offloader.require("vae")
        denoising = job.denoising
        latents = denoising.latents if denoising.is_done else denoising.denoised
        try:
            return self.decoder.decode(latents, in_tiles=in_tiles)
        except GenerationError as error:
            loras = job.spec.record.all_loras
            if not loras:
                raise
            named = ", ".join(f"{use.name} at {use.strength.unet:g}" for use in loras)
            raise InvalidRequestError(
                f"{error}, with the LoRAs {named}; weights nearer to 0 would be right",
                field="loras",
            ) from error

    def _take_preview(self, listener: Listener, job: Job) -> PreviewPicture | None:
        """Copy what a preview is drawn from, if one is wanted.

        If that fails, log it and take none for this job any more.
        """
        assert job.denoising is not None
        try:
            # The image itself follows the last call.
            is_done = job.denoising.is_done and job.is_in_last_pass
            if is_done or not listener.wants_preview(job.calls_done):
                return None
            if self._preview is None:
                self.offloader.require("vae")
                self._preview = Preview(self.decoder)
            return PreviewPicture(self._preview.take(job.denoising.denoised))
        except Exception:
            logger.exception("a preview could not be drawn")
            job.listener = replace(listener, wants_preview=wants_none)
            return None


def _make_adapters(pipeline: Pipeline, plan: MemoryPlan, library: LoraLibrary) -> Adapters:
    first, second = pipeline.prompt_encoder.models
    networks = {
        Component.UNET: pipeline.unet,
        Component.TEXT_ENCODER: first,
        Component.TEXT_ENCODER_2: second,
    }
    return Adapters(networks, library, pipeline.device, plan.merged_bytes)

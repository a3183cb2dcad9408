"""The engine as its callers see it: load a model directory, await images.

It knows nothing of HTTP. Everything that can be refused is refused before a job is queued: by its
fields in `resolver.py`, for lack of room or time in `queue.py`.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

from lpw_sdxl import __version__
from lpw_sdxl.addon.catalogue import AddonsByKey, Catalogue
from lpw_sdxl.addon.named_upscalers import upscaler_names
from lpw_sdxl.addon.registry import NO_ADDONS, Registry
from lpw_sdxl.conditioning.explain_schedule import PromptInspection
from lpw_sdxl.diffusion.pipeline import Pipeline
from lpw_sdxl.diffusion.scheduler_rules import supported_schedulers
from lpw_sdxl.engine.acceptance import Acceptance, Order
from lpw_sdxl.engine.calibration import calibrate, read_memory
from lpw_sdxl.engine.description import (
    EngineCounters,
    EngineDescription,
    LimitsDescription,
    PromptCache,
    describe_embeddings,
    describe_k_diffusion,
    describe_loras,
    describe_model,
)
from lpw_sdxl.engine.device_choice import choose_device
from lpw_sdxl.engine.intake import RequestIntake, Resolvers, TakenRequest, TakenUpscale
from lpw_sdxl.engine.job import GeneratedImage, Job
from lpw_sdxl.engine.job_registry import JobRegistry
from lpw_sdxl.engine.job_spec import JobSpec
from lpw_sdxl.engine.loop import StepLoop
from lpw_sdxl.engine.memory import MemoryPlan
from lpw_sdxl.engine.metrics import EngineMetrics, LoopCounters
from lpw_sdxl.engine.noise_drawers import NoiseDrawers
from lpw_sdxl.engine.offer import Offers
from lpw_sdxl.engine.parameters import answer_reading
from lpw_sdxl.engine.picture_work import work_on_pictures
from lpw_sdxl.engine.progress import Listener
from lpw_sdxl.engine.queued_job import TimeLimits
from lpw_sdxl.engine.reading import UNCOUNTED, PictureMemory, Reading
from lpw_sdxl.engine.resolver import RequestResolver
from lpw_sdxl.engine.tracked_job import JobKey, new_request_id
from lpw_sdxl.engine.upscale_job import UpscaleJob
from lpw_sdxl.engine.upscale_resolver import UpscaleResolver
from lpw_sdxl.engine.upscaled_image import UpscaledImage
from lpw_sdxl.lora.library import LoraLibrary
from lpw_sdxl.parameters.request import ParametersAnswer, ParametersRequest
from lpw_sdxl.prompt import PromptStyle
from lpw_sdxl.request_limits import RequestLimits
from lpw_sdxl.schedule_types import ScheduleType
from lpw_sdxl.schema import GenerationRequest, ImageSize, InspectionRequest
from lpw_sdxl.settings import Settings, read_settings
from lpw_sdxl.store.manifest import read_manifest
from lpw_sdxl.upscale_request import UpscaleRequest

logger = logging.getLogger(__name__)


def log_death(reason: str) -> None:
    """Log why the engine died; a program that embeds it can read `is_alive`."""
    logger.critical("%s", reason)


class Engine:
    """An engine that generates images, many requests at a time, on one device.

    Use `Engine.load`. `generate` may be awaited from any event loop, by any number of callers.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        settings: Settings,
        plan: MemoryPlan,
        metrics: EngineMetrics | None = None,
        on_death: Callable[[str], None] = log_death,
        *,
        addons: Catalogue | None = None,
    ) -> None:
        self.pipeline = pipeline
        self._catalogue = addons or Catalogue()
        self._library = LoraLibrary(AddonsByKey(self._catalogue), settings.lora_files_bytes)
        self.plan = plan
        self._offers = Offers(self._catalogue, pipeline.prompt_encoder, settings)
        self._resolver = RequestResolver(pipeline, settings, _measured_pixels(plan))
        upscales = UpscaleResolver(
            self._resolver.limits,
            self._resolver.picture_limits,
            plan.tile_room,
            settings.max_queued_cost,
        )
        self._intake = RequestIntake(
            Resolvers(self._resolver, upscales),
            Reading(self._offers, self._catalogue, settings),
            self._library,
        )
        self._settings = settings
        self._metrics = metrics or EngineMetrics()
        self._metrics.set_device(plan.hardware, plan.offload_rule, is_offloading=plan.is_offloading)
        self._loop = StepLoop(
            pipeline,
            plan,
            settings,
            self._metrics,
            on_death,
            library=self._library if may_have_loras(self._catalogue, settings) else None,
        )
        # One, for a large picture takes half a gigabyte meanwhile. It ends with the engine's last
        # reference, not in `close`: the last images come after the loop's end.
        self._paster = ThreadPoolExecutor(1, thread_name_prefix="lpw-sdxl-paster")
        self._drawers = NoiseDrawers()
        self.jobs = JobRegistry(self._loop.queue.note_places)
        self._acceptance = Acceptance(self._loop.queue, self.jobs)
        self._loop.start()

    @classmethod
    def load(
        cls,
        model_directory: str | Path,
        settings: Settings | None = None,
        metrics: EngineMetrics | None = None,
        on_death: Callable[[str], None] = log_death,
        *,
        addons: Catalogue | Registry = NO_ADDONS,
    ) -> Engine:
        """Load a model directory made by the import, and start the engine.

        Args:
            model_directory: Diffusers layout with our `manifest.json`.
            settings: read from the environment if None.
            metrics: to count in; None for metrics of the engine's own.
            on_death: called once, from a thread of its own, if the engine dies or stalls; every
                caller has its answer by then, and only a new process can serve again.
            addons: the LoRAs and embeddings that requests may name, fitting the model; those of a
                Registry never change.

        Raises:
            ModelError: if the import did not make the directory, or the model does not fit into the
                device.
            SettingsError: if a setting can't be used, or the device is not there.
        """
        settings = read_settings(Settings) if settings is None else settings
        started = time.monotonic()
        manifest = read_manifest(Path(model_directory))
        device = choose_device(settings.device, model_bytes=manifest.total_bytes)
        memory = read_memory(device)
        catalogue = addons if isinstance(addons, Catalogue) else Catalogue(first=addons)
        pipeline = Pipeline.load(Path(model_directory), device, settings)
        plan = calibrate(
            pipeline,
            memory,
            settings,
            has_loras=may_have_loras(catalogue, settings),
            has_upscalers=catalogue.can_change or bool(catalogue.current.upscalers),
        )
        engine = cls(pipeline, settings, plan, metrics, on_death, addons=catalogue)
        logger.info("model loaded in %.1f s", time.monotonic() - started)
        logger.info("memory: %s", plan)
        known = engine._offers.current.registry
        logger.info(
            "%d LoRAs and %d embeddings can be named, %d files of them are still to be read",
            len(known.loras),
            len(known.embeddings),
            len(known.pending),
        )
        logger.info(
            "prompts of up to %d chunks of 75 tokens and %d characters",
            settings.max_prompt_chunks,
            settings.max_prompt_characters,
        )
        return engine

    @property
    def native_size(self) -> ImageSize:
        """Return the size that the model was trained for, the default of a request."""
        return self.pipeline.manifest.native_size

    @property
    def registry(self) -> Registry:
        """Return the add-ons that requests may name now."""
        return self._offers.current.registry

    @property
    def limits(self) -> RequestLimits:
        """Return the limits of a request's own fields."""
        return self._resolver.limits

    @property
    def is_alive(self) -> bool:
        """Return whether the engine takes requests."""
        return self._loop.is_alive

    @property
    def is_busy(self) -> bool:
        """Return whether any image is under way; cheap, and from any thread."""
        return self._loop.is_busy

    @property
    def counters(self) -> LoopCounters:
        """Return the loop's counters."""
        return self._metrics.counters

    @property
    def queued_jobs(self) -> int:
        """Count the jobs accepted and not finished."""
        return self._loop.queue.load.jobs

    async def generate(
        self,
        request: GenerationRequest,
        listener: Listener | None = None,
        *,
        leaves_room: bool = False,
        owner: str = "",
        memory: PictureMemory = UNCOUNTED,
        takes_unfinished: bool = False,
    ) -> GeneratedImage:
        """Generate one image. Cancelling the await drops its job within one step.

        Args:
            request: of the image.
            listener: of its progress.
            leaves_room: as in `JobQueue.place`; for an item of a batch.
            owner: of the job, for `jobs`.
            memory: counts the request's pictures, and then what is made of them; their files are
                let go once they are read, if the caller does so too.
            takes_unfinished: whether the image as far as it is will do, if the job's owner stops
                it; else that is a cancellation.

        Raises:
            RequestError: if the request itself must be refused; nothing was queued.
                Or it was, and the job's owner has cancelled it (`JobCancelledError`).
            GenerationError: if this image failed, or the server's time for it ran out.
            UnavailableError: if the engine is stopping.
        """
        accepted_at = time.monotonic()
        key = JobKey(owner, request.request_id or new_request_id())
        take = partial(self._intake.take, request, accepted_at, memory)
        del request  # the files of its pictures, if any

        def make(taken: TakenRequest, listener: Listener) -> Job:
            limit_s = self._settings.time_limit_s
            job = Job(taken.spec, accepted_at, limit_s, listener, taken.files)
            job.picture, job.upscaling = taken.picture, taken.upscaling
            job.surroundings = None if taken.picture is None else taken.picture.surroundings
            for index, one in enumerate(job.spec.passes):
                job.noises[index] = one.plan.open_noise(self.pipeline.device, self._drawers.ask)
            job.draw_ahead = self._drawers.ask
            job.takes_unfinished = takes_unfinished
            return job

        answering = self._acceptance.answer(Order(key, listener, leaves_room, memory), take, make)
        del take
        image = await answering
        if image.surroundings is None:
            return image
        return await work_on_pictures(image.put_back, self._paster)

    async def upscale(
        self,
        request: UpscaleRequest,
        listener: Listener | None = None,
        *,
        leaves_room: bool = False,
        owner: str = "",
        memory: PictureMemory = UNCOUNTED,
    ) -> UpscaledImage:
        """Enlarge one picture. Cancelling the await drops its job within one tile.

        Args:
            request: of the picture.
            listener: of its progress, which counts tiles where `generate` counts UNet calls.
            leaves_room: as in `generate`.
            owner: of the job, for `jobs`.
            memory: counts the picture's file, and then its pixels.

        Raises:
            RequestError: as `generate`.
            GenerationError: if this picture failed, or the server's time for it ran out.
            UnavailableError: if the engine is stopping, or the upscaler can't be read any more.
        """
        accepted_at = time.monotonic()
        key = JobKey(owner, request.request_id or new_request_id())
        limits = TimeLimits(accepted_at, self._settings.time_limit_s, request.deadline_s)
        take = partial(self._intake.take_upscale, request, accepted_at, memory)
        del request  # the picture's file

        def make(taken: TakenUpscale, listener: Listener) -> UpscaleJob:
            return UpscaleJob(taken.spec, taken.pixels, limits, listener)

        answering = self._acceptance.answer(Order(key, listener, leaves_room, memory), take, make)
        del take
        return await answering

    def decide(self, request: GenerationRequest) -> JobSpec:
        """Check a request against all limits and fill in its defaults.

        Raises:
            RequestError: naming the field at fault.
        """
        return self._resolver.resolve(request, self._offers.current)

    def explain(self, request: InspectionRequest) -> PromptInspection:
        """Explain how the engine reads two prompts.

        Raises:
            RequestError: if a prompt breaks a limit.
        """
        return self._resolver.explain(request, self._offers.current)

    def read_parameters(self, request: ParametersRequest) -> ParametersAnswer:
        """Read an A1111 text, or a picture's, as a request of this engine.

        Raises:
            RequestError: if there is none, or it is another program's.
        """
        return answer_reading(request, self.pipeline.manifest, self._resolver, self._offers.current)

    def describe(self) -> EngineDescription:
        """Describe what is served and what has been done."""
        manifest, encoder = self.pipeline.manifest, self.pipeline.prompt_encoder
        registry = self.registry
        return EngineDescription(
            model_tag=manifest.tag,
            version=__version__,
            model=describe_model(manifest),
            device=self.plan.device,
            memory=self.plan,
            schedulers=[*supported_schedulers(self.pipeline.scheduler_config)],
            own_scheduler=self._resolver.sampling.own_scheduler,
            schedule_types=[*ScheduleType],
            own_schedule_type=self._resolver.own_schedule_type,
            k_diffusion=describe_k_diffusion(self._resolver.sampling.own_sampler),
            prompt_styles=[*PromptStyle],
            limits=LimitsDescription.of(self._settings, self.limits.max_size),
            upscalers=upscaler_names(registry),
            loras=describe_loras(registry.loras),
            embeddings=describe_embeddings(registry.embeddings),
            engine=EngineCounters.of(self.counters, self.queued_jobs),
            lora_files=replace(self._library.counters),
            prompt_cache=PromptCache(*map(replace, encoder.counters)),
        )

    def close(self, timeout_s: float = 60.0) -> None:
        """Refuse new requests, finish those accepted, and stop the engine."""
        self._catalogue.close()
        self._loop.close(timeout_s)
        self._drawers.close()
        self._intake.close()


def _measured_pixels(plan: MemoryPlan) -> float:
    """Return the pixels that one UNet call has memory for, where that was measured: on a GPU."""
    return plan.call_pixels if plan.device.startswith("cuda") else math.inf


def may_have_loras(catalogue: Catalogue, settings: Settings) -> bool:
    """Return whether requests may name LoRAs, now or later."""
    return settings.max_loras > 0 and (catalogue.can_change or bool(catalogue.current.loras))

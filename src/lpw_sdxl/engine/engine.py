"""The engine as its callers see it: load a model directory, await images.

Knows nothing of HTTP. Everything that can be refused is refused before a job is queued: what a
request says in `resolver.py`, what there is no room or time for in `queue.py`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from lpw_sdxl import __version__
from lpw_sdxl.addon.registry import NO_ADDONS, Addon, Registry
from lpw_sdxl.conditioning.embeddings import Embedding, load_embedding
from lpw_sdxl.conditioning.explain import PromptExplanation
from lpw_sdxl.diffusion.pipeline import Pipeline
from lpw_sdxl.diffusion.scheduler_rules import supported_schedulers
from lpw_sdxl.engine.calibration import calibrate, read_memory
from lpw_sdxl.engine.description import (
    EngineCounters,
    EngineDescription,
    LimitsDescription,
    PromptCache,
    describe_embeddings,
    describe_loras,
    describe_model,
)
from lpw_sdxl.engine.job import GeneratedImage, Job, JobSpec, Listener
from lpw_sdxl.engine.loop import StepLoop
from lpw_sdxl.engine.memory import MemoryPlan, choose_device
from lpw_sdxl.engine.metrics import EngineMetrics, LoopCounters
from lpw_sdxl.engine.resolver import RequestResolver
from lpw_sdxl.lora.library import LoraLibrary
from lpw_sdxl.lora.sets import NOWHERE, LoraSets
from lpw_sdxl.prompt import PromptStyle
from lpw_sdxl.request_limits import RequestLimits
from lpw_sdxl.schema import GenerationRequest, ImageSize, InspectionRequest
from lpw_sdxl.settings import Settings, read_settings

logger = logging.getLogger(__name__)


def ignore_death(reason: str) -> None:
    """Do no more than the log already says: whoever embeds the engine asks `is_alive`."""
    logger.critical("%s", reason)


class Engine:
    """Generates images, many requests at a time, on one device.

    Use `Engine.load`. `generate` may be awaited from any event loop, by any number of callers.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        settings: Settings,
        plan: MemoryPlan,
        metrics: EngineMetrics | None = None,
        on_death: Callable[[str], None] = ignore_death,
        *,
        addons: Registry = NO_ADDONS,
    ) -> None:
        self.pipeline = pipeline
        self.addons = addons
        self._library = LoraLibrary(
            {lora.manifest.source_sha256: lora for lora in addons.loras.values()},
            settings.lora_files_bytes,
        )
        self.plan = plan
        self._resolver = RequestResolver(pipeline, addons, settings)
        self._settings = settings
        self._metrics = metrics or EngineMetrics()
        self._loop = StepLoop(
            pipeline,
            plan,
            settings,
            self._metrics,
            on_death,
            library=self._library if addons.loras else None,
        )
        self._loop.start()

    @classmethod
    def load(
        cls,
        model_directory: str | Path,
        settings: Settings | None = None,
        metrics: EngineMetrics | None = None,
        on_death: Callable[[str], None] = ignore_death,
        *,
        addons: Registry = NO_ADDONS,
    ) -> Engine:
        """Load a model directory that the import made, and start the engine.

        Args:
            model_directory: Diffusers layout with our `manifest.json`.
            settings: read from the environment if None.
            metrics: where to count; nobody sees it if None.
            on_death: called once, from a thread of its own, if the engine dies or stalls; every
                caller has its answer by then, and nothing but a new process helps.
            addons: the LoRAs and embeddings that requests may name, fitting the model.

        Raises:
            AddonError: if an embedding is damaged.
            ModelError: if the directory is not one of ours, or does not fit into the device.
            SettingsError: if a setting can't be used, or the device is not there.
        """
        settings = read_settings() if settings is None else settings
        started = time.monotonic()
        device = choose_device(settings.device)
        memory = read_memory(device)
        embeddings = [*map(_load_embedding, addons.embeddings.values())]
        pipeline = Pipeline.load(Path(model_directory), device, settings, embeddings)
        plan = calibrate(pipeline, memory, settings, has_loras=bool(addons.loras))
        engine = cls(pipeline, settings, plan, metrics, on_death, addons=addons)
        logger.info("model loaded in %.1f s", time.monotonic() - started)
        logger.info("memory: %s", plan)
        logger.info(
            "prompts of up to %d chunks of 75 tokens and %d characters",
            settings.max_prompt_chunks,
            settings.max_prompt_characters,
        )
        return engine

    @property
    def native_size(self) -> ImageSize:
        """Give the size that the model was trained for, the default of a request."""
        return self.pipeline.manifest.native_size

    @property
    def limits(self) -> RequestLimits:
        """Give the limits of a request's own fields."""
        return self._resolver.limits

    @property
    def is_alive(self) -> bool:
        """Tell whether the engine takes requests."""
        return self._loop.is_alive

    @property
    def counters(self) -> LoopCounters:
        """Give the loop's counters."""
        return self._metrics.counters

    @property
    def queued_jobs(self) -> int:
        """Count the jobs accepted and not finished."""
        return self._loop.queue.load.jobs

    async def generate(
        self, request: GenerationRequest, listener: Listener | None = None
    ) -> GeneratedImage:
        """Make one image. Cancelling the await frees its place within one step.

        Args:
            request: what to make.
            listener: who wants to hear how far it is.

        Raises:
            RequestError: if the request is at fault; nothing was queued.
            GenerationError: if this image failed, or the server's time for it ran out.
            UnavailableError: if the engine is stopping.
        """
        accepted_at = time.monotonic()
        self._loop.queue.check_open()
        # Reading a long prompt takes milliseconds, in which no other request should wait.
        spec = await asyncio.to_thread(self.decide, request)
        if spec.loras != NOWHERE:  # read here, a LoRA's file keeps nobody else waiting
            await asyncio.to_thread(self._read_loras, spec.loras)
        job = Job(spec, accepted_at, self._settings.time_limit_s, listener)
        self._loop.queue.put(job)
        return await asyncio.wrap_future(job.future)

    def decide(self, request: GenerationRequest) -> JobSpec:
        """Hold a request against every limit and decide all that it left open.

        Raises:
            RequestError: naming the field at fault.
        """
        return self._resolver.resolve(request)

    def explain(self, request: InspectionRequest) -> PromptExplanation:
        """Say what the engine makes of two prompts.

        Raises:
            RequestError: if a prompt breaks a limit.
        """
        return self._resolver.explain(request)

    def describe(self) -> EngineDescription:
        """Tell what is served and what has been done."""
        manifest, encoder = self.pipeline.manifest, self.pipeline.prompt_encoder
        return EngineDescription(
            model_tag=manifest.tag,
            version=__version__,
            model=describe_model(manifest),
            device=self.plan.device,
            memory=self.plan,
            schedulers=[*supported_schedulers(self.pipeline.scheduler_config)],
            own_scheduler=self._resolver.own_scheduler,
            prompt_styles=[*PromptStyle],
            limits=LimitsDescription.of(self._settings),
            loras=describe_loras(self.addons.loras),
            embeddings=describe_embeddings(self.addons.embeddings),
            engine=EngineCounters.of(self.counters, self.queued_jobs),
            lora_files=replace(self._library.counters),
            prompt_cache=PromptCache(*map(replace, encoder.counters)),
        )

    def close(self, timeout_s: float = 60.0) -> None:
        """Take no more requests, finish those accepted, and stop."""
        self._loop.close(timeout_s)

    def _read_loras(self, loras: LoraSets) -> None:
        """Have the LoRAs at hand before the job's turn comes."""
        for sha256, _ in {*loras.unet, *loras.text_encoders}:
            self._library.get(sha256)


def _load_embedding(addon: Addon) -> Embedding:
    addon.verify()
    return load_embedding(addon.manifest.name, addon.file)

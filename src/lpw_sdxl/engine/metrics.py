"""The engine's metrics, for Prometheus and /info at once; it decides nothing.

Every series is made at the start, and labels take values from the Enums below and the error tree:
the number of series is constant. Only the device's own is made when the engine knows it. In a
BentoML worker the numbers are kept in files, one set for each process, which /metrics adds up,
whatever the registry: a worker that replaces a dead one continues its counters.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Gauge, Histogram
from prometheus_client import Counter as CounterMetric

from lpw_sdxl.errors import error_codes

if TYPE_CHECKING:  # a worker's metrics are made before torch is imported
    from lpw_sdxl.diffusion.pipeline import Pipeline
    from lpw_sdxl.engine.description import HardwareDescription
    from lpw_sdxl.engine.job import Job
    from lpw_sdxl.engine.offload import OffloadRule
    from lpw_sdxl.lora.adapters import Adapters

PREFIX: Final = "lpw_sdxl"
OTHER_ERROR: Final = "other"  # in the place of an unknown code
WAIT_SECONDS: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
STAGE_SECONDS: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 5, 10, 30)
DEVICE_LABELS: Final = (
    "kind",  # cuda or cpu
    "name",
    "driver",
    "compute_capability",
    "is_offloading",
    "offload_rule",
)
STEP_ROWS: Final = (1, 2, 4, 6, 8, 12, 16, 24, 32, 64)


class Stage(StrEnum):
    """A stage of an image's generation whose time is measured."""

    ENCODE = "encode"  # prompts to embeddings, for all that begin together
    PICTURE = "picture"  # a start's picture to latents, one part of one job
    ENLARGE = "enlarge"  # a first pass decoded or its latents scaled, or one tile of an upscaler
    STEP = "step"  # one UNet call and the schedulers' steps behind it
    DECODE = "decode"  # latents to pixels, one image
    FILE = "file"  # pixels to a PNG, JPEG or WebP, in a worker thread


class CacheName(StrEnum):
    """A cache of prompts or LoRAs whose lookups are counted."""

    CONDITIONINGS = "conditionings"  # whole requests
    WINDOWS = "windows"  # windows of 77 tokens
    LORA_WEIGHTS = "lora_weights"  # weights of a network with a set of LoRAs
    LORA_FILES = "lora_files"  # the LoRAs themselves


@dataclass
class LoopCounters:
    """The loop's counters since it started; only its thread writes them.

    Attributes:
        unet_calls: calls by the number of jobs they carried.
        images: finished.
        upscales: likewise, pictures that were enlarged.
        failed: jobs that ended in an error, late ones included.
        left: jobs that their caller cancelled.
        out_of_memory: times that work was divided, or a job failed, for lack of memory.
    """

    unet_calls: Counter[int] = field(default_factory=Counter)
    images: int = 0
    upscales: int = 0
    failed: int = 0
    left: int = 0
    out_of_memory: int = 0


class EngineMetrics:
    """The metrics of one engine: records of what the loop did, and samples of its state.

    Any thread may call; each call takes microseconds.

    Args:
        registry: to register the metrics in, once for each registry; None for a registry of their
            own, which a BentoML worker needs.

    Attributes:
        counters: those of /info.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.counters = LoopCounters()
        registry = registry or CollectorRegistry()
        counter = partial(CounterMetric, namespace=PREFIX, registry=registry)
        histogram = partial(Histogram, namespace=PREFIX, registry=registry)
        # Summed over the live workers: by default there is a series for each that ever lived.
        gauge = partial(Gauge, namespace=PREFIX, registry=registry, multiprocess_mode="livesum")
        self._waiting = gauge("queue_jobs", "Jobs that wait to begin.")
        self._active = gauge("active_jobs", "Jobs under way.")
        self._allocated = gauge("device_memory_allocated_bytes", "Device memory that tensors take.")
        self._reserved = gauge(
            "device_memory_reserved_bytes", "Device memory that the allocator holds."
        )
        self._memory_total = gauge(
            "device_memory_total_bytes", "Memory of the GPU; 0 on a CPU, as the others are."
        )
        self._memory_free = gauge(
            "device_memory_free_at_start_bytes",
            "Memory of the GPU that was free before the model was moved there.",
        )
        # One series for workers with equal devices, of value 1 however many they are.
        self._device = Gauge(
            "device_info",
            "What computes, and which rule decided whether components take turns there; always 1.",
            DEVICE_LABELS,
            namespace=PREFIX,
            registry=registry,
            multiprocess_mode="livemax",
        )
        self._waits = histogram(
            "queue_wait_seconds",
            "Time from a job's acceptance to its beginning.",
            buckets=WAIT_SECONDS,
        )
        self._rows = histogram("step_rows", "UNet rows of one step.", buckets=STEP_ROWS)
        stages = histogram(
            "stage_seconds", "Time of one stage of the work.", ["stage"], buckets=STAGE_SECONDS
        )
        self._stages = {stage: stages.labels(stage) for stage in Stage}
        self._images = counter("images", "Images finished.")
        self._upscales = counter("upscales", "Pictures enlarged.")
        self._cancelled = counter(
            "cancelled", "Jobs dropped because their client disconnected or cancelled them."
        )
        self._out_of_memory = counter(
            "out_of_memory", "Times that the device had no memory left for a piece of work."
        )
        self._tokens = counter("prompt_tokens", "Tokens of the prompts that were encoded.")
        self._chunks = counter("prompt_chunks", "Chunks of the prompts that were encoded.")
        errors = counter("errors", "Requests that were answered with an error.", ["code"])
        codes = chain([OTHER_ERROR], *error_codes().values())
        self._errors = {code: errors.labels(code) for code in codes}
        hits = counter("cache_hits", "Lookups that found something.", ["cache"])
        misses = counter("cache_misses", "Lookups that found nothing.", ["cache"])
        self._lookups = {name: (hits.labels(name), misses.labels(name)) for name in CacheName}
        self._counted: Counter[CounterMetric] = Counter()
        self.set_jobs(0, 0)  # a process may have the number, and so the files, of one that died
        self.set_device_memory(0, 0)

    def set_device(
        self, hardware: HardwareDescription, offload_rule: OffloadRule, *, is_offloading: bool
    ) -> None:
        """Set what computes, and what was decided for it; once for each engine."""
        self._device.labels(
            hardware.device.partition(":")[0],
            hardware.name,
            hardware.driver or "",
            hardware.compute_capability or "",
            str(is_offloading).lower(),
            offload_rule,
        ).set(1)
        is_planned = hardware.free_bytes is not None
        self._memory_total.set(hardware.total_bytes if is_planned else 0)
        self._memory_free.set(hardware.free_bytes or 0)

    def set_jobs(self, waiting: int, active: int) -> None:
        """Set how many jobs wait and how many are under way now."""
        self._waiting.set(waiting)
        self._active.set(active)

    def observe_wait(self, seconds: float) -> None:
        """Record how long a job waited before it began."""
        self._waits.observe(seconds)

    def observe_stage(self, stage: Stage, seconds: float) -> None:
        """Record how long one piece of a stage's work took."""
        self._stages[stage].observe(seconds)

    @contextmanager
    def timed(self, stage: Stage) -> Iterator[None]:
        """Time a block that is one piece of a stage's work; one that fails is not counted."""
        started = time.perf_counter()
        yield
        self.observe_stage(stage, time.perf_counter() - started)

    def count_prompts(self, jobs: Sequence[Job]) -> None:
        """Count the tokens and chunks of the jobs that were encoded, not of those that failed."""
        for text in (text for job in jobs if job.is_encoded for text in job.spec.texts):
            self._tokens.inc(text.token_count)
            self._chunks.inc(text.chunk_count)

    def count_calls(self, calls: Iterable[int]) -> None:
        """Count UNet calls, each given as the number of jobs that it carried."""
        self.counters.unet_calls.update(calls)

    def observe_rows(self, rows: int) -> None:
        """Record the rows of a step of jobs."""
        self._rows.observe(rows)

    def count_image(self) -> None:
        """Count a finished image."""
        self.counters.images += 1
        self._images.inc()

    def count_upscale(self) -> None:
        """Count a picture that was enlarged."""
        self.counters.upscales += 1
        self._upscales.inc()

    def count_failed_job(self) -> None:
        """Count a job that ended in an error; the service counts the code of its answer."""
        self.counters.failed += 1

    def count_error(self, code: str) -> None:
        """Count an answer with an error by its code; an unknown code counts as "other"."""
        self._errors.get(code, self._errors[OTHER_ERROR]).inc()

    def count_cancelled(self) -> None:
        """Count a job that its caller cancelled."""
        self.counters.left += 1
        self._cancelled.inc()

    def count_out_of_memory(self) -> None:
        """Count a piece of work for which the device had no memory."""
        self.counters.out_of_memory += 1
        self._out_of_memory.inc()

    def sample(self, pipeline: Pipeline, adapters: Adapters | None) -> None:
        """Read the counters of caches and the memory of a CUDA device; for one thread at a time.

        Args:
            pipeline: has the caches of prompts.
            adapters: has those of LoRAs; None where there are none.
        """
        conditionings, windows = pipeline.prompt_encoder.counters
        self.count_lookups(CacheName.CONDITIONINGS, conditionings.hits, conditionings.misses)
        self.count_lookups(CacheName.WINDOWS, windows.hits, windows.misses)
        if adapters is not None:
            merged, files = adapters.counters, adapters.library.counters
            self.count_lookups(CacheName.LORA_WEIGHTS, merged.hits, merged.misses)
            self.count_lookups(CacheName.LORA_FILES, files.hits, files.misses)
        if pipeline.device.type == "cuda":
            from torch import cuda  # noqa: PLC0415 - as above

            self.set_device_memory(
                cuda.memory_allocated(pipeline.device), cuda.memory_reserved(pipeline.device)
            )

    def count_lookups(self, name: CacheName, hits: int, misses: int) -> None:
        """Count a cache's lookups since the last time; for one thread at a time.

        Args:
            name: which cache.
            hits: since the cache was made.
            misses: since the cache was made.
        """
        for series, count in zip(self._lookups[name], (hits, misses), strict=True):
            series.inc(count - self._counted[series])
            self._counted[series] = count

    def set_device_memory(self, allocated: int, reserved: int) -> None:
        """Set the bytes of the device's memory that are allocated and reserved now."""
        self._allocated.set(allocated)
        self._reserved.set(reserved)

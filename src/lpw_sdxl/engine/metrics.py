"""What the engine did and how it is, for Prometheus and /info at once; it decides nothing.

Every series is made at the start and labels take values from the Enums below and the error tree, so
that the number of series is constant. In BentoML's worker the numbers live in files, one set for
each process, which /metrics adds up, whatever the registry: counters go on where a worker that died
left them.
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
    from lpw_sdxl.engine.job import Job
    from lpw_sdxl.lora.adapters import Adapters

PREFIX: Final = "lpw_sdxl"
OTHER_ERROR: Final = "other"  # in the place of a code that should not be
WAIT_SECONDS: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
STAGE_SECONDS: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 5, 10, 30)
STEP_ROWS: Final = (1, 2, 4, 6, 8, 12, 16, 24, 32, 64)


class Stage(StrEnum):
    """A part of an image's way whose time is measured."""

    ENCODE = "encode"  # prompts to embeddings, for all that begin together
    STEP = "step"  # one UNet call and the schedulers' steps behind it
    DECODE = "decode"  # latents to pixels, one image
    FILE = "file"  # pixels to a PNG, JPEG or WebP, in a worker thread


class CacheName(StrEnum):
    """What is remembered of prompts and LoRAs."""

    CONDITIONINGS = "conditionings"  # whole requests
    WINDOWS = "windows"  # windows of 77 tokens
    LORA_WEIGHTS = "lora_weights"  # weights of a network with a set of LoRAs
    LORA_FILES = "lora_files"  # the LoRAs themselves


@dataclass
class LoopCounters:
    """What the loop has done since it started; only its thread writes.

    Attributes:
        unet_calls: calls by the number of jobs they carried.
        images: finished.
        failed: jobs that ended in an error, those that were late included.
        left: jobs whose caller went away.
        out_of_memory: times that work had to be divided, or a job failed, for lack of memory.
    """

    unet_calls: Counter[int] = field(default_factory=Counter)
    images: int = 0
    failed: int = 0
    left: int = 0
    out_of_memory: int = 0


class EngineMetrics:
    """The metrics of one engine. Any thread may call; each call takes microseconds.

    Args:
        registry: what else collects them; None for a registry of their own, which is what a BentoML
            worker needs. One registry takes them once.

    Attributes:
        counters: what /info tells.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.counters = LoopCounters()
        registry = registry or CollectorRegistry()
        counter = partial(CounterMetric, namespace=PREFIX, registry=registry)
        histogram = partial(Histogram, namespace=PREFIX, registry=registry)
        # Summed over the workers that live: the default has a series for each that ever lived.
        gauge = partial(Gauge, namespace=PREFIX, registry=registry, multiprocess_mode="livesum")
        self._waiting = gauge("queue_jobs", "Jobs that wait to begin.")
        self._active = gauge("active_jobs", "Jobs under way.")
        self._allocated = gauge("device_memory_allocated_bytes", "Device memory that tensors take.")
        self._reserved = gauge(
            "device_memory_reserved_bytes", "Device memory that the allocator holds."
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
        self._images = counter("images", "Images handed out.")
        self._cancelled = counter("cancelled", "Jobs dropped because whoever asked had gone.")
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
        self.queue(0, 0)  # a process may get the number, and with it the files, of one that died
        self.device_memory(0, 0)

    def queue(self, waiting: int, active: int) -> None:
        """Tell how many jobs wait and how many are under way, now."""
        self._waiting.set(waiting)
        self._active.set(active)

    def waited(self, seconds: float) -> None:
        """Tell how long a job waited that begins now."""
        self._waits.observe(seconds)

    def stage(self, stage: Stage, seconds: float) -> None:
        """Tell how long one piece of a stage's work took."""
        self._stages[stage].observe(seconds)

    @contextmanager
    def timed(self, stage: Stage) -> Iterator[None]:
        """Time a block that is one piece of a stage's work; one that fails is not counted."""
        started = time.perf_counter()
        yield
        self.stage(stage, time.perf_counter() - started)

    def encoded(self, jobs: Sequence[Job]) -> None:
        """Count the prompts of those of these jobs whose denoising has begun."""
        for text in (text for job in jobs if job.denoising for text in job.spec.prompts.texts):
            self._tokens.inc(text.token_count)
            self._chunks.inc(text.chunk_count)

    def called(self, calls: Iterable[int]) -> None:
        """Count UNet calls; each is told by the number of jobs it carried."""
        self.counters.unet_calls.update(calls)

    def stepped(self, jobs: Sequence[Job]) -> None:
        """Count the rows of a step of these jobs."""
        self._rows.observe(sum(job.spec.rows for job in jobs))

    def image_done(self) -> None:
        """Count an image that is handed out."""
        self.counters.images += 1
        self._images.inc()

    def job_failed(self) -> None:
        """Count a job that ended in an error; the border counts its code."""
        self.counters.failed += 1

    def failed(self, code: str) -> None:
        """Count an answer with an error by its code; one that is not known counts as "other"."""
        self._errors.get(code, self._errors[OTHER_ERROR]).inc()

    def departed(self) -> None:
        """Count a job whose caller went away."""
        self.counters.left += 1
        self._cancelled.inc()

    def out_of_memory(self) -> None:
        """Count a piece of work that the device had no memory for."""
        self.counters.out_of_memory += 1
        self._out_of_memory.inc()

    def look(self, pipeline: Pipeline, adapters: Adapters | None) -> None:
        """See what caches have done and a CUDA device holds; for one thread at a time.

        Args:
            pipeline: whose prompts are remembered.
            adapters: whose LoRAs are; None where there are none.
        """
        conditionings, windows = pipeline.prompt_encoder.counters
        self.cache(CacheName.CONDITIONINGS, conditionings.hits, conditionings.misses)
        self.cache(CacheName.WINDOWS, windows.hits, windows.misses)
        if adapters is not None:
            merged, files = adapters.counters, adapters.library.counters
            self.cache(CacheName.LORA_WEIGHTS, merged.hits, merged.misses)
            self.cache(CacheName.LORA_FILES, files.hits, files.misses)
        if pipeline.device.type == "cuda":
            from torch import cuda  # noqa: PLC0415 - as above

            self.device_memory(
                cuda.memory_allocated(pipeline.device), cuda.memory_reserved(pipeline.device)
            )

    def cache(self, name: CacheName, hits: int, misses: int) -> None:
        """Bring a cache's counters up to date; for one thread at a time.

        Args:
            name: which cache.
            hits: since the cache was made.
            misses: since the cache was made.
        """
        for series, count in zip(self._lookups[name], (hits, misses), strict=True):
            series.inc(count - self._counted[series])
            self._counted[series] = count

    def device_memory(self, allocated: int, reserved: int) -> None:
        """Tell what the device's memory holds now, bytes."""
        self._allocated.set(allocated)
        self._reserved.set(reserved)

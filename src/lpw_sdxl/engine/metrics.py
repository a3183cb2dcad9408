"""What the engine counts and times, as Prometheus metrics; it knows nothing of jobs or HTTP.

Every series is made at the start and labels take values from the Enums below, so that the number of
series is constant. In BentoML's worker the numbers live in files, one set for each process, which
/metrics adds up, whatever the registry: counters go on where a worker that died left them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

PREFIX: Final = "lpw_sdxl"
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


class ErrorCode(StrEnum):
    """Every `code` that an error's answer can have, and one for what should not be."""

    INVALID_REQUEST = "invalid_request"
    INVALID_PROMPT = "invalid_prompt"
    OVERLOADED = "overloaded"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    GENERATION_FAILED = "generation_failed"
    OUT_OF_MEMORY = "out_of_memory"
    UNAVAILABLE = "unavailable"
    CLIENT_LEFT = "client_left"
    UNAUTHORIZED = "unauthorized"
    ORIGIN_NOT_ALLOWED = "origin_not_allowed"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    BODY_TOO_LARGE = "body_too_large"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    HEADERS_TOO_LARGE = "headers_too_large"
    TIMEOUT = "timeout"
    INTERNAL = "internal"
    OTHER = "other"


class _Lookups(NamedTuple):
    """Cumulative counts of one cache."""

    hits: int
    misses: int


class EngineMetrics:
    """The metrics of one engine. Any thread may call; each call takes microseconds.

    Args:
        registry: what else collects them; None for a registry of their own, which is what a BentoML
            worker needs. One registry takes them once.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._registry = registry or CollectorRegistry()
        self._waiting = self._gauge("queue_jobs", "Jobs that wait to begin.")
        self._active = self._gauge("active_jobs", "Jobs under way.")
        self._allocated = self._gauge(
            "device_memory_allocated_bytes", "Device memory that tensors take."
        )
        self._reserved = self._gauge(
            "device_memory_reserved_bytes", "Device memory that the allocator holds."
        )
        self._waits = self._histogram(
            "queue_wait_seconds", "Time from a job's acceptance to its beginning.", WAIT_SECONDS
        )
        self._rows = self._histogram("step_rows", "UNet rows of one step.", STEP_ROWS)
        stages = self._histogram(
            "stage_seconds", "Time of one stage of the work.", STAGE_SECONDS, "stage"
        )
        self._stages = {stage: stages.labels(stage) for stage in Stage}
        self._images = self._counter("images", "Images handed out.")
        self._cancelled = self._counter("cancelled", "Jobs dropped because whoever asked had gone.")
        self._out_of_memory = self._counter(
            "out_of_memory", "Times that the device had no memory left for a piece of work."
        )
        self._tokens = self._counter("prompt_tokens", "Tokens of the prompts that were encoded.")
        self._chunks = self._counter("prompt_chunks", "Chunks of the prompts that were encoded.")
        errors = self._counter("errors", "Requests that were answered with an error.", "code")
        self._errors = {code.value: errors.labels(code) for code in ErrorCode}
        hits = self._counter("cache_hits", "Lookups that found something.", "cache")
        misses = self._counter("cache_misses", "Lookups that found nothing.", "cache")
        self._hits = {name: hits.labels(name) for name in CacheName}
        self._misses = {name: misses.labels(name) for name in CacheName}
        self._lookups = dict.fromkeys(CacheName, _Lookups(0, 0))
        self.queue(0, 0)  # a process may get the number, and with it the files, of one that died
        self.device_memory(0, 0)

    def queue(self, waiting: int, active: int) -> None:
        """Tell how many jobs wait and how many are under way, now."""
        self._waiting.set(waiting)
        self._active.set(active)

    def waited(self, seconds: float) -> None:
        """Tell how long a job waited that begins now."""
        self._waits.observe(seconds)

    def stepped(self, rows: int, seconds: float) -> None:
        """Count one step; its time is that of Stage.STEP."""
        self._rows.observe(rows)
        self.stage(Stage.STEP, seconds)

    def stage(self, stage: Stage, seconds: float) -> None:
        """Tell how long one piece of a stage's work took."""
        self._stages[stage].observe(seconds)

    @contextmanager
    def timed(self, stage: Stage) -> Iterator[None]:
        """Time a block that is one piece of a stage's work; one that fails is not counted."""
        started = time.perf_counter()
        yield
        self.stage(stage, time.perf_counter() - started)

    def image_done(self) -> None:
        """Count an image that was handed out."""
        self._images.inc()

    def failed(self, code: str) -> None:
        """Count an error by its code (an ErrorCode's value; any other counts as "other")."""
        self._errors.get(code, self._errors[ErrorCode.OTHER]).inc()

    def cancelled(self) -> None:
        """Count a job whose caller went away."""
        self._cancelled.inc()

    def out_of_memory(self) -> None:
        """Count a piece of work that the device had no memory for."""
        self._out_of_memory.inc()

    def encoded(self, tokens: int, chunks: int) -> None:
        """Count the tokens and chunks of a job's two prompts."""
        self._tokens.inc(tokens)
        self._chunks.inc(chunks)

    def cache(self, name: CacheName, hits: int, misses: int) -> None:
        """Bring a cache's counters up to date; for one thread at a time.

        Args:
            name: which cache.
            hits: since the cache was made.
            misses: since the cache was made.
        """
        before = self._lookups[name]
        self._lookups[name] = _Lookups(hits, misses)
        self._hits[name].inc(hits - before.hits)
        self._misses[name].inc(misses - before.misses)

    def device_memory(self, allocated: int, reserved: int) -> None:
        """Tell what the device's memory holds now, bytes."""
        self._allocated.set(allocated)
        self._reserved.set(reserved)

    def _gauge(self, name: str, description: str) -> Gauge:
        # Summed over the workers that live: the default has a series for each that ever lived.
        return Gauge(
            f"{PREFIX}_{name}", description, multiprocess_mode="livesum", registry=self._registry
        )

    def _counter(self, name: str, description: str, *labels: str) -> Counter:
        return Counter(f"{PREFIX}_{name}", description, labels, registry=self._registry)

    def _histogram(
        self, name: str, description: str, buckets: tuple[float, ...], *labels: str
    ) -> Histogram:
        return Histogram(
            f"{PREFIX}_{name}", description, labels, buckets=buckets, registry=self._registry
        )

"""What the loop has done and how it is, for /info and Prometheus at once; it decides nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch

from lpw_sdxl.diffusion.pipeline import Pipeline
from lpw_sdxl.engine.job import Job
from lpw_sdxl.engine.metrics import CacheName, EngineMetrics, Stage
from lpw_sdxl.lora.adapters import Adapters


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


class Observer:
    """Hears what the loop does, and looks how it is.

    Args:
        pipeline: whose caches and device are looked at.
        adapters: whose caches likewise; None where there are no LoRAs.
        metrics: what is counted for Prometheus.
    """

    def __init__(
        self, pipeline: Pipeline, adapters: Adapters | None, metrics: EngineMetrics
    ) -> None:
        self.counters = LoopCounters()
        self._metrics = metrics
        self._pipeline = pipeline
        self._adapters = adapters

    def look(self, waiting: int, active: int) -> None:
        """Bring the metrics up to date that tell how things are now."""
        self.jobs(waiting, active)
        caches = self._pipeline.prompt_encoder.counters
        self._metrics.cache(
            CacheName.CONDITIONINGS, caches.conditionings.hits, caches.conditionings.misses
        )
        self._metrics.cache(CacheName.WINDOWS, caches.windows.hits, caches.windows.misses)
        if self._adapters is not None:
            merged, files = self._adapters.counters, self._adapters.library.counters
            self._metrics.cache(CacheName.LORA_WEIGHTS, merged.hits, merged.misses)
            self._metrics.cache(CacheName.LORA_FILES, files.hits, files.misses)
        if self._pipeline.device.type == "cuda":
            self._metrics.device_memory(
                torch.cuda.memory_allocated(self._pipeline.device),
                torch.cuda.memory_reserved(self._pipeline.device),
            )

    def jobs(self, waiting: int, active: int) -> None:
        """Tell how many jobs wait and how many are under way, now."""
        self._metrics.queue(waiting, active)

    def waited(self, seconds: float) -> None:
        """Tell how long a job waited that begins now."""
        self._metrics.waited(seconds)

    def encoded(self, jobs: Sequence[Job], seconds: float) -> None:
        """Count the prompts of those of these jobs whose denoising has begun."""
        self._metrics.stage(Stage.ENCODE, seconds)
        for job in jobs:
            if job.denoising is not None:
                counts = job.spec.counts
                self._metrics.encoded(
                    sum(count.tokens for count in counts), sum(count.chunks for count in counts)
                )

    def called(self, calls: Iterable[int]) -> None:
        """Count UNet calls; each is told by the number of jobs it carried."""
        self.counters.unet_calls.update(calls)

    def stepped(self, jobs: Sequence[Job], seconds: float) -> None:
        """Count a step of these jobs."""
        self._metrics.stepped(sum(job.spec.rows for job in jobs), seconds)

    def decoded(self, seconds: float) -> None:
        """Count an image that came out of the VAE."""
        self._metrics.stage(Stage.DECODE, seconds)

    def image_done(self) -> None:
        """Count an image that is handed out."""
        self.counters.images += 1
        self._metrics.image_done()

    def failed(self) -> None:
        """Count a job that ended in an error; the border counts its code."""
        self.counters.failed += 1

    def departed(self) -> None:
        """Count a job whose caller went away."""
        self.counters.left += 1
        self._metrics.cancelled()

    def out_of_memory(self) -> None:
        """Count a piece of work that the device had no memory for."""
        self.counters.out_of_memory += 1
        self._metrics.out_of_memory()

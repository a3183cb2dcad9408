"""What /info counts and what Prometheus counts is one and the same."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from jobs import make_job
from lpw_sdxl.engine import Engine
from lpw_sdxl.engine.metrics import EngineMetrics
from lpw_sdxl.engine.observation import Observer


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def observer(engine: Engine, registry: CollectorRegistry) -> Observer:
    return Observer(engine.pipeline, None, EngineMetrics(registry))


@pytest.mark.parametrize(
    ("method", "counter", "series"),
    [
        ("image_done", "images", "lpw_sdxl_images_total"),
        ("departed", "left", "lpw_sdxl_cancelled_total"),
        ("out_of_memory", "out_of_memory", "lpw_sdxl_out_of_memory_total"),
    ],
)
def test_both_count_the_same(
    observer: Observer, registry: CollectorRegistry, method: str, counter: str, series: str
) -> None:
    for _ in range(3):
        getattr(observer, method)()
    assert getattr(observer.counters, counter) == registry.get_sample_value(series) == 3


def test_calls_are_counted_by_the_jobs_that_they_carried(observer: Observer) -> None:
    observer.called([2, 3])
    observer.called([2])
    assert observer.counters.unet_calls == {2: 2, 3: 1}


def test_prompts_count_once_their_images_have_begun(
    observer: Observer, registry: CollectorRegistry
) -> None:
    begun, failed = make_job(), make_job()
    begun.denoising = object()
    observer.encoded([begun, failed], 0.5)
    assert registry.get_sample_value("lpw_sdxl_prompt_tokens_total") == 1
    assert registry.get_sample_value("lpw_sdxl_prompt_chunks_total") == 2
    labels = {"stage": "encode"}
    assert registry.get_sample_value("lpw_sdxl_stage_seconds_sum", labels) == 0.5


def test_a_look_tells_of_jobs_and_caches(observer: Observer, registry: CollectorRegistry) -> None:
    encoder = observer._pipeline.prompt_encoder
    for _ in range(2):
        encoder.encode("a fox that is looked at", "")
    observer.look(waiting=4, active=2)
    assert registry.get_sample_value("lpw_sdxl_queue_jobs") == 4
    assert registry.get_sample_value("lpw_sdxl_active_jobs") == 2
    labels = {"cache": "conditionings"}
    hits = registry.get_sample_value("lpw_sdxl_cache_hits_total", labels)
    assert hits == encoder.counters.conditionings.hits >= 1

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pytest
from prometheus_client import CollectorRegistry

from jobs import make_job
from lpw_sdxl.diffusion.step import Denoising
from lpw_sdxl.engine import Engine
from lpw_sdxl.engine.description import HardwareDescription
from lpw_sdxl.engine.job import Job
from lpw_sdxl.engine.metrics import CacheName, EngineMetrics, Stage
from lpw_sdxl.engine.offload import OffloadRule

Samples = dict[str, float]


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> EngineMetrics:
    return EngineMetrics(registry)


def samples(registry: CollectorRegistry) -> Samples:
    """Every series but their times of creation, which a BentoML worker does not export."""
    found: Samples = {}
    for metric in registry.collect():
        for sample in metric.samples:
            labels = ",".join(f"{key}={value}" for key, value in sample.labels.items())
            if not sample.name.endswith("_created"):
                found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def _begun_job() -> Job:
    """A job of one token in one chunk, and of no token in another; its steps have begun."""
    job = make_job()
    job.denoising = cast("Denoising", object())
    return job


CALLS: dict[str, tuple[Callable[[EngineMetrics], None], Samples]] = {
    "set_jobs": (
        lambda metrics: metrics.set_jobs(3, 2),
        {"lpw_sdxl_queue_jobs": 3, "lpw_sdxl_active_jobs": 2},
    ),
    "observe_wait": (
        lambda metrics: metrics.observe_wait(400.0),
        {
            "lpw_sdxl_queue_wait_seconds_bucket{le=600.0}": 1,
            "lpw_sdxl_queue_wait_seconds_bucket{le=+Inf}": 1,
            "lpw_sdxl_queue_wait_seconds_count": 1,
            "lpw_sdxl_queue_wait_seconds_sum": 400,
        },
    ),
    "observe_rows": (
        lambda metrics: metrics.observe_rows(30),
        {
            "lpw_sdxl_step_rows_bucket{le=32.0}": 1,
            "lpw_sdxl_step_rows_bucket{le=64.0}": 1,
            "lpw_sdxl_step_rows_bucket{le=+Inf}": 1,
            "lpw_sdxl_step_rows_count": 1,
            "lpw_sdxl_step_rows_sum": 30,
        },
    ),
    "observe_stage": (
        lambda metrics: metrics.observe_stage(Stage.DECODE, 31.0),
        {
            "lpw_sdxl_stage_seconds_bucket{stage=decode,le=+Inf}": 1,
            "lpw_sdxl_stage_seconds_count{stage=decode}": 1,
            "lpw_sdxl_stage_seconds_sum{stage=decode}": 31,
        },
    ),
    "count_image": (lambda metrics: metrics.count_image(), {"lpw_sdxl_images_total": 1}),
    "count_error": (
        lambda metrics: metrics.count_error("overloaded"),
        {"lpw_sdxl_errors_total{code=overloaded}": 1},
    ),
    "count_error, an unknown code": (
        lambda metrics: metrics.count_error("on fire"),
        {"lpw_sdxl_errors_total{code=other}": 1},
    ),
    "count_cancelled": (lambda metrics: metrics.count_cancelled(), {"lpw_sdxl_cancelled_total": 1}),
    "count_out_of_memory": (
        lambda metrics: metrics.count_out_of_memory(),
        {"lpw_sdxl_out_of_memory_total": 1},
    ),
    "count_prompts": (
        lambda metrics: metrics.count_prompts([_begun_job(), make_job(), _begun_job()]),
        {"lpw_sdxl_prompt_tokens_total": 2, "lpw_sdxl_prompt_chunks_total": 4},
    ),
    "count_lookups": (
        lambda metrics: metrics.count_lookups(CacheName.WINDOWS, 5, 2),
        {
            "lpw_sdxl_cache_hits_total{cache=windows}": 5,
            "lpw_sdxl_cache_misses_total{cache=windows}": 2,
        },
    ),
    "set_device_memory": (
        lambda metrics: metrics.set_device_memory(7 * 2**30, 2**33),
        {
            "lpw_sdxl_device_memory_allocated_bytes": 7 * 2**30,
            "lpw_sdxl_device_memory_reserved_bytes": 2**33,
        },
    ),
}


@pytest.mark.parametrize(("call", "expected"), CALLS.values(), ids=CALLS.keys())
def test_a_call_changes_its_own_series_and_no_other(
    metrics: EngineMetrics,
    registry: CollectorRegistry,
    call: Callable[[EngineMetrics], None],
    expected: Samples,
) -> None:
    before = samples(registry)
    assert set(before.values()) == {0.0}
    call(metrics)
    after = samples(registry)
    assert {name: value for name, value in after.items() if value} == expected
    assert list(after) == list(before)  # every series was there from the start


def test_cumulative_counts_of_a_cache_become_a_counter(
    metrics: EngineMetrics, registry: CollectorRegistry
) -> None:
    for hits, misses in ((2, 3), (2, 3), (7, 4)):
        metrics.count_lookups(CacheName.CONDITIONINGS, hits, misses)
    found = samples(registry)
    assert found["lpw_sdxl_cache_hits_total{cache=conditionings}"] == 7
    assert found["lpw_sdxl_cache_misses_total{cache=conditionings}"] == 4
    assert found["lpw_sdxl_cache_hits_total{cache=windows}"] == 0


def test_a_block_is_timed_unless_it_fails(
    metrics: EngineMetrics, registry: CollectorRegistry
) -> None:
    def fail() -> None:
        with metrics.timed(Stage.FILE):
            raise OSError

    with metrics.timed(Stage.FILE):
        pass
    with pytest.raises(OSError):  # noqa: PT011 - it is the one above
        fail()
    found = samples(registry)
    assert found["lpw_sdxl_stage_seconds_count{stage=file}"] == 1
    assert 0 < found["lpw_sdxl_stage_seconds_sum{stage=file}"] < 1


def test_the_device_is_one_series_with_what_it_is_and_the_rule(
    metrics: EngineMetrics, registry: CollectorRegistry
) -> None:
    before = samples(registry)
    gpu = HardwareDescription("cuda:0", "NVIDIA H200", 150 * 10**9, 149 * 10**9, "580.1", "9.0")
    metrics.set_device(gpu, OffloadRule.EVERYTHING_FITS, is_offloading=False)
    after = samples(registry)
    labels = (
        "kind=cuda,name=NVIDIA H200,driver=580.1,compute_capability=9.0,is_offloading=false,"
        "offload_rule=everything_fits"
    )
    assert {name: value for name, value in after.items() if value} == {
        f"lpw_sdxl_device_info{{{labels}}}": 1,
        "lpw_sdxl_device_memory_total_bytes": 150 * 10**9,
        "lpw_sdxl_device_memory_free_at_start_bytes": 149 * 10**9,
    }
    assert len(after) == len(before) + 1


def test_a_cpu_has_no_driver_and_no_device_memory(
    metrics: EngineMetrics, registry: CollectorRegistry
) -> None:
    cpu = HardwareDescription("cpu", "AMD EPYC 9354", 64 * 10**9, threads=16)
    metrics.set_device(cpu, OffloadRule.CPU, is_offloading=False)
    labels = (
        "kind=cpu,name=AMD EPYC 9354,driver=,compute_capability=,is_offloading=false,"
        "offload_rule=cpu"
    )
    found = {name: value for name, value in samples(registry).items() if value}
    assert found == {f"lpw_sdxl_device_info{{{labels}}}": 1}


def test_names_carry_the_prefix_and_a_base_unit_and_each_has_a_help_text(
    metrics: EngineMetrics, registry: CollectorRegistry
) -> None:
    families = list(registry.collect())
    assert families
    for family in families:
        assert family.name.startswith("lpw_sdxl_")
        assert family.documentation.endswith(".")
        unit = family.name.rpartition("_")[2]
        assert family.type == "counter" or unit in {"seconds", "bytes", "rows", "jobs", "info"}


def test_an_error_has_a_series_for_each_code_that_an_answer_can_have(
    metrics: EngineMetrics, registry: CollectorRegistry
) -> None:
    [family] = [one for one in registry.collect() if one.name == "lpw_sdxl_errors"]
    assert {sample.labels["code"] for sample in family.samples} == {
        "body_too_large",
        "cancelled",
        "client_left",
        "deadline_exceeded",
        "generation_failed",
        "headers_too_large",
        "internal",
        "invalid_prompt",
        "invalid_request",
        "lora_unavailable",
        "upscaler_unavailable",
        "method_not_allowed",
        "not_found",
        "origin_not_allowed",
        "other",
        "out_of_memory",
        "overloaded",
        "request_id_in_use",
        "starting",
        "timeout",
        "unauthorized",
        "unavailable",
        "unserved_script",
        "unsupported_media_type",
    }


def test_two_engines_of_one_process_keep_their_own_counts() -> None:
    registries = [CollectorRegistry(), CollectorRegistry()]
    first, _ = (EngineMetrics(registry) for registry in registries)
    first.count_image()
    EngineMetrics()
    counts = [samples(registry)["lpw_sdxl_images_total"] for registry in registries]
    assert counts == [1, 0]


@pytest.mark.parametrize(
    ("method", "counter", "series"),
    [
        ("count_image", "images", "lpw_sdxl_images_total"),
        ("count_cancelled", "left", "lpw_sdxl_cancelled_total"),
        ("count_out_of_memory", "out_of_memory", "lpw_sdxl_out_of_memory_total"),
    ],
)
def test_info_and_prometheus_count_the_same(
    metrics: EngineMetrics, registry: CollectorRegistry, method: str, counter: str, series: str
) -> None:
    for _ in range(3):
        getattr(metrics, method)()
    assert getattr(metrics.counters, counter) == registry.get_sample_value(series) == 3


def test_calls_are_counted_by_the_jobs_that_they_carried(metrics: EngineMetrics) -> None:
    metrics.count_calls([2, 3])
    metrics.count_calls([2])
    assert metrics.counters.unet_calls == {2: 2, 3: 1}


def test_a_sample_counts_the_lookups_of_caches(
    metrics: EngineMetrics, registry: CollectorRegistry, engine: Engine
) -> None:
    encoder = engine.pipeline.prompt_encoder
    for _ in range(2):
        encoder.encode("a fox that is sampled", "")
    metrics.sample(engine.pipeline, None)
    labels = {"cache": "conditionings"}
    hits = registry.get_sample_value("lpw_sdxl_cache_hits_total", labels)
    assert hits == encoder.counters.conditionings.hits >= 1

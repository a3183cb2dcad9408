"""Workers here are processes that write metrics as BentoML's do, into one folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector

import lpw_sdxl
from lpw_sdxl.api.dead_workers import remove_dead_gauges

pytestmark = pytest.mark.processes

METRICS = Path(lpw_sdxl.__file__).parent / "engine" / "metrics.py"
# The file by itself, because its package imports torch.
WORKER = """
import runpy, sys
from types import SimpleNamespace

metrics = runpy.run_path(sys.argv[1])["EngineMetrics"]()
metrics.set_jobs(int(sys.argv[2]), 2)
gpu = SimpleNamespace(
    device="cuda:0", name=sys.argv[3], driver="580.1", compute_capability="9.0", total_bytes=8,
    free_bytes=6,
)
metrics.set_device(gpu, "small_device", is_offloading=True)
metrics.observe_wait(0.5)
metrics.count_image()
print("ready", flush=True)
sys.stdin.read()
"""


def start_worker(folder: Path, waiting: int, gpu: str = "A") -> subprocess.Popen[str]:
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(METRICS), str(waiting), gpu],
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert worker.stdout is not None
    assert worker.stdout.readline() == "ready\n"
    return worker


def end(worker: subprocess.Popen[str], number: int) -> None:
    worker.send_signal(number)
    worker.communicate(timeout=30)


def served(folder: Path) -> dict[str, float]:
    """Return what /metrics would answer."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(folder))
    return {
        sample.name: sample.value
        for metric in registry.collect()
        for sample in metric.samples
        if not sample.labels
    }


def test_a_killed_workers_gauges_go_and_its_counters_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    workers = [start_worker(tmp_path, waiting) for waiting in (5, 7)]
    try:
        assert served(tmp_path)["lpw_sdxl_queue_jobs"] == 12
        end(workers[0], signal.SIGKILL)
        assert served(tmp_path)["lpw_sdxl_queue_jobs"] == 12  # what is to be mended
        remove_dead_gauges()
        after = served(tmp_path)
        assert after["lpw_sdxl_queue_jobs"] == 7
        assert after["lpw_sdxl_active_jobs"] == 2
        assert after["lpw_sdxl_images_total"] == 2
        assert after["lpw_sdxl_queue_wait_seconds_count"] == 2
        remove_dead_gauges()
        assert served(tmp_path) == after
    finally:
        for worker in workers:
            end(worker, signal.SIGTERM)


def test_without_such_a_folder_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    remove_dead_gauges()


def devices(folder: Path) -> dict[str, float]:
    """Return the devices of /metrics by their names."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(folder))
    (info,) = (one for one in registry.collect() if one.name == "lpw_sdxl_device_info")
    assert {one.labels["offload_rule"] for one in info.samples} == {"small_device"}
    return {sample.labels["name"]: sample.value for sample in info.samples}


def test_equal_devices_are_one_series_and_a_killed_workers_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    workers = [start_worker(tmp_path, 0, gpu) for gpu in ("A", "A", "B")]
    try:
        assert devices(tmp_path) == {"A": 1, "B": 1}
        assert served(tmp_path)["lpw_sdxl_device_memory_total_bytes"] == 24
        assert served(tmp_path)["lpw_sdxl_device_memory_free_at_start_bytes"] == 18
        end(workers[2], signal.SIGKILL)
        remove_dead_gauges()
        assert devices(tmp_path) == {"A": 1}
        end(workers[1], signal.SIGKILL)
        remove_dead_gauges()
        assert devices(tmp_path) == {"A": 1}
        assert served(tmp_path)["lpw_sdxl_device_memory_total_bytes"] == 8
    finally:
        for worker in workers:
            if worker.poll() is None:
                end(worker, signal.SIGTERM)

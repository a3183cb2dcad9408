"""Removal of the metrics that a killed worker leaves in the folder that all workers share."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import psutil
from prometheus_client.multiprocess import mark_process_dead


def remove_dead_gauges() -> None:
    """Remove the gauges of killed workers from /metrics: their queues would never be empty again.

    BentoML does so only for a worker that ends regularly. Counters and histograms stay, since they
    count what has been, and a counter must not fall.
    """
    # A variable of prometheus_client, set by BentoML's supervisor; it is no setting of ours.
    directory = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if directory is None:
        return
    for file in Path(directory).glob("gauge_live*_*.db"):
        process = int(file.stem.rpartition("_")[2])
        if not psutil.pid_exists(process):
            with suppress(FileNotFoundError):  # another new worker may have removed it
                mark_process_dead(process)

"""The metrics that a killed worker leaves behind in the folder that all workers share."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import psutil
from prometheus_client.multiprocess import mark_process_dead


def forget_dead_workers() -> None:
    """Take the gauges of killed workers out of /metrics: their queues would never be empty again.

    BentoML does so for a worker that ends in peace only. Counters and histograms stay: they are the
    past, and a counter must not fall.
    """
    # prometheus_client's own variable, which BentoML's supervisor sets; it is no setting of ours.
    directory = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if directory is None:
        return
    for file in Path(directory).glob("gauge_live*_*.db"):
        process = int(file.stem.rpartition("_")[2])
        if not psutil.pid_exists(process):
            with suppress(FileNotFoundError):  # another new worker may have been quicker
                mark_process_dead(process)

"""The worker of a queue endpoint: the model is loaded, then jobs are taken until SIGTERM."""

from __future__ import annotations

import logging
import multiprocessing
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import lpw_sdxl
from lpw_sdxl.addon.served import built_in_tags, find_places
from lpw_sdxl.api.engine_start import EngineStart
from lpw_sdxl.api.json_logs import log_as_json
from lpw_sdxl.api.process import tune_interpreter, without_collection
from lpw_sdxl.api.supervisor import end_process
from lpw_sdxl.doors.runpod.delivery import choose_delivery
from lpw_sdxl.doors.runpod.settings import WorkerSettings
from lpw_sdxl.engine.metrics import EngineMetrics
from lpw_sdxl.errors import LpwSdxlError
from lpw_sdxl.settings import LogSettings, Settings, read_settings
from lpw_sdxl.store.served import find_served
from lpw_sdxl.store.volume import open_volume

if TYPE_CHECKING:
    from lpw_sdxl.engine import Engine

logger = logging.getLogger(__name__)

ROWS_OF_AN_IMAGE = 2  # with guidance
LOG_LINE = "%(asctime)s %(levelname)s %(name)s: %(message)s"
NO_PACKAGE = (
    "a queue worker needs the package runpod; `pip install -r deploy/runpod/requirements.txt`"
    " would be right"
)
CODE_FOLDER = Path(lpw_sdxl.__file__).parents[1]
"""Of a bento, that in which service.py lies."""


def main() -> None:
    """Serve jobs; RunPod's own options of the command line are read by its package."""
    if find_spec("runpod") is None:
        sys.exit(f"lpw-sdxl: {NO_PACKAGE}")
    try:
        set_up_logs()
        worker = read_settings(WorkerSettings)
        worker.check_bucket()
        engine = load_engine(read_settings(Settings))
    except LpwSdxlError as error:
        sys.exit(f"lpw-sdxl: {error}")
    tune_interpreter()
    try:
        serve(engine, worker)
    finally:
        engine.close()


def set_up_logs() -> None:
    """Log our own lines, and other packages' warnings."""
    logging.basicConfig(level=logging.WARNING, format=LOG_LINE)
    logging.getLogger("lpw_sdxl").setLevel(logging.INFO)
    if read_settings(LogSettings).log_format == "json":
        log_as_json()


def load_engine(settings: Settings) -> Engine:
    """Find, verify and load the model, as `bentoml serve` does.

    Raises:
        ModelError: there is none, or it is damaged, or does not fit into the device.
        SettingsError: a setting can't be used.
    """
    volume = open_volume(settings.store)
    entry = find_served(settings.model, "", CODE_FOLDER, volume).entry
    places = find_places(built_in_tags("", CODE_FOLDER), CODE_FOLDER, settings, volume)
    logger.info("model %s found", entry.tag)
    return EngineStart(entry.path, settings, places, EngineMetrics(), end_worker).load()


def end_worker(reason: str) -> None:
    """End this process, and the one whose signs of life would outlive it."""
    for child in multiprocessing.active_children():
        child.kill()
    end_process(reason)


def jobs_at_once(engine: Engine, worker: WorkerSettings) -> int:
    """Return the number of jobs to take at once: what shares one UNet call, if nothing is set."""
    rows = engine.plan.rows_for(engine.native_size)
    return worker.runpod_jobs or max(1, rows // ROWS_OF_AN_IMAGE)


def serve(engine: Engine, worker: WorkerSettings) -> None:
    """Take jobs until SIGTERM; with `--rp_serve_api`, serve RunPod's local API instead."""
    with without_collection():
        import runpod  # noqa: PLC0415 - a second, and of this command alone
        from runpod.serverless.modules import rp_scale  # noqa: PLC0415
        from runpod.serverless.modules.rp_logger import RunPodLogger  # noqa: PLC0415
        from runpod.serverless.modules.worker_state import IS_LOCAL_TEST  # noqa: PLC0415

        from lpw_sdxl.doors.runpod.handler import JobHandler  # noqa: PLC0415
        from lpw_sdxl.doors.runpod.loop import DrainingScaler, PlatformReporter  # noqa: PLC0415

    # RunPod's package sends signs of life from a process of its own. Forked from this one it would
    # have a copy of the engine's threads' locks, and of the device's context.
    multiprocessing.set_start_method("spawn")
    RunPodLogger.level = worker.runpod_log_level  # it reads its own default, DEBUG, at import
    rp_scale.JobScaler = DrainingScaler
    reporter = None if IS_LOCAL_TEST else PlatformReporter()
    handler = JobHandler(engine, choose_delivery(worker), reporter)
    count = jobs_at_once(engine, worker)
    logger.info("up to %d jobs are taken at once", count)
    runpod.serverless.start(
        {"handler": handler.handle, "concurrency_modifier": lambda _current: count}
    )

"""The steps from a worker's process to its engine, each with its time in the log.

The packages that compute are imported here, after the port is open; meanwhile other threads read
the model's files and compare them with their manifest.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lpw_sdxl.addon.installed import open_catalogue
from lpw_sdxl.addon.served import AddonPlaces
from lpw_sdxl.api.process import without_collection
from lpw_sdxl.cuda_driver import predict_cuda
from lpw_sdxl.errors import ModelError, SettingsError
from lpw_sdxl.settings import Settings
from lpw_sdxl.store.manifest import read_manifest
from lpw_sdxl.store.verification import Depth, begin_to_verify

if TYPE_CHECKING:
    from lpw_sdxl.engine import Engine
    from lpw_sdxl.engine.metrics import EngineMetrics

logger = logging.getLogger(__name__)

DEPTHS = {"contents": Depth.CONTENTS, "heads": Depth.HEADS}
"""How much of the model is read to verify it, by the setting `LPW_SDXL_VERIFY`."""


@dataclass(frozen=True)
class EngineStart:
    """The parts that an engine is started from.

    Attributes:
        model: the model's directory.
        settings: of the service.
        addons: where add-ons are.
        metrics: to count in.
        on_death: called once if the engine dies or stalls.
    """

    model: Path
    settings: Settings
    addons: AddonPlaces
    metrics: EngineMetrics
    on_death: Callable[[str], None]

    def load(self) -> Engine:
        """Import what computes, load the model and verify it; it takes seconds.

        Raises:
            ModelError: the model is damaged, or does not fit into the device.
            SettingsError: a setting can't be used with this model or device.
        """
        begun = time.monotonic()
        manifest = read_manifest(self.model)
        verifying = begin_to_verify(self.model, manifest, DEPTHS[self.settings.verify])
        verifying.add_done_callback(lambda done: _report(done, begun, self.settings.verify))
        import_packages()
        imported = time.monotonic()
        logger.info("packages imported in %.1f s", imported - begun)
        try:
            with without_collection():  # it makes few objects that do not stay
                engine = self._load()
        except Exception:
            verifying.result()  # what is wrong with a damaged model is that, whatever loading says
            raise
        try:
            verifying.result()
        except Exception:
            engine.close()
            raise
        logger.info(
            "ready %.1f s after the port was open, %.1f s of them after the packages",
            time.monotonic() - begun,
            time.monotonic() - imported,
        )
        return engine

    def _load(self) -> Engine:
        from lpw_sdxl.engine import Engine  # noqa: PLC0415 - torch comes with it

        engine = Engine.load(
            self.model,
            self.settings,
            metrics=self.metrics,
            on_death=self.on_death,
            addons=open_catalogue(self.model, self.addons),
        )
        device, total_bytes = engine.plan.device, engine.pipeline.manifest.total_bytes
        is_gpu_expected = predict_cuda(self.settings.device, 1, total_bytes)  # by the border, too
        if is_gpu_expected and not device.startswith("cuda"):
            engine.close()
            raise SettingsError(
                "the NVIDIA driver shows a GPU, and torch finds none that it can use;"
                " LPW_SDXL_DEVICE=cpu serves without"
            )
        return engine


def import_packages() -> None:
    """Import what an engine needs, torch first; hidden from the garbage collector."""
    with without_collection():
        from lpw_sdxl.engine import Engine  # noqa: F401, PLC0415


def _report(verifying: Future[None], begun: float, how: str) -> None:
    if verifying.exception() is None:
        logger.info("model verified (%s) after %.1f s", how, time.monotonic() - begun)
    elif not isinstance(verifying.exception(), ModelError):
        logger.error("the model can't be verified", exc_info=verifying.exception())

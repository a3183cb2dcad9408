"""The HTTP border: which model is served, the engine's start and stop, the endpoints.

Torch is imported in the constructor, so that the supervisor and `bentoml build` start without it.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import functools
import gc
import json
import logging
import math
import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import bentoml
from _bentoml_sdk import Service
from bentoml.models import BentoModel
from PIL.Image import Image
from pydantic import BaseModel
from starlette.responses import Response

from lpw_sdxl.addon.installed import find_installed
from lpw_sdxl.addon.served import built_in_tags, served_directories
from lpw_sdxl.api.asgi import Application
from lpw_sdxl.api.batch_items import parse_item
from lpw_sdxl.api.border import check_border, guarded, warn_if_open
from lpw_sdxl.api.departure import while_connected
from lpw_sdxl.api.drain import Drain
from lpw_sdxl.api.errors import ErrorAnswer
from lpw_sdxl.api.json_logs import log_as_json
from lpw_sdxl.api.worker_device import show_own_device
from lpw_sdxl.errors import LpwSdxlError, ModelError, SettingsError
from lpw_sdxl.imaging import MEDIA_TYPES
from lpw_sdxl.schema import GenerationRequest, InspectionRequest
from lpw_sdxl.settings import check_workers, list_gone, read_log_settings, read_settings
from lpw_sdxl.store.entries import MOUNTED, find_served
from lpw_sdxl.store.manifest import read_manifest, verify_files

if TYPE_CHECKING:
    from lpw_sdxl.engine import GeneratedImage
    from lpw_sdxl.engine.metrics import EngineMetrics

logging.getLogger("lpw_sdxl").setLevel(logging.INFO)
logger = logging.getLogger("lpw_sdxl.service")

SWITCH_SECONDS = 0.001  # Python's own 0.005 add up: an answer takes its turn several times
ANSWER_SECONDS = 5  # for answers that are decided to reach their clients


class ServiceArguments(BaseModel):
    """What `bentoml build --arg` may fix in a bento."""

    model: str = ""  # a tag, or `mounted` for none
    addons: str = ""  # tags of LoRAs and embeddings, with commas between them


# The model must be known while the class is made: a bento carries what its class names.
ARGUMENTS = bentoml.use_arguments(ServiceArguments)
try:
    if read_log_settings().log_format == "json":
        log_as_json()
    SETTINGS = read_settings()
    MODEL_ENTRY = find_served(SETTINGS.model, ARGUMENTS.model, Path(__file__).parent)
    ADDON_TAGS = built_in_tags(ARGUMENTS.addons, Path(__file__).parent)
    ADDON_FOLDERS = served_directories(ADDON_TAGS, Path(__file__).parent, SETTINGS.addons)
except (SettingsError, ModelError) as obstacle:
    sys.exit(f"lpw-sdxl: {obstacle}")


class GuardedService(Service):
    """A BentoML service whose outermost layer is ours."""

    def to_asgi(self, is_main: bool = True) -> Application:
        """Wrap BentoML's application in the guard, or end: an open border is not served."""
        app = super().to_asgi(is_main)
        native_size = read_manifest(MODEL_ENTRY.path).native_size
        try:
            guard = guarded(app, SETTINGS, native_size, lambda code: _worker_metrics().failed(code))
        except SettingsError as obstacle:
            sys.exit(f"lpw-sdxl: {obstacle}")
        if bentoml.server_context.worker_index in (None, 1):
            warn_if_open(SETTINGS)
        return guard


@bentoml.service(
    name="lpw_sdxl",
    service_class=GuardedService,
    workers=SETTINGS.workers,
    resources={"gpu": SETTINGS.workers},
    # Seconds; BentoML would take 60, less than a queue. Our own limit ends first, with our error.
    traffic={"timeout": math.ceil(SETTINGS.time_limit_s) + ANSWER_SECONDS},
    logging={"access": {"enabled": False}},  # the guard writes one line a request
)
class LpwSdxl:
    """Makes pictures from prompts of any length, many requests at a time."""

    @bentoml.on_deployment
    @staticmethod
    def verify_model() -> None:
        """Check model and device once, in the supervisor, before a worker starts."""
        started = time.monotonic()
        for sentence in list_gone(os.environ):
            logger.warning("%s", sentence)
        try:
            check_border(SETTINGS)
            check_workers(SETTINGS)
            manifest = read_manifest(MODEL_ENTRY.path)
            verify_files(MODEL_ENTRY.path, manifest)
            addons = find_installed(MODEL_ENTRY.path, ADDON_FOLDERS)
            if SETTINGS.device == "cuda" or (SETTINGS.workers > 1 and SETTINGS.device == "auto"):
                from lpw_sdxl.engine.memory import choose_device  # noqa: PLC0415

                choose_device(SETTINGS.device, SETTINGS.workers)
        except (SettingsError, ModelError) as obstacle:
            sys.exit(f"lpw-sdxl: {obstacle}")
        logger.info(
            "model %s found and verified: %d files in %.1f s; %d LoRAs, %d embeddings",
            MODEL_ENTRY.tag,
            len(manifest.files),
            time.monotonic() - started,
            len(addons.loras),
            len(addons.embeddings),
        )

    def __init__(self) -> None:
        show_own_device(os.environ, bentoml.server_context.worker_index or 1, SETTINGS.workers)
        # See the module's docstring; prometheus_client, too, is to be imported in a worker only.
        from lpw_sdxl.api.dead_workers import forget_dead_workers  # noqa: PLC0415
        from lpw_sdxl.engine import Engine  # noqa: PLC0415
        from lpw_sdxl.engine.metrics import Stage  # noqa: PLC0415

        forget_dead_workers()
        self.metrics = _worker_metrics()
        self.timed_file = partial(self.metrics.timed, Stage.FILE)
        self.engine = Engine.load(
            MODEL_ENTRY.path,
            SETTINGS,
            metrics=self.metrics,
            on_death=_end_process,
            addons=find_installed(MODEL_ENTRY.path, ADDON_FOLDERS),
        )
        _answer_promptly()
        self.drain = Drain(SETTINGS.drain_s, is_only_worker=SETTINGS.workers == 1)
        self.drain.install()

    @bentoml.api(input_spec=GenerationRequest)
    async def generate(self, ctx: bentoml.Context, **fields: Any) -> Image:
        """Make one image; the answer is its file, with the seed in the header `x-seed`."""
        request = GenerationRequest(**fields)
        try:
            image = await while_connected(ctx.request, self.engine.generate(request))
        except LpwSdxlError as error:
            return _error(ctx, error)
        content = await asyncio.to_thread(self._file, image)
        media_type = MEDIA_TYPES[request.image_format]
        return _as_is(Response(content, media_type=media_type, headers={"x-seed": str(image.seed)}))

    @bentoml.api
    async def generate_batch(
        self, ctx: bentoml.Context, requests: list[Any]
    ) -> list[dict[str, Any]]:
        """Make several images; a bad item is an error at its place and spoils no other."""
        batch = asyncio.gather(*(self._batch_item(item) for item in requests))
        try:
            answers = await while_connected(ctx.request, batch)
        except LpwSdxlError as error:
            return _error(ctx, error)
        body = await asyncio.to_thread(lambda: json.dumps(answers).encode())
        return _as_is(Response(body, media_type="application/json"))

    @bentoml.api(input_spec=InspectionRequest)
    async def inspect_prompt(self, ctx: bentoml.Context, **fields: Any) -> dict[str, Any]:
        """Say what the server makes of a prompt: spans, weights, tokens, chunks, warnings."""
        request = InspectionRequest(**fields)
        try:
            explanation = await asyncio.to_thread(self.engine.explain, request)
        except LpwSdxlError as error:
            return _error(ctx, error)
        return dataclasses.asdict(explanation)

    @bentoml.api
    async def info(self) -> dict[str, Any]:
        """Say what is served: model, device, limits, schedulers, and what the engine has done."""
        return {"model_tag": str(MODEL_ENTRY.tag), **self.engine.describe()}

    async def _batch_item(self, item: Any) -> dict[str, Any]:
        """Make one item of a batch."""
        try:
            request = parse_item(item, self.engine.limits)
            image = await self.engine.generate(request)
            content = await asyncio.to_thread(lambda: base64.b64encode(self._file(image)).decode())
        except LpwSdxlError as error:
            return self._item_error(ErrorAnswer.from_error(error))
        except Exception:
            logger.exception("an item of a batch failed")
            return self._item_error(ErrorAnswer.from_status(500))
        size = image.record.size
        return {
            "status": "ok",
            "seed": image.seed,
            "width": size.width,
            "height": size.height,
            "media_type": MEDIA_TYPES[request.image_format],
            "image": content,
        }

    def _file(self, image: GeneratedImage) -> bytes:
        """Make an image's file; CPU work for a worker thread."""
        with self.timed_file():
            return image.encode()

    def _item_error(self, answer: ErrorAnswer) -> dict[str, Any]:
        """Answer one item of a batch with an error."""
        self.metrics.failed(answer.code)
        return {"status": "error", **answer.detail()}

    def __is_alive__(self) -> bool:
        """Liveness: the engine's thread runs."""
        return self.engine.is_alive

    def __is_ready__(self) -> bool:
        """Readiness: the engine takes requests, and will go on to."""
        return self.engine.is_alive and not self.drain.is_leaving

    @bentoml.on_shutdown
    def stop(self) -> None:
        """Finish what was accepted, then stop the engine."""
        self.engine.close()


# A bento carries what its service names; these are no attributes, for their number is not known.
BUILT_IN = ADDON_TAGS if ARGUMENTS.model == MOUNTED else [MODEL_ENTRY.tag, *ADDON_TAGS]
cast("Service[Any]", LpwSdxl).models.extend(BentoModel(tag) for tag in BUILT_IN)


@functools.cache
def _worker_metrics() -> EngineMetrics:
    """Make this worker's metrics, once; prometheus_client is to be imported in a worker only."""
    from lpw_sdxl.engine.metrics import EngineMetrics  # noqa: PLC0415

    return EngineMetrics()


def _answer_promptly() -> None:
    """Keep requests from waiting for the engine's thread, with which they share an interpreter."""
    sys.setswitchinterval(SWITCH_SECONDS)
    # What is loaded by now stays: to look through it all for garbage would stop everyone for 0.3 s.
    gc.collect()
    gc.freeze()


def _end_process(reason: str) -> None:
    """End this process, so that its supervisor starts a new one: nothing else brings a device back.

    Called when every caller has its error, in a thread that nobody waits for.
    """
    logger.critical("%s; this process ends, for a new one to start", reason)
    time.sleep(ANSWER_SECONDS)  # the answers go out
    os._exit(os.EX_SOFTWARE)  # an ordinary exit would wait for a thread that may never return


def _error(ctx: bentoml.Context, error: LpwSdxlError) -> Any:
    """Answer with one of our errors."""
    answer = ErrorAnswer.from_error(error)
    ctx.response.status_code = answer.status  # else BentoML sets it to 200
    return _as_is(Response(answer.body(), answer.status, answer.headers, "application/json"))


def _as_is(response: Response) -> Any:
    """Answer with bytes that are ready.

    BentoML passes a Response through; an endpoint's annotation is for its schema and client. A
    returned PIL image would be encoded on the event loop, and everybody would wait.
    """
    return response

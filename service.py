"""The BentoML service: the served model, the engine's start and stop, the endpoints.

Only a worker imports torch, in the thread that loads the engine (`api/engine_start.py`): supervisor
and `bentoml build` start without it, and the port answers before it is there.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import json
import logging
import math
import os
import sys
from collections.abc import AsyncGenerator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import bentoml
from _bentoml_sdk import Service
from _bentoml_sdk.io_models import IOMixin
from bentoml.models import BentoModel
from PIL.Image import Image
from pydantic import BaseModel
from starlette.responses import Response

from lpw_sdxl.addon.served import built_in_tags, find_places
from lpw_sdxl.api.asgi import JSON, Application
from lpw_sdxl.api.batch import BatchMaker
from lpw_sdxl.api.border import check_border, guard_application, warn_if_unprotected
from lpw_sdxl.api.bounded_pool import BoundedPool
from lpw_sdxl.api.disconnect import cancel_on_disconnect
from lpw_sdxl.api.drain import Drain
from lpw_sdxl.api.endpoints import EVENTS, Call, find_call, take_request
from lpw_sdxl.api.engine_start import EngineStart
from lpw_sdxl.api.error_answer import ErrorAnswer
from lpw_sdxl.api.event_stream import EventStream, StreamPlan, StreamTools
from lpw_sdxl.api.handlers import HandlerMiddleware
from lpw_sdxl.api.json_logs import log_as_json
from lpw_sdxl.api.loop_share import share_while
from lpw_sdxl.api.previews import PreviewMaker
from lpw_sdxl.api.process import leave_unfinished, tune_interpreter, without_collection
from lpw_sdxl.api.startup import Phase, Startup
from lpw_sdxl.api.supervisor import ANSWER_SECONDS, end_process, end_service, heed_workers
from lpw_sdxl.api.worker_device import restrict_to_own_gpu
from lpw_sdxl.cuda_driver import predict_cuda
from lpw_sdxl.doors.names import DoorName, read_doors
from lpw_sdxl.errors import LpwSdxlError, ModelError, SettingsError
from lpw_sdxl.imaging import MEDIA_TYPES
from lpw_sdxl.parameters.request import ParametersRequest
from lpw_sdxl.request_reading import ParsedBatch
from lpw_sdxl.schema import (
    BatchRequest,
    BatchStreamRequest,
    GenerationRequest,
    InfoRequest,
    InspectionRequest,
    StreamRequest,
)
from lpw_sdxl.settings import (
    LogSettings,
    Settings,
    check_workers,
    list_gone,
    list_renamed,
    read_settings,
)
from lpw_sdxl.store.manifest import read_manifest
from lpw_sdxl.store.served import find_served
from lpw_sdxl.store.verification import Depth, verify_files
from lpw_sdxl.store.volume import open_volume
from lpw_sdxl.upscale_request import UpscaleRequest

if TYPE_CHECKING:
    from lpw_sdxl.engine import Engine, GeneratedImage, UpscaledImage
    from lpw_sdxl.engine.metrics import EngineMetrics

logging.getLogger("lpw_sdxl").setLevel(logging.INFO)
logger = logging.getLogger("lpw_sdxl.service")


class ServiceArguments(BaseModel):
    """Arguments that `bentoml build --arg` fixes in a bento."""

    model: str = ""  # a tag, or `mounted` for no built-in model
    addons: str = ""  # comma-separated tags of LoRAs and embeddings


# The model must be known when the class is made: a bento carries the models that its class names.
ARGUMENTS = bentoml.use_arguments(ServiceArguments)
try:
    if read_settings(LogSettings).log_format == "json":
        log_as_json()
    SETTINGS = read_settings(Settings)
    DOORS = read_doors(SETTINGS.doors)
    VOLUME = open_volume(SETTINGS.store)
    MODEL = find_served(SETTINGS.model, ARGUMENTS.model, Path(__file__).parent, VOLUME)
    MODEL_ENTRY = MODEL.entry
    ADDON_TAGS = built_in_tags(ARGUMENTS.addons, Path(__file__).parent)
    ADDON_PLACES = find_places(ADDON_TAGS, Path(__file__).parent, SETTINGS, VOLUME)
except (SettingsError, ModelError) as error:
    sys.exit(f"lpw-sdxl: {error}")


class GuardedService(Service):
    """A BentoML service whose application is wrapped in our guard."""

    def to_asgi(self, is_main: bool = True) -> Application:
        """Wrap BentoML's application in the guard; end the process if that is impossible."""
        restrict_to_own_gpu(os.environ, bentoml.server_context.worker_index or 1, SETTINGS.workers)
        with without_collection():  # only a worker needs these
            from lpw_sdxl.api.descriptors import connection_limits, raise_descriptor_limit  # noqa: PLC0415
            from lpw_sdxl.api.jobs import job_endpoints  # noqa: PLC0415
            from lpw_sdxl.api.native import native_endpoints  # noqa: PLC0415
            from lpw_sdxl.api.native_schemas import ServedLimits  # noqa: PLC0415
            from lpw_sdxl.api.root import root_endpoint  # noqa: PLC0415
            from lpw_sdxl.api.uvicorn_hooks import bound_connections  # noqa: PLC0415
            from lpw_sdxl.doors.door import ServedDoor  # noqa: PLC0415
            from lpw_sdxl.doors.open_doors import door_dialects, door_endpoints  # noqa: PLC0415

            app = super().to_asgi(is_main)
        try:
            manifest = read_manifest(MODEL_ENTRY.path)
            defaults = manifest.request_defaults
            is_on_gpu = predict_cuda(SETTINGS.device, 1, manifest.total_bytes)
        except (SettingsError, ModelError) as error:
            end_service(f"lpw-sdxl: {error}", os.environ)
        served = ServedLimits.from_settings(
            SETTINGS, manifest.native_size, defaults, is_on_cpu=not is_on_gpu
        )
        door = ServedDoor(
            served,
            str(MODEL_ENTRY.tag),
            manifest.created,
            SETTINGS.public_url,
            SETTINGS.workers,
            manifest.origin.file,
            manifest.origin.sha256,
        )
        rows = (
            *native_endpoints(served),
            *job_endpoints(SETTINGS.workers),
            root_endpoint(door.model_tag, has_page=DoorName.PAGE in DOORS),
            *door_endpoints(DOORS, door),
        )
        routes = {api.route for api in self.apis.values()}
        assert routes == {row.path for row in rows if row.handler is None}, routes
        try:
            guard = guard_application(
                app,
                rows,
                SETTINGS,
                _count_error,
                bentoml.get_current_service,
                obstacle=lambda: bentoml.get_current_service().startup.obstacle,
                dialects=door_dialects(DOORS),
            )
        except SettingsError as error:
            end_service(f"lpw-sdxl: {error}", os.environ)
        if bentoml.server_context.worker_index in (None, 1):
            warn_if_unprotected(SETTINGS)
            if SETTINGS.workers > 1:
                logger.warning(
                    "/jobs needs one worker, and answers 404 beside %d", SETTINGS.workers
                )
        limits = connection_limits(raise_descriptor_limit())
        bound_connections(limits)  # uvicorn's server is made after this
        logger.info("at most %d connections and %d requests under way at once", *limits)
        return guard


def described(request: type[BaseModel]) -> type[IOMixin]:
    """Return a request's input spec for BentoML, which does not parse it: the guard has."""

    class Described(IOMixin, request):  # type: ignore[valid-type,misc]
        @classmethod
        async def from_http_request(cls, _request: object, _serde: object) -> Unparsed:
            return Unparsed()

    Described.__name__ = f"{request.__name__}IODescriptor"
    return Described


def streamed(method: Any) -> Any:
    """Mark an API as a stream, for BentoML's clients to yield its pieces.

    BentoML marks only async generators. Their refusals have no status of our own, and a client that
    disconnects is not noticed before the first piece; these APIs return a Response that sees to it.
    """
    method.is_stream = True
    method.output_spec.media_type = EVENTS
    return method


class Unparsed(BaseModel):
    """The empty result of BentoML's parsing; endpoints take the guard's (`take_request`)."""


@bentoml.service(
    name="lpw_sdxl",
    service_class=GuardedService,
    workers=SETTINGS.workers,
    resources={"gpu": SETTINGS.workers},
    # Seconds; BentoML's default of 60 is less than a full queue takes. Our own limit ends first.
    traffic={"timeout": math.ceil(SETTINGS.time_limit_s) + ANSWER_SECONDS},
    logging={"access": {"enabled": False}},  # the guard writes one line a request
)
class LpwSdxl:
    """A service that makes images from prompts of any length, many requests at a time."""

    @bentoml.on_deployment
    @staticmethod
    def verify_model() -> None:
        """Check what takes no time, in the supervisor, before a worker loads the model."""
        for sentence in [*list_gone(os.environ), *list_renamed(os.environ)]:
            logger.warning("%s", sentence)
        try:
            check_border(SETTINGS)
            check_workers(SETTINGS)
            manifest = read_manifest(MODEL_ENTRY.path)
            verify_files(MODEL_ENTRY.path, manifest, Depth.SIZES)
            if VOLUME:
                VOLUME.warn_of_closed_addons()
            predict_cuda(SETTINGS.device, SETTINGS.workers, manifest.total_bytes)
        except (SettingsError, ModelError) as error:
            sys.exit(f"lpw-sdxl: {error}")
        heed_workers(os.environ)
        gigabytes, count = manifest.total_bytes / 1e9, len(manifest.files)
        logger.info("model %s found: %d files, %.2f GB", MODEL_ENTRY.tag, count, gigabytes)

    def __init__(self) -> None:
        from lpw_sdxl.api.dead_workers import remove_dead_gauges  # noqa: PLC0415
        from lpw_sdxl.engine.metrics import Stage  # noqa: PLC0415

        remove_dead_gauges()
        self.metrics = _worker_metrics()
        self.time_file = partial(self.metrics.timed, Stage.FILE)
        # Threads of their own: the requests of images share none of them.
        self.inspections = BoundedPool("inspections", most=32)
        self.previews = PreviewMaker()
        self.startup = Startup(self.load_engine, _end_failed)
        share_while(lambda: (engine := self.startup.found) is not None and engine.is_busy)
        self.drain = Drain(self._leave, is_only_worker=SETTINGS.workers == 1)
        self.drain.install()
        self.startup.begin()
        if SETTINGS.workers > 1:
            self.startup.wait()  # a connection would better go to another one, which may be ready

    def load_engine(self) -> Engine:
        """Load the engine; this takes seconds, and a thread does it."""
        start = EngineStart(MODEL_ENTRY.path, SETTINGS, ADDON_PLACES, self.metrics, end_process)
        engine = start.load()
        tune_interpreter()
        return engine

    @property
    def engine(self) -> Engine:
        """Return the engine.

        Raises:
            UnavailableError: it is not there yet, or never will be.
        """
        return self.startup.loaded

    @property
    def batches(self) -> BatchMaker:
        """Return what makes the images of a batch; raises as `engine`."""
        return BatchMaker(self.engine, self.encode_file, self.metrics.count_error)

    @property
    def streams(self) -> StreamTools:
        """Return what streams are made with; raises as `engine`."""
        count_error = self.metrics.count_error
        return StreamTools(self.engine, self.encode_file, self.previews, count_error)

    @bentoml.api(input_spec=described(GenerationRequest))
    async def generate(self, ctx: bentoml.Context) -> Image:
        """Make one image; the answer is its file, with the seed in the header `x-seed`."""
        call = _call(ctx)
        request = take_request(ctx.request.scope, GenerationRequest).named(call.request_id)
        making = self.engine.generate(request, owner=call.owner, memory=call.memory)
        del request  # it holds its pictures' files
        try:
            image = await cancel_on_disconnect(ctx.request, making)
        except LpwSdxlError as error:
            return _error(ctx, error)
        content = await asyncio.to_thread(self.encode_file, image)
        media_type = MEDIA_TYPES[image.record.request.image_format]
        return _passed_through(
            Response(content, media_type=media_type, headers={"x-seed": str(image.seed)})
        )

    @bentoml.api(input_spec=described(BatchRequest))
    async def generate_batch(self, ctx: bentoml.Context) -> list[dict[str, Any]]:
        """Make several images; a bad item becomes an error at its index, the others are made."""
        batch = self.batches.make(take_request(ctx.request.scope, ParsedBatch), _call(ctx))
        try:
            answers = await cancel_on_disconnect(ctx.request, batch)
        except LpwSdxlError as error:
            return _error(ctx, error)
        return await _json([*map(dataclasses.asdict, answers)])

    @streamed
    @bentoml.api(input_spec=described(StreamRequest))
    async def generate_stream(self, ctx: bentoml.Context) -> AsyncGenerator[str, None]:
        """Make one image and report on it: place in the queue, progress, previews, file."""
        request = take_request(ctx.request.scope, StreamRequest)
        plan = StreamPlan([request], request.preview_every)
        return _passed_through(EventStream(self.streams, _call(ctx), plan))

    @streamed
    @bentoml.api(input_spec=described(BatchStreamRequest))
    async def generate_batch_stream(self, ctx: bentoml.Context) -> AsyncGenerator[str, None]:
        """Make several images and report on each; the events have the item's index."""
        batch = take_request(ctx.request.scope, ParsedBatch)
        plan = StreamPlan(batch.items, batch.preview_every, is_batch=True)
        return _passed_through(EventStream(self.streams, _call(ctx), plan))

    @bentoml.api(input_spec=described(UpscaleRequest))
    async def upscale(self, ctx: bentoml.Context) -> Image:
        """Enlarge one picture; the answer is its file."""
        call = _call(ctx)
        request = take_request(ctx.request.scope, UpscaleRequest).named(call.request_id)
        media_type = MEDIA_TYPES[request.image_format]
        enlarging = self.engine.upscale(request, owner=call.owner, memory=call.memory)
        del request  # it holds its picture's file
        try:
            image = await cancel_on_disconnect(ctx.request, enlarging)
        except LpwSdxlError as error:
            return _error(ctx, error)
        content = await asyncio.to_thread(self.encode_file, image)
        return _passed_through(Response(content, media_type=media_type))

    @bentoml.api(input_spec=described(InspectionRequest))
    async def inspect_prompt(self, ctx: bentoml.Context) -> dict[str, Any]:
        """Explain how a prompt is read: spans, weights, tokens, chunks, steps and warnings."""
        request = take_request(ctx.request.scope, InspectionRequest)
        explaining = self.inspections.run(partial(self._explain, request))
        try:
            content = await cancel_on_disconnect(ctx.request, explaining)
        except LpwSdxlError as error:
            return _error(ctx, error)
        return _passed_through(Response(content, media_type=JSON))

    @bentoml.api(input_spec=described(ParametersRequest))
    async def read_parameters(self, ctx: bentoml.Context) -> dict[str, Any]:
        """Read an A1111 text, or that in a picture, as the request that makes it again."""
        request = take_request(ctx.request.scope, ParametersRequest)
        reading = self.inspections.run(partial(self._read_parameters, request))
        del request  # it holds its picture's file
        try:
            content = await cancel_on_disconnect(ctx.request, reading)
        except LpwSdxlError as error:
            return _error(ctx, error)
        return _passed_through(Response(content, media_type=JSON))

    @bentoml.api(input_spec=described(InfoRequest))
    async def info(self) -> dict[str, Any]:
        """Describe what is served: model, device, limits, schedulers, and the engine's counts."""
        served = dataclasses.replace(self.engine.describe(), model_tag=str(MODEL_ENTRY.tag))
        return dataclasses.asdict(served)

    def _explain(self, request: InspectionRequest) -> bytes:
        """Explain two prompts, as JSON; CPU work for a thread."""
        return json.dumps(dataclasses.asdict(self.engine.explain(request))).encode()

    def _read_parameters(self, request: ParametersRequest) -> bytes:
        """Read a text as a request, as JSON; CPU work for a thread."""
        return json.dumps(dataclasses.asdict(self.engine.read_parameters(request))).encode()

    def encode_file(self, image: GeneratedImage | UpscaledImage) -> bytes:
        """Encode an image as a file; CPU work for a thread."""
        with self.time_file():
            return image.encode()

    @property
    def is_starting(self) -> bool:
        """Return whether the engine is still being loaded."""
        return self.startup.phase is Phase.STARTING

    @property
    def is_alive(self) -> bool:
        """Return whether the engine's thread runs, or will (liveness)."""
        engine = self.startup.found
        return self.startup.phase is not Phase.FAILED if engine is None else engine.is_alive

    @property
    def is_ready(self) -> bool:
        """Return whether the engine runs and no SIGTERM has come (readiness)."""
        return self.startup.phase is Phase.READY and self.engine.is_alive

    def _leave(self) -> float:
        """Begin to leave; return how long requests are still taken, seconds."""
        is_known = self.is_ready  # to a load balancer, which is given time to notice
        self.startup.leave()
        return SETTINGS.drain_s if is_known else 0.0

    @bentoml.on_shutdown
    def stop(self) -> None:
        """Finish the accepted requests, then stop the engine."""
        engine = self.startup.found
        if engine is None:
            leave_unfinished()
        engine.close()


SERVICE = cast("Service[Any]", LpwSdxl)
SERVICE.add_asgi_middleware(HandlerMiddleware, backend=bentoml.get_current_service)
# A bento carries the models that its service names. These are not attributes of the class, because
# their number is not known.
BUILT_IN = [MODEL_ENTRY.tag, *ADDON_TAGS] if MODEL.is_built_in else ADDON_TAGS
SERVICE.models.extend(BentoModel(tag) for tag in BUILT_IN)


@functools.cache
def _worker_metrics() -> EngineMetrics:
    """Create this worker's metrics, once; prometheus_client is to be imported in a worker only."""
    from lpw_sdxl.engine.metrics import EngineMetrics  # noqa: PLC0415

    return EngineMetrics()


def _end_failed(error: BaseException) -> None:
    """End all of `bentoml serve` because this worker's engine can't be loaded."""
    if not isinstance(error, SettingsError | ModelError):
        logger.error("the engine can't be loaded", exc_info=error)
    end_service(f"lpw-sdxl: {error or type(error).__name__}", os.environ)


def _count_error(code: str) -> None:
    _worker_metrics().count_error(code)


def _call(ctx: bentoml.Context) -> Call:
    """Return the call that the guard has admitted."""
    call = find_call(ctx.request.scope)
    assert call is not None
    return call


def _error(ctx: bentoml.Context, error: LpwSdxlError) -> Any:
    """Answer with one of our errors."""
    response = _call(ctx).endpoint.dialect.response(ErrorAnswer.from_error(error))
    ctx.response.status_code = response.status_code  # else BentoML sets it to 200
    return _passed_through(response)


async def _json(value: object) -> Any:
    """Answer with JSON that a thread writes: an image in base64 takes milliseconds."""
    body = await asyncio.to_thread(lambda: json.dumps(value).encode())
    return _passed_through(Response(body, media_type=JSON))


def _passed_through(response: Response) -> Any:
    """Return a response typed as any endpoint's answer.

    BentoML passes a Response through; an endpoint's annotation is for its schema and client. A
    returned PIL image would be encoded on the event loop, and all clients would wait.
    """
    return response

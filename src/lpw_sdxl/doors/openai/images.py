"""The answers of the paths that draw, and of the URLs of what they drew."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from lpw_sdxl.api.asgi import JSON, header_values
from lpw_sdxl.api.bounded_pool import BoundedPool
from lpw_sdxl.api.disconnect import cancel_on_disconnect
from lpw_sdxl.api.endpoints import Backend, Call, take_request
from lpw_sdxl.api.error_answer import ErrorAnswer
from lpw_sdxl.api.event_stream import EventStream, StreamPlan
from lpw_sdxl.api.image_set import MadeImage, make_images
from lpw_sdxl.doors.openai.answers import encode, write_answer
from lpw_sdxl.doors.openai.errors import OPENAI
from lpw_sdxl.doors.openai.events import ImageEvents, preview_interval
from lpw_sdxl.doors.openai.links import PictureLinks
from lpw_sdxl.doors.openai.translation import ImageOrder
from lpw_sdxl.imaging import encode_image
from lpw_sdxl.imaging.picture import PictureLimits, read_picture
from lpw_sdxl.schema import GenerationRequest

if TYPE_CHECKING:
    from lpw_sdxl.engine import GeneratedImage

logger = logging.getLogger(__name__)

LINKS_PATH = "/v1/images/files"
BEST_QUALITY = 95  # of a JPEG; above it only the file grows
MOST_MASKS = 64  # read or waiting
_HOST = re.compile(r"[A-Za-z0-9._:\[\]-]{1,255}")
_NAME = "name"


@dataclass(frozen=True)
class ImageDoor:
    """The answers of one worker.

    Attributes:
        model: the served model's name, as answers have it.
        limits: of pictures.
        public_url: where clients reach this server; empty for the host that they name.
        has_files: whether URLs lead to files; with several workers, of which each would know only
            its own, they hold the picture themselves.
        links: the files.
    """

    model: str
    limits: PictureLimits
    public_url: str = ""
    has_files: bool = True
    links: PictureLinks = field(default_factory=PictureLinks)
    _masks: BoundedPool = field(
        default_factory=lambda: BoundedPool("openai-masks", most=MOST_MASKS)
    )

    async def answer(self, call: Call, request: Request, backend: Backend) -> Response:
        """Draw the images of an order."""
        order = take_request(request.scope, ImageOrder)
        if order.unknown_fields:
            logger.info("%d unknown fields were ignored", order.unknown_fields)
        requests, order = [*order.requests], replace(order, requests=_bare(order.requests))
        if order.is_mask_raw:
            await self._turn_masks(requests)
        encoding = _encoding(order, backend)
        if order.is_streamed:
            return self._stream(order, requests, call, backend, encoding)
        making = make_images(backend.engine, encoding, requests, call)
        del requests  # they hold their pictures' files
        images = await cancel_on_disconnect(request, making)
        link = partial(self._link, request)
        if order.has_links:
            content = write_answer(order, images, self.model, link)
        else:
            content = await asyncio.to_thread(write_answer, order, images, self.model, link)
        seeds = ", ".join(str(one.seed) for one in images)
        headers = {"x-seed": seeds, "cache-control": "no-store"}
        return Response(content, media_type=JSON, headers=headers)

    async def answer_file(self, call: Call, _request: Request, _backend: Backend) -> Response:
        """Answer with a picture under a URL that an answer had."""
        picture = self.links.find(call.parameters[_NAME])
        if picture is None:
            message = "there is no picture of this name; each is kept for an hour at most"
            return OPENAI.response(ErrorAnswer(404, "not_found", message))
        headers = {"cache-control": "private, max-age=3600", "x-content-type-options": "nosniff"}
        return Response(picture.content, media_type=picture.media_type, headers=headers)

    async def _turn_masks(self, requests: list[GenerationRequest]) -> None:
        """Turn masks with transparency round, so that what is transparent is painted over.

        A mask without any is black and white, and white is painted over, as in ours.
        """
        mask = requests[0].mask_image
        assert mask is not None
        picture = await self._masks.run(partial(read_picture, mask, "mask", self.limits))
        if picture.alpha is not None:
            turned = {"invert_mask": True}
            requests[:] = [one.model_copy(update=turned) for one in requests]

    def _stream(
        self,
        order: ImageOrder,
        requests: list[GenerationRequest],
        call: Call,
        backend: Backend,
        encoding: Callable[[GeneratedImage], bytes],
    ) -> Response:
        plan = StreamPlan(
            requests,
            preview_interval(order),
            is_batch=len(requests) > 1,
            is_refused_by_first=True,
            events=ImageEvents(order),
        )
        return EventStream(replace(backend.streams, encode=encoding), call, plan)

    def _link(self, request: Request, image: MadeImage) -> str:
        """Return the URL of an image."""
        if not self.has_files:
            return f"data:{image.media_type};base64,{encode(image.content)}"
        name = self.links.add(image.content, image.media_type)
        return f"{self.public_url.rstrip('/') or _own_url(request)}{LINKS_PATH}/{name}"


def _bare(requests: tuple[GenerationRequest, ...]) -> tuple[GenerationRequest, ...]:
    """Return the first request without its pictures, for what answers and events state of it."""
    return (requests[0].without_pictures(),)


def _encoding(order: ImageOrder, backend: Backend) -> Callable[[Any], bytes]:
    """Choose how images become files: as everywhere, or with the client's compression."""
    if order.compression is None:
        return backend.encode_file
    quality = min(max(1, order.compression), BEST_QUALITY)

    def encode_smaller(image: GeneratedImage) -> bytes:
        return encode_image(image.pixels, image.record.request.image_format, image.record, quality)

    return encode_smaller


def _own_url(request: Request) -> str:
    """Return this server's address by the host that the client named."""
    hosts = header_values(request.scope, b"host")
    host = hosts[0].decode("latin-1") if len(hosts) == 1 else ""
    if not _HOST.fullmatch(host):
        address, port = request.scope.get("server") or ("localhost", None)
        host = f"{address}:{port}" if port else address
    return f"{request.scope.get('scheme', 'http')}://{host}"

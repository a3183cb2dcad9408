"""The answers of txt2img and img2img."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from lpw_sdxl.api.asgi import JSON
from lpw_sdxl.api.bounded_pool import BoundedPool
from lpw_sdxl.api.disconnect import cancel_on_disconnect
from lpw_sdxl.api.endpoints import Backend, Call, take_request
from lpw_sdxl.doors.a1111.answers import write_answer
from lpw_sdxl.doors.a1111.lobby import Lobby
from lpw_sdxl.doors.a1111.making import DrawnImage, ImageMaker
from lpw_sdxl.doors.a1111.masks import prepare_mask
from lpw_sdxl.doors.a1111.native_names import spell
from lpw_sdxl.doors.a1111.order import ImageOrder
from lpw_sdxl.doors.a1111.served_model import ServedModel
from lpw_sdxl.errors import RequestError
from lpw_sdxl.imaging import encode_image
from lpw_sdxl.imaging.picture import PictureLimits
from lpw_sdxl.schema import GenerationRequest

if TYPE_CHECKING:
    from lpw_sdxl.engine import GeneratedImage

logger = logging.getLogger(__name__)

MOST_MASKS = 64  # read or waiting
DRAWN_SEEDS = 2**32 - 2  # A1111 draws of so many
_OF_MASKS = (
    *("mask_image", "invert_mask", "mask_blur"),
    *("masked_content", "only_masked", "only_masked_padding"),
)


@dataclass(frozen=True)
class ImageDoor:
    """The answers of one worker.

    Attributes:
        model: that is served.
        limits: of pictures.
        lobby: where images wait for room in the queue.
    """

    model: ServedModel
    limits: PictureLimits
    lobby: Lobby
    _masks: BoundedPool = field(default_factory=lambda: BoundedPool("a1111-masks", most=MOST_MASKS))

    async def answer(self, call: Call, request: Request, backend: Backend) -> Response:
        """Draw the images of an order.

        Raises:
            LpwSdxlError: as `Engine.generate`; a field is named as the client did.
        """
        order = take_request(request.scope, ImageOrder)
        if order.unknown_fields:
            logger.info("%d unknown fields were ignored", order.unknown_fields)
        order = await self._prepare(order)
        requests = order.requests(_drawn(order.seed), _drawn(order.subseed))
        bare = [one.without_pictures() for one in requests]
        maker = ImageMaker(backend.engine, _encoding(order, backend), call, self.lobby)
        making = maker.make(requests)
        del requests  # they hold their pictures' files
        order = replace(order, pictures=(), mask=None)
        try:
            images = await cancel_on_disconnect(request, making)
        except RequestError as error:
            raise spell(error) from None
        content = await self._write(order, images, bare)
        return Response(content, media_type=JSON, headers={"cache-control": "no-store"})

    async def _prepare(self, order: ImageOrder) -> ImageOrder:
        """Read the mask as A1111 does; where it paints over nothing of a part alone, drop it."""
        request, mask = order.request, order.mask
        if mask is None or not (order.is_mask_rounded or request.only_masked):
            return order
        prepared = await self._masks.run(
            partial(
                prepare_mask,
                mask,
                is_rounded=order.is_mask_rounded,
                is_inverted=request.invert_mask,
                limits=self.limits,
            )
        )
        if prepared is not None:
            return replace(order, mask=prepared)
        if not request.only_masked:
            return order
        defaults = {name: GenerationRequest.model_fields[name].default for name in _OF_MASKS}
        return replace(order, mask=None, request=request.model_copy(update=defaults))

    async def _write(
        self, order: ImageOrder, images: list[DrawnImage], requests: list[GenerationRequest]
    ) -> bytes:
        return await asyncio.to_thread(write_answer, order, images, requests, self.model)


def _drawn(seed: int | None) -> int:
    return secrets.randbelow(DRAWN_SEEDS) if seed is None else seed


def _encoding(order: ImageOrder, backend: Backend) -> Callable[[Any], bytes]:
    """Choose how images become files: as everywhere, or with the client's compression."""
    quality = order.quality
    if quality is None:
        return backend.encode_file

    def encode_smaller(image: GeneratedImage) -> bytes:
        return encode_image(image.pixels, image.record.request.image_format, image.record, quality)

    return encode_smaller

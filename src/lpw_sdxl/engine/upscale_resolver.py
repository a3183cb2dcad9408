"""Requests to enlarge pictures to specifications of jobs: checked, with defaults filled in."""

from __future__ import annotations

from dataclasses import dataclass

from lpw_sdxl.engine.upscale_job import UpscaleSpec
from lpw_sdxl.engine.upscalers import NetworkUpscaling, ReadUpscaler, TileRoom, check_way
from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.imaging import check_sides
from lpw_sdxl.imaging.picture import PictureLimits, read_picture_size
from lpw_sdxl.parameters.carried_text import read_carried_text
from lpw_sdxl.request_limits import RequestLimits
from lpw_sdxl.schema import ImageSize
from lpw_sdxl.upscale_request import (
    DEFAULT_SCALE,
    MOST_PIXELS_A_SIDE,
    UpscaleRequest,
    check_upscale,
    enlarge_picture,
    largest_side_field,
)


@dataclass(frozen=True)
class UpscaleResolver:
    """The way of a request to its job; for any number of threads at a time.

    Attributes:
        limits: of requests.
        picture_limits: of pictures that come in.
        room: of a call of an upscaler's network.
        max_cost: of all jobs together, megapixels of rows.
    """

    limits: RequestLimits
    picture_limits: PictureLimits
    room: TileRoom
    max_cost: float

    def resolve(self, request: UpscaleRequest, upscaler: ReadUpscaler | None) -> UpscaleSpec:
        """Check a request against all limits and fill in its defaults; no pixel is decoded.

        Args:
            request: with its picture's file.
            upscaler: that it names; None for one that every server has.

        Raises:
            InvalidRequestError: a limit is broken, or the picture can't be read; the error names
                the field.
        """
        check_upscale(request, self.limits)
        picture = read_picture_size(request.image, "image", self.picture_limits)
        own_scale = DEFAULT_SCALE if upscaler is None else upscaler.design.scale
        enlargement = enlarge_picture(picture, request, own_scale)
        self._check_size(enlargement.covering, request)
        check_sides(enlargement.size, request.image_format)
        network = None
        if upscaler is not None:
            network = NetworkUpscaling.plan(upscaler, picture, enlargement.covering, self.room)
            check_way(network, "image")
            self._check_cost(network)
        text = read_carried_text(request.image)
        return UpscaleSpec(request.without_picture(), enlargement, network, text)

    def _check_size(self, size: ImageSize, request: UpscaleRequest) -> None:
        most = self.limits.max_upscaled_pixels
        if size.height * size.width > most:
            raise InvalidRequestError(
                f"the picture would become {size}, which is {size.height * size.width} pixels; at"
                f" most {most} are accepted here",
                field=largest_side_field(request),
            )
        if max(size) > MOST_PIXELS_A_SIDE:
            raise InvalidRequestError(
                f"the picture would become {size}; a side may have {MOST_PIXELS_A_SIDE} pixels",
                field=largest_side_field(request),
            )

    def _check_cost(self, network: NetworkUpscaling) -> None:
        if network.cost > self.max_cost:
            raise InvalidRequestError(
                f"the upscaler {network.upscaler.name!r} has {network.tiles} tiles to enlarge,"
                f" which cost as much as {network.cost:.0f} megapixel steps; at most"
                f" {self.max_cost:.0f} are accepted here; a smaller picture or another upscaler"
                " would be right",
                field="image",
            )

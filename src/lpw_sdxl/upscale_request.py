"""A picture to enlarge, as a request: its fields, its reading from JSON, and the answer's size.

It knows nothing of torch, the engine, or what is in a picture's file.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field

from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.field_types import DeadlineSeconds, ImageSize, RequestId
from lpw_sdxl.json_bounds import JsonText
from lpw_sdxl.picture_file import PictureFile
from lpw_sdxl.picture_text import refused
from lpw_sdxl.request_limits import RequestLimits
from lpw_sdxl.request_reading import read_with_pictures
from lpw_sdxl.schema import ImageFormat
from lpw_sdxl.second_pass import Enlargement, Upscaler, UpscalerName, find_upscaler

DEFAULT_SCALE = 2.0  # of what has no scale of its own
MOST_PIXELS_A_SIDE = 2**14

AnswerSide = Annotated[int, Field(ge=1, le=MOST_PIXELS_A_SIDE)]


class UpscaleRequest(BaseModel):
    """One picture to enlarge; strict as a GenerationRequest is."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    noun: ClassVar[str] = "a request to upscale"

    image: PictureFile = Field(
        repr=False,
        description="The picture: a PNG, JPEG or WebP as base64 or as a data URL.",
    )
    upscaler: UpscalerName = Field(
        default=Upscaler.LANCZOS.value,
        description="What enlarges it: the name of an imported upscaler, or lanczos, none (which is"
        " Lanczos too) or nearest.",
    )
    scale: float | None = Field(
        default=None,
        gt=0,
        le=8,
        allow_inf_nan=False,
        description="Of both sides; null is the imported upscaler's own factor, else 2, where no"
        " side is given either.",
    )
    width: AnswerSide | None = Field(
        default=None,
        description="Pixels; the other side follows from the picture's ratio, and what is over is"
        " cut off around the middle where both are given.",
    )
    height: AnswerSide | None = Field(default=None, description="Pixels; see width.")
    crop: bool = Field(
        default=True,
        description="Whether what is over is cut off where both sides are given. Without it the"
        " answer has the picture's ratio, and no side is smaller than it was asked for.",
    )
    image_format: ImageFormat = Field(
        default=ImageFormat.PNG, description="The kind of file to answer with.", strict=False
    )
    quality: Annotated[int, Field(ge=1, le=95)] | None = Field(
        default=None, description="Of a JPEG or a WebP; null is 95."
    )
    deadline_s: DeadlineSeconds | None = Field(
        default=None, description="Give up when the picture is not done after so many seconds."
    )
    request_id: RequestId | None = Field(
        default=None,
        description="A name of your own, by which the job is found and cancelled: letters, digits,"
        " `_`, `-` and, not first, `.`. Null makes one.",
    )

    @property
    def built_in(self) -> Upscaler | None:
        """Return its upscaler, where every server has it; None for an imported one."""
        return find_upscaler(self.upscaler)

    def named(self, request_id: str) -> Self:
        """Return this request with an id, if it has none of its own."""
        if self.request_id is not None:
            return self
        return self.model_copy(update={"request_id": request_id})

    def without_picture(self) -> Self:
        """Return this request without its picture's file, which may have megabytes."""
        return self.model_copy(update={"image": b""})


def parse_upscale(body: JsonText | str, limits: RequestLimits) -> UpscaleRequest:
    """Read an UpscaleRequest from JSON and check it against the server's limits.

    Raises:
        InvalidRequestError: a field is wrong; the error names the first one and what would be
            right, and holds no value of the request but numbers.
    """
    request = read_with_pictures(UpscaleRequest, body, limits)
    check_upscale(request, limits)
    return request


def check_upscale(request: UpscaleRequest, limits: RequestLimits) -> None:
    """Check what a valid request asks for, beside its picture's contents.

    Raises:
        InvalidRequestError: nothing can be done so, or something is asked for twice.
    """
    if len(request.image) > limits.max_image_bytes:
        raise refused(
            "image",
            f"has {len(request.image)} bytes and may have {limits.max_image_bytes}; send a smaller"
            " file",
        )
    if request.scale is not None and (request.width or request.height):
        raise InvalidRequestError(
            "the request has a scale, and a width or height; one of the two would be right",
            field="scale",
        )
    built_in = request.built_in
    if built_in is not None and built_in.is_latent:
        raise InvalidRequestError(
            f"upscaler {built_in} enlarges latents, which only hires of /generate has; lanczos,"
            " nearest or an imported upscaler would be right",
            field="upscaler",
        )
    if request.quality is not None and request.image_format is ImageFormat.PNG:
        raise InvalidRequestError(
            "quality is of a jpeg or a webp, and the answer is a png, which loses nothing; without"
            " it the request would be right",
            field="quality",
        )


def enlarge_picture(
    size: ImageSize, request: UpscaleRequest, own_scale: float = DEFAULT_SCALE
) -> Enlargement:
    """Compute the sizes of an enlarged picture.

    Args:
        size: of the picture, pixels.
        request: with a scale, one side, both, or nothing.
        own_scale: of its upscaler, for a request that says nothing.
    """
    width, height = request.width, request.height
    if width is None and height is None:
        scale = own_scale if request.scale is None else request.scale
        scaled = _scaled(size, scale)
        return Enlargement(scaled, scaled)
    # Each side that is given stays what it is, whatever rounding makes of the other.
    by_width = None if width is None else _scaled(size, width / size.width)._replace(width=width)
    by_height = (
        None if height is None else _scaled(size, height / size.height)._replace(height=height)
    )
    if by_height is None or by_width is None:
        [scaled] = (one for one in (by_width, by_height) if one is not None)
        return Enlargement(scaled, scaled)
    wanted = ImageSize(by_height.height, by_width.width)
    is_wider = wanted.width * size.height >= wanted.height * size.width
    covering = ImageSize(*map(max, by_width if is_wider else by_height, wanted))
    return Enlargement(covering, wanted if request.crop else covering)


def largest_side_field(request: UpscaleRequest) -> str:
    """Return the field that makes an answer as large as it is, for a refusal."""
    given = [name for name in ImageSize._fields if getattr(request, name) is not None]
    return given[0] if given else "scale"


def _scaled(size: ImageSize, scale: float) -> ImageSize:
    """Scale a size; no side becomes nothing."""
    return ImageSize(*(max(1, round(side * scale)) for side in size))

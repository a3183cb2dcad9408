"""The second, larger pass of a request, which A1111 calls hires fix: its fields and its size.

It knows nothing of torch or the engine.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from lpw_sdxl.field_types import (
    LATENT_SCALE,
    MAX_IMAGE_PIXELS,
    GuidanceScale,
    ImageSize,
    Share,
    Side,
)
from lpw_sdxl.spelling import LONGEST_NAME, Spellings

DEFAULT_SCALE = 2.0
DEFAULT_STRENGTH = 0.75


class Upscaler(StrEnum):
    """The way of a first pass to the size of the second: by latents, or by pixels."""

    LATENT = "latent"
    LATENT_ANTIALIASED = "latent_antialiased"
    LATENT_BICUBIC = "latent_bicubic"
    LATENT_BICUBIC_ANTIALIASED = "latent_bicubic_antialiased"
    LATENT_NEAREST = "latent_nearest"
    LATENT_NEAREST_EXACT = "latent_nearest_exact"
    NONE = "none"  # Lanczos too, as in A1111
    NEAREST = "nearest"
    LANCZOS = "lanczos"

    @property
    def is_latent(self) -> bool:
        """Return whether latents are scaled, and nothing is decoded."""
        return self.value.startswith("latent")


UPSCALER_LABELS = {
    Upscaler.LATENT: "Latent",
    Upscaler.LATENT_ANTIALIASED: "Latent (antialiased)",
    Upscaler.LATENT_BICUBIC: "Latent (bicubic)",
    Upscaler.LATENT_BICUBIC_ANTIALIASED: "Latent (bicubic antialiased)",
    Upscaler.LATENT_NEAREST: "Latent (nearest)",
    Upscaler.LATENT_NEAREST_EXACT: "Latent (nearest-exact)",
    Upscaler.NONE: "None",
    Upscaler.NEAREST: "Nearest",
    Upscaler.LANCZOS: "Lanczos",
}
"""A1111's labels."""

_UPSCALERS = Spellings(
    "upscaler", Upscaler, {label: name for name, label in UPSCALER_LABELS.items()}
)
find_upscaler = _UPSCALERS.find

MAX_UPSCALER_NAME = 100  # characters; as long as an import's names

Name = Annotated[str, Field(min_length=1, max_length=LONGEST_NAME)]


def _spell_upscaler(name: str) -> str:
    """Return the name of an upscaler that every server has as ours; any other as it is."""
    return find_upscaler(name) or name


UpscalerName = Annotated[
    str,
    Field(min_length=1, max_length=MAX_UPSCALER_NAME),
    AfterValidator(_spell_upscaler),
]


class SecondPass(BaseModel):
    """A second, larger pass over an image; what is null is as in the first one."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    noun: ClassVar[str] = "hires"

    scale: float | None = Field(
        default=None,
        ge=1,
        le=8,
        allow_inf_nan=False,
        description="Of both sides; 2 where no side is given either.",
    )
    width: Side | None = Field(
        default=None,
        description="Pixels; the other side follows from the ratio of the first pass, and what is"
        " over is cut where both are given.",
    )
    height: Side | None = Field(default=None, description="Pixels; see width.")
    steps: Annotated[int, Field(ge=0, le=999)] | None = Field(
        default=None, description="Denoising steps; 0 is null too."
    )
    strength: Share = Field(
        default=DEFAULT_STRENGTH, description="How much is made anew, as with a picture."
    )
    upscaler: UpscalerName = Field(
        default=Upscaler.LATENT.value,
        description="How the first pass gets to the size: latent, latent_antialiased,"
        " latent_bicubic, latent_bicubic_antialiased, latent_nearest, latent_nearest_exact, none,"
        " nearest or lanczos, also by A1111's labels; or the name of an imported upscaler.",
    )
    prompt: str | None = None
    negative_prompt: str | None = None
    guidance_scale: GuidanceScale | None = None
    scheduler: Name | None = Field(default=None, description="Of the request's family.")
    schedule_type: Name | None = Field(default=None, description="Likewise.")

    @property
    def built_in(self) -> Upscaler | None:
        """Return its upscaler, where every server has it; None for an imported one."""
        return find_upscaler(self.upscaler)


class Enlargement(NamedTuple):
    """The sizes of a second pass.

    Attributes:
        covering: to which the first pass is scaled, pixels; multiples of 8.
        size: of the second pass: what is over is cut off around its middle.
    """

    covering: ImageSize
    size: ImageSize


def enlarge(size: ImageSize, second: SecondPass) -> Enlargement:
    """Compute the sizes of a second pass, as A1111 does.

    Args:
        size: of the first pass.
        second: with a scale, one side, or both.
    """
    width, height = second.width, second.height
    if width is None and height is None:
        scale = DEFAULT_SCALE if second.scale is None else second.scale
        scaled = _whole(ImageSize(int(size.height * scale), int(size.width * scale)))
        return Enlargement(scaled, scaled)
    if height is None:
        assert width is not None
        scaled = _whole(ImageSize(width * size.height // size.width, width))
        return Enlargement(scaled, scaled)
    if width is None:
        scaled = _whole(ImageSize(height, height * size.width // size.height))
        return Enlargement(scaled, scaled)
    if size.width * height < width * size.height:
        covering = ImageSize(width * size.height // size.width, width)
    else:
        covering = ImageSize(height, height * size.width // size.height)
    return Enlargement(_whole(covering), ImageSize(height, width))


def fits_second(enlargement: Enlargement, most: ImageSize) -> bool:
    """Return whether a second pass has no more pixels than the largest image, in any ratio."""
    pixels = enlargement.covering.height * enlargement.covering.width
    is_short = max(enlargement.covering) <= MAX_IMAGE_PIXELS
    return is_short and pixels <= most.height * most.width


def _whole(size: ImageSize) -> ImageSize:
    return ImageSize(*(side - side % LATENT_SCALE for side in size))

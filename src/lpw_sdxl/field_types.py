"""The kinds of values that fields of requests have; a pair that is not named is height first."""

from __future__ import annotations

from typing import Annotated, NamedTuple

from pydantic import AfterValidator, BeforeValidator, Field, Strict
from pydantic_core import PydanticCustomError

from lpw_sdxl.sampler_names import read_schedule_type_name, read_scheduler_name
from lpw_sdxl.sampler_table import SamplerName
from lpw_sdxl.sampling_options import SigmaScheduleType
from lpw_sdxl.schedule_types import ScheduleType
from lpw_sdxl.scheduler_table import SchedulerName

MIN_IMAGE_PIXELS = 64  # one side; a smaller one can't be halved as often as SDXL's UNet does
MAX_IMAGE_PIXELS = 8192  # one side; the server's own limit is lower
LATENT_SCALE = 8  # pixels of one side of a latent cell


class ImageSize(NamedTuple):
    """Height and width of an image, pixels."""

    height: int
    width: int

    def __str__(self) -> str:
        """Write the size in the usual way, width first."""
        return f"{self.width}x{self.height}"


# Also a part of an address, where clients leave `.` and `..` out; and a header.
REQUEST_ID = r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$"
MAX_STRENGTH = 10.0  # a LoRA's, absolute value; people use -2 to 2

Strength = Annotated[float, Field(ge=-MAX_STRENGTH, le=MAX_STRENGTH, allow_inf_nan=False)]
GuidanceScale = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
Side = Annotated[int, Field(ge=MIN_IMAGE_PIXELS, le=MAX_IMAGE_PIXELS, multiple_of=LATENT_SCALE)]
StepCount = Annotated[int, Field(ge=1, le=999)]
Scheduler = Annotated[
    Annotated[SchedulerName, Strict(False)] | Annotated[SamplerName, Strict(False)] | None,
    BeforeValidator(read_scheduler_name),
]
AnyScheduleType = Annotated[
    Annotated[ScheduleType, Strict(False)] | Annotated[SigmaScheduleType, Strict(False)] | None,
    BeforeValidator(read_schedule_type_name),
]
SeedDelta = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
DeadlineSeconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
RequestId = Annotated[str, Field(min_length=1, max_length=128, pattern=REQUEST_ID)]


def _check_interval(interval: list[float]) -> list[float]:
    """Refuse an interval whose end is not behind its start."""
    start, stop = interval
    if start >= stop:
        raise PydanticCustomError("interval", "The second share is not larger than the first")
    return interval


# Not a tuple: its schema has no `items`, without which BentoML's clients can't call anything.
Interval = Annotated[
    list[Share], Field(min_length=2, max_length=2), AfterValidator(_check_interval)
]


SEEDS = 2**64
"""Number of seeds; one that follows the last is 0."""


def _none_for_minus_1(seed: int | None) -> int | None:
    """Return None for -1, which asks many other programs to draw a seed."""
    return None if seed == -1 else seed


Seed = Annotated[
    Annotated[int, Field(ge=-1, le=SEEDS - 1)] | None, AfterValidator(_none_for_minus_1)
]

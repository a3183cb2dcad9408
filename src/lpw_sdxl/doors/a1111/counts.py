"""How many images a request of A1111's makes, and from which seeds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lpw_sdxl.doors.a1111.loose_fields import LooseFields


@dataclass(frozen=True)
class Counts:
    """The numbers of images of a batch, and of batches."""

    batch_size: int
    n_iter: int

    @classmethod
    def read(cls, fields: LooseFields, most: int, picture_count: int) -> Counts:
        """Read the numbers; several pictures to start from are a batch.

        Args:
            fields: of the request.
            most: images of one request.
            picture_count: pictures to start from.

        Raises:
            InvalidRequestError: one is less than 1, or they are too many.
        """
        numbers = {}
        for name in ("batch_size", "n_iter"):
            number = fields.whole(name)
            numbers[name] = number = 1 if number is None else number
            if number < 1:
                raise fields.refuse(name, f"is {number}; at least 1 is right")
        batch_size, n_iter = numbers.values()
        if picture_count > max(1, batch_size):
            raise fields.refuse(
                "init_images",
                f"are {picture_count}, and batch_size is {batch_size}; no more are right",
            )
        if picture_count > 1:
            batch_size = picture_count
        if batch_size * n_iter > most:
            name = "batch_size" if batch_size > most else "n_iter"
            raise fields.refuse(
                name,
                f"makes {batch_size * n_iter} images; at most {most} are accepted here",
            )
        return cls(batch_size, n_iter)


@dataclass(frozen=True)
class Seeds:
    """The seeds of the first image, and how far its noise is turned."""

    seed: int | None
    subseed: int | None
    strength: float

    @classmethod
    def read(cls, fields: LooseFields, native: dict[str, Any]) -> Seeds:
        """Read the seeds; they are removed from what a text says."""
        said = [native.pop(name, None) for name in ("seed", "variation_seed")]
        strength = native.pop("variation_strength", 0.0)
        seeds = []
        for name, other in zip(("seed", "subseed"), said, strict=True):
            number = fields.whole(name)
            seeds.append(other if number is None else None if number == -1 else number)
        own = fields.number("subseed_strength")
        return cls(seeds[0], seeds[1], strength if own is None else own)

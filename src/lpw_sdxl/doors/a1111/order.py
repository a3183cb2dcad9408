"""An order: the images of one request of A1111's, and how they are answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lpw_sdxl.field_types import SEEDS
from lpw_sdxl.schema import GenerationRequest


@dataclass(frozen=True)
class ImageOrder:
    """The images of one request, and how they are answered.

    Attributes:
        request: of each of them, without seeds and pictures.
        batch_size: images of a batch.
        n_iter: batches.
        seed: of the first; None draws one.
        subseed: of the first one's variation; None draws one.
        pictures: to start from, one for all or one for each image of a batch; none for a text.
        mask: a file.
        is_mask_rounded: whether the mask's transparency is all or nothing.
        sends_images: whether the answer has the images.
        sends_pictures: whether the answer repeats the pictures that were sent.
        quality: of JPEG and WebP, 1 to 95; None is our own.
        clip_skip: in A1111's count.
        echo: the answer's `parameters`.
        notes: what was mapped or ignored, for `extra_generation_params`.
        unknown_fields: their number.
        request_id: the job's name, by the client's for its task.
    """

    request: GenerationRequest
    batch_size: int = 1
    n_iter: int = 1
    seed: int | None = None
    subseed: int | None = None
    pictures: tuple[bytes, ...] = ()
    mask: bytes | None = None
    is_mask_rounded: bool = False
    sends_images: bool = True
    sends_pictures: bool = False
    quality: int | None = None
    clip_skip: int = 1
    echo: Mapping[str, Any] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    unknown_fields: int = 0
    request_id: str | None = None

    @property
    def count(self) -> int:
        """Count the images."""
        return self.batch_size * self.n_iter

    def requests(self, seed: int, subseed: int) -> list[GenerationRequest]:
        """Make the requests of the images, in their order.

        With a variation all have one seed, and the variation's seed counts on.

        Args:
            seed: of the first image.
            subseed: of its variation.
        """
        has_variation = self.request.variation_strength > 0
        made = []
        for index in range(self.count):
            update: dict[str, Any] = {"seed": (seed + (0 if has_variation else index)) % SEEDS}
            if has_variation:
                update["variation_seed"] = (subseed + index) % SEEDS
            if self.pictures:
                place = index % self.batch_size % len(self.pictures)
                update |= {"image": self.pictures[place], "mask_image": self.mask}
            made.append(self.request.model_copy(update=update))
        return made

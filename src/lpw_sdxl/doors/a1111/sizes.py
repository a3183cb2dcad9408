"""Sizes of A1111's requests, to sides that can be drawn."""

from __future__ import annotations

from typing import Any

from lpw_sdxl.doors.a1111.loose_fields import LooseFields
from lpw_sdxl.schema import LATENT_SCALE


def round_down(pixels: int) -> int:
    """Round a side down to a multiple of 8, as A1111 draws it."""
    return pixels // LATENT_SCALE * LATENT_SCALE


def read_size(fields: LooseFields) -> dict[str, Any]:
    """Read the sides that a request names."""
    sides = {side: fields.whole(side) for side in ("width", "height")}
    return {side: round_down(pixels) for side, pixels in sides.items() if pixels is not None}

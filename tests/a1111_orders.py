"""Requests of A1111's clients, translated by the door of a server that is not there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from lpw_sdxl.doors.a1111.loose_fields import read_body
from lpw_sdxl.doors.a1111.order import ImageOrder
from lpw_sdxl.doors.a1111.served_model import ServedHere, ServedModel
from lpw_sdxl.doors.a1111.translation import translate
from lpw_sdxl.request_limits import RequestLimits
from lpw_sdxl.schema import ImageSize

SHA256 = "0123456789" + "ab" * 27
MODEL = ServedModel("demo", "demo:abcdefghijkl", "demoXL_v10.safetensors", SHA256)
LIMITS = RequestLimits(32_768, 150, ImageSize(2048, 2048), 64, 10, 2**20)
HERE = ServedHere(LIMITS, ImageSize(height=832, width=1216), MODEL)
_DIALECT = ("prompt", "prompt_style", "sampler_implementation", "noise_source")


def order_of(body: Mapping[str, Any], *, is_picture: bool = False) -> ImageOrder:
    fields = read_body(json.dumps(body).encode())
    return translate(fields, HERE, is_picture=is_picture)


def outline(order: ImageOrder) -> dict[str, Any]:
    """What an order has beyond a prompt, A1111's dialect and its noise."""
    found = order.request.model_dump(mode="json", exclude_defaults=True, exclude={*_DIALECT})
    found |= {
        name: getattr(order.request, name) for name in ("guidance_scale", "num_inference_steps")
    }
    numbers = {
        "seed": order.seed,
        "subseed": order.subseed,
        "request_id": order.request_id,
        "pictures": len(order.pictures) or None,
        "has_mask": order.mask is not None or None,
        "count": order.count if order.count > 1 else None,
        "clip_skip_shown": order.clip_skip if order.clip_skip > 1 else None,
        "notes": len(order.notes) or None,
    }
    return found | {name: one for name, one in numbers.items() if one is not None}

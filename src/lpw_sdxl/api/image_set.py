"""The images of one request that is answered when all are made: all of them, or one error."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lpw_sdxl.api.endpoints import Call
from lpw_sdxl.api.together import all_or_none
from lpw_sdxl.imaging import MEDIA_TYPES, MediaType
from lpw_sdxl.schema import GenerationRequest, ImageSize

if TYPE_CHECKING:
    from lpw_sdxl.engine import Engine, GeneratedImage


@dataclass(frozen=True)
class MadeImage:
    """An image and its file.

    Attributes:
        content: of the file.
        media_type: of the file.
        seed: makes the same image again.
        size: pixels.
    """

    content: bytes
    media_type: MediaType
    seed: int
    size: ImageSize


async def make_images(
    engine: Engine,
    encode: Callable[[GeneratedImage], bytes],
    requests: Sequence[GenerationRequest],
    call: Call,
) -> list[MadeImage]:
    """Make images concurrently, in their order; the first error ends the others.

    Args:
        engine: makes them.
        encode: encodes an image as a file; CPU work, called in a thread.
        requests: of the images, at least one.
        call: that is answered; an image alone has its id, one of several that and its index.

    Raises:
        LpwSdxlError: as `Engine.generate`.
    """
    is_alone = len(requests) == 1

    async def make(request: GenerationRequest, index: int) -> MadeImage:
        making = engine.generate(
            request.named(call.request_id if is_alone else call.item_id(index)),
            leaves_room=not is_alone,
            owner=call.owner,
            memory=call.memory,
        )
        del request  # it holds its pictures' files
        image = await making
        content = await asyncio.to_thread(encode, image)
        media_type = MEDIA_TYPES[image.record.request.image_format]
        return MadeImage(content, media_type, image.seed, image.size)

    makings = [make(one, index) for index, one in enumerate(requests)]
    del requests
    return await all_or_none(makings)

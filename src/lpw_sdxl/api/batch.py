"""A batch: each item is made on its own, and answered at its index."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from lpw_sdxl.api.asgi import JsonObject
from lpw_sdxl.api.endpoints import Call
from lpw_sdxl.api.error_answer import ErrorAnswer
from lpw_sdxl.api.openapi_errors import answered_codes
from lpw_sdxl.errors import InvalidRequestError, LpwSdxlError
from lpw_sdxl.imaging import MEDIA_TYPES, MediaType
from lpw_sdxl.request_reading import ParsedBatch
from lpw_sdxl.schema import GenerationRequest

if TYPE_CHECKING:
    from lpw_sdxl.engine import Engine, GeneratedImage

logger = logging.getLogger(__name__)


def _list_codes(schema: JsonObject) -> None:
    """Put every error code into a schema; called late, since APIs may add codes of their own."""
    codes = (code for codes in answered_codes().values() for code in codes)
    schema["enum"] = [*dict.fromkeys(codes)]


@dataclass(frozen=True)
class BatchImage:
    """The answer to an item of a batch that became an image."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    status: Literal["ok"]
    seed: Annotated[int, Field(ge=0, le=2**64 - 1, description="Makes the same image again.")]
    width: Annotated[int, Field(ge=1, description="Pixels.")]
    height: Annotated[int, Field(ge=1, description="Pixels.")]
    media_type: MediaType
    image: Annotated[
        str,
        Field(description="The file, in base64.", json_schema_extra={"contentEncoding": "base64"}),
    ]


@dataclass(frozen=True)
class BatchError:
    """The answer to an item of a batch that failed, without effect on the others."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    status: Literal["error"]
    code: Annotated[str, Field(json_schema_extra=_list_codes)]
    message: str
    field: Annotated[str | None, Field(description="Of this item, such as `width`.")]


BatchAnswer = list[BatchImage | BatchError]
"""One answer for each request, in their order."""


class BatchMaker:
    """The work of batches: one image and one answer for each item.

    Args:
        engine: makes the images.
        encode: encodes an image as a file; CPU work, called in a thread.
        count_error: called with the code of every item's error.
    """

    def __init__(
        self,
        engine: Engine,
        encode: Callable[[GeneratedImage], bytes],
        count_error: Callable[[str], None],
    ) -> None:
        self._engine = engine
        self._encode = encode
        self._count_error = count_error

    async def make(self, batch: ParsedBatch, call: Call) -> BatchAnswer:
        """Make all items concurrently; a bad one becomes an error at its index.

        Args:
            batch: the items.
            call: that brought it; an item without an id gets the call's, and its index.
        """
        making = [self._make_one(item, index, call) for index, item in enumerate(batch.items)]
        del batch  # each item holds its pictures' files until they are read
        return await asyncio.gather(*making)

    async def _make_one(
        self, request: GenerationRequest | InvalidRequestError, index: int, call: Call
    ) -> BatchImage | BatchError:
        try:
            if isinstance(request, InvalidRequestError):
                raise request
            making = self._engine.generate(
                request.named(call.item_id(index)),
                leaves_room=True,
                owner=call.owner,
                memory=call.memory,
            )
            del request
            image = await making
            content = await asyncio.to_thread(lambda: base64.b64encode(self._encode(image)))
        except LpwSdxlError as error:
            return self._error(ErrorAnswer.from_error(error))
        except Exception:
            logger.exception("an item of a batch failed")
            return self._error(ErrorAnswer.from_status(500))
        size, media_type = image.size, MEDIA_TYPES[image.record.request.image_format]
        return BatchImage("ok", image.seed, size.width, size.height, media_type, content.decode())

    def _error(self, answer: ErrorAnswer) -> BatchError:
        self._count_error(answer.code)
        return BatchError("error", answer.code, answer.message, answer.field)

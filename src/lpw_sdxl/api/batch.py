"""A batch: each item is read at a bounded cost, made on its own, and answered at its place."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from lpw_sdxl.api.asgi import JsonObject
from lpw_sdxl.api.error_answer import ErrorAnswer
from lpw_sdxl.api.openapi_errors import answered_codes
from lpw_sdxl.errors import InvalidRequestError, LpwSdxlError
from lpw_sdxl.imaging import MEDIA_TYPES, MediaType
from lpw_sdxl.request_limits import RequestLimits, validate_request
from lpw_sdxl.schema import GenerationRequest

if TYPE_CHECKING:
    from lpw_sdxl.engine import Engine, GeneratedImage

logger = logging.getLogger(__name__)

MAX_VALUES = 1000
"""Of an item, nested ones too; a request with all its fields and LoRAs has a tenth of that."""


def _list_codes(schema: JsonObject) -> None:
    """Put every code into a schema, when the document is written: a door may have its own."""
    codes = (code for codes in answered_codes().values() for code in codes)
    schema["enum"] = [*dict.fromkeys(codes)]


@dataclass(frozen=True)
class BatchImage:
    """An item of a batch that became an image."""

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
    """An item of a batch that failed; the others did not."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    status: Literal["error"]
    code: Annotated[str, Field(json_schema_extra=_list_codes)]
    message: str
    field: Annotated[str | None, Field(description="Of this item, such as `width`.")]


BatchAnswer = list[BatchImage | BatchError]
"""One item for each request, in their order."""


class BatchMaker:
    """Makes batches.

    Args:
        engine: makes the images.
        encode: makes an image's file; work for a thread.
        count_error: is given the code of every item's error.
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

    async def make(self, items: Sequence[object]) -> BatchAnswer:
        """Make all items together; a bad one is an error at its place."""
        making = [self._make_one(item) for item in items]
        del items  # each is let go when it is read
        return await asyncio.gather(*making)

    async def _make_one(self, item: object) -> BatchImage | BatchError:
        try:
            request = await asyncio.to_thread(parse_item, item, self._engine.limits)
            del item
            image = await self._engine.generate(request)
            content = await asyncio.to_thread(lambda: base64.b64encode(self._encode(image)))
        except LpwSdxlError as error:
            return self._error(ErrorAnswer.from_error(error))
        except Exception:
            logger.exception("an item of a batch failed")
            return self._error(ErrorAnswer.from_status(500))
        size = image.record.size
        media_type = MEDIA_TYPES[request.image_format]
        return BatchImage("ok", image.seed, size.width, size.height, media_type, content.decode())

    def _error(self, answer: ErrorAnswer) -> BatchError:
        self._count_error(answer.code)
        return BatchError("error", answer.code, answer.message, answer.field)


def parse_item(item: object, limits: RequestLimits) -> GenerationRequest:
    """Read an item as /generate reads its body.

    A million unknown fields would each become an error with a sentence, while every client waits.

    Raises:
        RequestError: it is no object, has too many values, or is no valid request.
    """
    if not isinstance(item, dict):
        raise InvalidRequestError("an item of requests is an object, as /generate takes it")
    if _has_more_values(item, MAX_VALUES):
        raise InvalidRequestError(
            f"an item of requests has more than {MAX_VALUES} values; a request needs far fewer"
        )
    return validate_request(item, limits)


def _has_more_values(value: object, bound: int) -> bool:
    """Tell whether a JSON value holds more values than that; stops at the bound."""
    waiting, count = [value], 0
    while waiting:
        inner = waiting.pop()
        if isinstance(inner, dict | list):
            count += len(inner)
            if count > bound:
                return True
            waiting += inner.values() if isinstance(inner, dict) else inner
    return False

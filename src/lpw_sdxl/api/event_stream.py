"""The answer of a stream: events of one image or of a batch, from its place in the queue on.

An image alone that is refused is answered with the refusal's status, as by /generate; whatever
fails later is an event. A client that reads slowly is waited for here, and nowhere else: the engine
leaves its reports at `StreamedImage` and goes on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from lpw_sdxl.api.asgi import Message, Receive, Scope, Send
from lpw_sdxl.api.disconnect import cancel_on_disconnect
from lpw_sdxl.api.endpoints import EVENTS, Call
from lpw_sdxl.api.error_answer import ErrorAnswer
from lpw_sdxl.api.previews import PreviewMaker
from lpw_sdxl.api.shaped_answer import LATE_CODE
from lpw_sdxl.api.stream_events import HEARTBEAT, EventWriter, NativeEvents
from lpw_sdxl.api.streamed_image import StreamedImage, Wakeup
from lpw_sdxl.errors import ClientLeftError, InvalidRequestError, LpwSdxlError
from lpw_sdxl.schema import GenerationRequest

if TYPE_CHECKING:
    from lpw_sdxl.engine import Engine, GeneratedImage

HEARTBEAT_S = 15.0  # proxies close what is silent for a minute
PLACES_S = 1.0  # how often the place of a job that waits is looked up


@dataclass(frozen=True)
class StreamTools:
    """The parts of a service that every stream uses.

    Attributes:
        engine: makes the images.
        encode: encodes an image as a file; CPU work, called in a thread.
        previews: draws previews.
        count_error: called with the code of every error that becomes an event.
    """

    engine: Engine
    encode: Callable[[GeneratedImage], bytes]
    previews: PreviewMaker
    count_error: Callable[[str], None]


@dataclass(frozen=True)
class StreamPlan:
    """The images of one stream.

    Attributes:
        items: their requests; of a batch, also refusals.
        preview_every: UNet calls from one preview to the next; 0 for none.
        is_batch: whether events have their item's index, and refusals are events.
        is_refused_by_first: whether a refusal of the first item refuses all of a batch instead.
        events: writes the events.
    """

    items: Sequence[GenerationRequest | InvalidRequestError]
    preview_every: int
    is_batch: bool = False
    is_refused_by_first: bool = False
    events: EventWriter = field(default_factory=NativeEvents)


class EventStream(Response):
    """A response that makes the images of a plan while it reports on them.

    Args:
        tools: of the service.
        call: that is answered.
        plan: the images.
    """

    def __init__(self, tools: StreamTools, call: Call, plan: StreamPlan) -> None:
        # nginx keeps an answer back without such a header.
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        super().__init__(headers=headers, media_type=EVENTS)
        del self.headers["content-length"]
        self._tools = tools
        self._call = call
        self._items = plan.items
        self._plan = replace(plan, items=())
        self._late_code = ""
        self._making: list[asyncio.Task[None]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer. The jobs end with the answer, however that ends."""
        sender = Sender(send)
        work = self._work(scope, receive, sender)
        try:
            await cancel_on_disconnect(Request(scope, receive), work)
        except ClientLeftError as error:
            if not sender.is_begun:
                await self._refuse(error)(scope, receive, send)
                return
            self._note_error(error.code)
            await sender.end(self._late_code)

    async def _work(self, scope: Scope, receive: Receive, sender: Sender) -> None:
        wakeup = Wakeup()
        async with asyncio.TaskGroup() as tasks:
            items, self._items = self._items, ()  # each task alone holds its pictures' files
            images = [self._begin(index, item, wakeup, tasks) for index, item in enumerate(items)]
            del items
            if not self._plan.is_batch or self._plan.is_refused_by_first:
                refusal = await _wait_for_acceptance(images[0], wakeup)
                if refusal is not None:
                    for task in self._making:
                        task.cancel()
                    await self._refuse(refusal)(scope, receive, sender.send)
                    return
            await sender.begin(self)
            await self._send_all(images, wakeup, sender)
            await sender.end(self._late_code)

    def _begin(
        self,
        index: int,
        item: GenerationRequest | InvalidRequestError,
        wakeup: Wakeup,
        tasks: asyncio.TaskGroup,
    ) -> StreamedImage:
        """Begin one image in a task of its own, or note its refusal."""
        from lpw_sdxl.engine.tracked_job import JobKey  # noqa: PLC0415 - it imports torch

        plan, call = self._plan, self._call
        own_id = call.item_id(index) if plan.is_batch else call.request_id
        request = item if isinstance(item, InvalidRequestError) else item.named(own_id)
        key = JobKey(call.owner, getattr(request, "request_id", None) or own_id)
        image = StreamedImage(index if plan.is_batch else None, key, wakeup.wake)
        if isinstance(request, InvalidRequestError):
            image.outcome = request
        else:
            tools = self._tools
            making = image.make(
                tools.engine,
                tools.encode,
                request,
                plan.preview_every,
                call.memory,
                events=plan.events,
            )
            self._making.append(tasks.create_task(making))
        return image

    async def _send_all(
        self, images: Sequence[StreamedImage], wakeup: Wakeup, sender: Sender
    ) -> None:
        """Send events until every image's outcome is sent."""
        looked_at = 0.0
        left = [*images]
        while left:
            looks = time.monotonic() - looked_at >= PLACES_S
            for image in left:
                async for event in self._events_of(image, looks=looks):
                    await sender.send_body(event)
            if looks:
                looked_at = time.monotonic()
            left = [image for image in left if not image.is_sent]
            silent_s = time.monotonic() - sender.sent_at
            if silent_s >= HEARTBEAT_S:
                await sender.send_body(HEARTBEAT)
                silent_s = 0.0
            is_any_waiting = any(image.is_waiting for image in left)
            rest_s = HEARTBEAT_S - silent_s
            if left:
                await wakeup.wait(min(rest_s, PLACES_S) if is_any_waiting else rest_s)

    async def _events_of(self, image: StreamedImage, *, looks: bool) -> AsyncIterator[bytes]:
        """Yield what a client does not know of an image yet.

        Args:
            image: of this stream.
            looks: whether to look up the place of an image that waits.
        """
        tools, index = self._tools, image.index
        is_first = image.is_accepted and image.known_place is None
        if is_first or (looks and image.is_waiting):
            status = tools.engine.jobs.find(image.key)
            if status is not None and (is_first or status.place not in (None, image.known_place)):
                image.known_place = status.place or 0
                if event := self._plan.events.queued(status, index):
                    yield event
        if image.has_progress and (event := await self._write_progress(image)):
            yield event
        if image.outcome is not None:
            if image.has_progress and (event := await self._write_progress(image)):
                yield event  # the last, which came while the client was waited for
            outcome, image.outcome, image.is_sent = image.outcome, None, True
            yield self._write_outcome(outcome, index)

    async def _write_progress(self, image: StreamedImage) -> bytes | None:
        """Write an image's progress; None if its client knows it."""
        preview = await self._tools.previews.make(image.take_preview())
        status = self._tools.engine.jobs.find(image.key)
        if status is None or (status.unet_calls_done <= image.known_call and preview is None):
            return None
        image.known_call = status.unet_calls_done
        return self._plan.events.progress(status, preview, image.index)

    def _write_outcome(self, outcome: bytes | Exception, index: int | None) -> bytes:
        """Write the last event of an image, if that is not done."""
        if isinstance(outcome, bytes):
            return outcome
        answer = _answer_to(outcome)
        self._note_error(answer.code)
        return self._plan.events.error(answer, index)

    def _note_error(self, code: str) -> None:
        """Note, for metrics and the log, an error that came too late for a status of its own."""
        self._late_code = code
        self._tools.count_error(code)

    def _refuse(self, error: Exception) -> Response:
        return self._call.endpoint.dialect.response(_answer_to(error))


class Sender:
    """The sending of one streamed body.

    Attributes:
        send: of the server; it waits for a client that does not read.
        is_begun: whether the client has a status.
        sent_at: when the last part went out (time.monotonic).
    """

    def __init__(self, send: Send) -> None:
        self.send = send
        self.is_begun = False
        self.sent_at = 0.0

    async def begin(self, response: Response) -> None:
        """Send a response's status and headers."""
        self.is_begun = True
        status, headers = response.status_code, response.raw_headers
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        self.sent_at = time.monotonic()

    async def send_body(self, content: bytes) -> None:
        """Send a part of the body."""
        await self.send({"type": "http.response.body", "body": content, "more_body": True})
        self.sent_at = time.monotonic()

    async def end(self, late_code: str) -> None:
        """End the body.

        Args:
            late_code: of the last error that was an event, for the log; empty if there was none.
        """
        message: Message = {"type": "http.response.body", "body": b"", "more_body": False}
        if late_code:
            message[LATE_CODE] = late_code
        await self.send(message)


async def _wait_for_acceptance(image: StreamedImage, wakeup: Wakeup) -> Exception | None:
    """Wait until an image is accepted; return the error if it is refused."""
    while not image.is_accepted and image.outcome is None:
        await wakeup.wait(HEARTBEAT_S)
    is_refused = isinstance(image.outcome, Exception) and not image.is_accepted
    return image.outcome if is_refused and isinstance(image.outcome, Exception) else None


def _answer_to(error: Exception) -> ErrorAnswer:
    if isinstance(error, LpwSdxlError):
        return ErrorAnswer.from_error(error)
    return ErrorAnswer.from_status(500)

"""The client's side: it sends a workload and records the answers, in a process of its own.

Imports nothing heavy, so that it takes little of the machine from the service that it measures.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import httpx
from workload import Arrival

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

TIMEOUT_S = 900
NO_ANSWER = 0  # in place of a status: the connection failed, or the time ran out
NO_IMAGE = 1  # in place of a status: 200, but without a PNG


@dataclass(frozen=True)
class Target:
    """A service's endpoint and the form of its requests.

    Attributes:
        path: of its endpoint.
        wrap: the list that it wants the request in, if it wants one.
        mark: bytes that an answer with an image holds.
    """

    path: str = "/generate"
    wrap: str | None = None
    mark: bytes = b"\x89PNG"

    def body(self, request: Mapping[str, object]) -> bytes:
        """Return the request as the service accepts it."""
        return json.dumps(request if self.wrap is None else {self.wrap: [request]}).encode()


@dataclass(frozen=True)
class Answer:
    """The outcome of one request.

    Attributes:
        status: HTTP's, or NO_ANSWER or NO_IMAGE.
        sent_s: when it was sent, seconds from the start.
        seconds: from when it was due until the whole answer was here.
        retry_after_s: what a refusal asked for.
    """

    status: int
    sent_s: float
    seconds: float
    retry_after_s: float | None = None

    @property
    def done_s(self) -> float:
        """Return the time of the answer, seconds from the start."""
        return self.sent_s + self.seconds


class Client:
    """A client of one endpoint with any number of requests at once; an async context."""

    def __init__(self, url: str, target: Target = Target()) -> None:
        self.target = target
        self.started = time.perf_counter()
        unlimited = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        self._http = httpx.AsyncClient(base_url=url, limits=unlimited, timeout=TIMEOUT_S)

    async def __aenter__(self) -> Client:
        """Start the clock."""
        self.started = time.perf_counter()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close all connections."""
        await self._http.aclose()

    @property
    def now_s(self) -> float:
        """Return the seconds since the start."""
        return time.perf_counter() - self.started

    async def send(self, request: Mapping[str, object], due_s: float | None = None) -> Answer:
        """Send a request and read its answer; the time counts from when it was due."""
        sent_s = self.now_s if due_s is None else due_s
        try:
            answer = await self._http.post(
                self.target.path,
                content=self.target.body(request),
                headers={"content-type": "application/json"},
            )
        except httpx.HTTPError:
            return Answer(NO_ANSWER, sent_s, self.now_s - sent_s)
        has_image = answer.status_code != 200 or self.target.mark in answer.content[:64]
        retry_after = answer.headers.get("retry-after")
        return Answer(
            answer.status_code if has_image else NO_IMAGE,
            sent_s,
            self.now_s - sent_s,
            None if retry_after is None else float(retry_after),
        )


async def arrive(client: Client, arrivals: Iterable[Arrival]) -> list[asyncio.Task[Answer]]:
    """Start each request when it is due, independently of the others; return the tasks."""
    tasks = []
    for arrival in arrivals:
        await asyncio.sleep(max(0.0, arrival.at_s - client.now_s))
        tasks.append(asyncio.create_task(client.send(arrival.request, arrival.at_s)))
    return tasks


async def keep_in_flight(
    client: Client, requests: Iterator[Mapping[str, object]], count: int, until: Callable[[], bool]
) -> list[Answer]:
    """Keep so many requests in flight until a condition holds; then await those in flight."""
    answers: list[Answer] = []

    async def one_after_the_other() -> None:
        while not until():
            answers.append(await client.send(next(requests)))

    await asyncio.gather(*(one_after_the_other() for _ in range(count)))
    return answers


def open_loop(url: str, target: Target, arrivals: Sequence[Arrival]) -> list[Answer]:
    """Send all arrivals when they are due; for a process of its own."""

    async def play() -> list[Answer]:
        async with Client(url, target) as client:
            return await asyncio.gather(*await arrive(client, arrivals))

    return asyncio.run(play())


def closed_loop(
    url: str, target: Target, requests: Sequence[Mapping[str, object]], count: int
) -> list[Answer]:
    """Send all requests, so many at a time; for a process of its own."""

    async def play() -> list[Answer]:
        waiting = list(reversed(requests))
        stream = iter(waiting.pop, None)
        async with Client(url, target) as client:
            return await keep_in_flight(client, stream, count, lambda: not waiting)

    return asyncio.run(play())


class OwnProcess:
    """A process beside the benchmark's that runs functions of this folder's modules."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(1, mp_context=context)

    def begin(
        self,
        work: Callable[Parameters, Result],
        *args: Parameters.args,
        **kwargs: Parameters.kwargs,
    ) -> Future[Result]:
        """Start a function."""
        return self._pool.submit(work, *args, **kwargs)

    def run(
        self,
        work: Callable[Parameters, Result],
        *args: Parameters.args,
        **kwargs: Parameters.kwargs,
    ) -> Result:
        """Run a function and return its result."""
        return self.begin(work, *args, **kwargs).result()

    def close(self) -> None:
        """End the process."""
        self._pool.shutdown()


@contextmanager
def own_process() -> Iterator[OwnProcess]:
    """Run a process until the block ends; it is ready when the block begins."""
    process = OwnProcess()
    try:
        process.run(time.sleep, 0)
        yield process
    finally:
        process.close()

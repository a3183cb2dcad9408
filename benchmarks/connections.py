"""Who is served while thousands of connections hold on to the service and send next to nothing?

A `bentoml serve` that may have 1,024 file descriptors (`ulimit -n 1024`). 2,000 clients send half a
request's head, 1,000 send one ping and keep their connections, 300 announce a body and send a byte
of it a second; each that is closed comes again after five seconds. Meanwhile one client pings
`GET /livez` every 50 ms and another makes one small image after the other, each on a new
connection. Both did the same before, for comparison.

Bar: every ping and every image has its 200.

    python benchmarks/connections.py [--heads 2000] [--idle 1000] [--bodies 300] [--seconds 90]
        [--descriptors 1024] [--size PIXELS] [--model DIRECTORY] [--threads 1] [--quick]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil
from common import percentile, service_surroundings, write_result
from load import OwnProcess, own_process
from services import OtherWork, Running, model_to_serve, our_service, running

AGAIN_S = 5.0
PING_EVERY_S = 0.05
RAMP_S = 5.0
GIVE_UP_S = 60.0
CLOSED = "closed"  # in place of a status: without an answer
HALF_A_HEAD = b"GET /livez HTTP/1.1\r\nhost: a\r\nx-"
HEAD = b"%s HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%s\r\n"


@dataclass(frozen=True)
class Crowd:
    """The clients that hold on: how many of each kind, and for how long (seconds)."""

    heads: int
    idle: int
    bodies: int
    seconds: float


@dataclass(frozen=True)
class Held:
    """What became of a crowd.

    Attributes:
        connections: how many connections each kind made.
        outcomes: of the slow bodies: status or `CLOSED`, with their number.
        body_seconds: how long each slow body's connection lasted.
    """

    connections: dict[str, int]
    outcomes: dict[str, int]
    body_seconds: list[float]


@dataclass(frozen=True)
class Served:
    """What an ordinary client had: seconds of each answer, and statuses with their number."""

    seconds: list[float]
    statuses: dict[str, int]


def hold(url: str, crowd: Crowd) -> Held:
    """Play the crowd; for a process of its own."""
    return asyncio.run(_hold(url, crowd))


async def _hold(url: str, crowd: Crowd) -> Held:
    until = time.perf_counter() + crowd.seconds
    made: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    body_seconds: list[float] = []

    async def again(kind: str, number: int, of: int, stay: Callable[[], Awaitable[None]]) -> None:
        await asyncio.sleep(RAMP_S * number / of)
        while time.perf_counter() < until:
            made[kind] += 1
            with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                async with asyncio.timeout(max(0.0, until - time.perf_counter())):
                    await stay()
            await asyncio.sleep(AGAIN_S)

    async def half_a_head() -> None:
        async with connection(url) as (reader, writer):
            writer.write(HALF_A_HEAD)
            await reader.read()

    async def idle() -> None:
        async with connection(url) as (reader, writer):
            writer.write(HEAD % (b"GET /livez", 0, b""))
            await reader.read()  # until the service closes it

    async def slow_body() -> None:
        started = time.perf_counter()
        async with connection(url) as (reader, writer):
            writer.write(HEAD % (b"POST /generate", 10_000, b""))
            sending = asyncio.create_task(_trickle(writer))
            try:
                answer = await reader.read()
            except ConnectionError:
                answer = b""
            finally:
                sending.cancel()
        outcomes[answer.split()[1].decode() if answer else CLOSED] += 1
        body_seconds.append(time.perf_counter() - started)

    kinds = (("heads", half_a_head), ("idle", idle), ("bodies", slow_body))
    async with asyncio.TaskGroup() as group:
        for kind, stay in kinds:
            count = getattr(crowd, kind)
            for number in range(count):
                group.create_task(again(kind, number, count, stay))
    return Held(dict(made), dict(outcomes), body_seconds)


async def _trickle(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b" ")
        await asyncio.sleep(1)


@contextlib.asynccontextmanager
async def connection(
    url: str,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


def ask(url: str, words: str, body: bytes, every_s: float, seconds: float) -> Served:
    """Send requests one after the other, each on a new connection; for a process of its own."""
    return asyncio.run(_ask(url, words, body, every_s, seconds))


async def _ask(url: str, words: str, body: bytes, every_s: float, seconds: float) -> Served:
    took: list[float] = []
    statuses: Counter[str] = Counter()
    head = HEAD % (words.encode(), len(body), b"connection: close\r\n")
    started = time.perf_counter()
    while time.perf_counter() - started < seconds:
        sent = time.perf_counter()
        answer = b""
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(GIVE_UP_S), connection(url) as (reader, writer):
                writer.write(head + body)
                answer = await reader.read()
        statuses[answer.split()[1].decode() if answer else CLOSED] += 1
        took.append(time.perf_counter() - sent)
        await asyncio.sleep(max(0.0, sent + every_s - time.perf_counter()))
    return Served(took, dict(statuses))


def serve_both(url: str, clients: list[OwnProcess], size: int, seconds: float) -> list[Served]:
    image = {"prompt": "a fox", "num_inference_steps": 4, "width": size, "height": size}
    pinger, maker = clients
    pings = pinger.begin(ask, url, "GET /livez", b"", PING_EVERY_S, seconds)
    images = maker.begin(ask, url, "POST /generate", json.dumps(image).encode(), 0.0, seconds)
    return [pings.result(), images.result()]


def summary(served: Served) -> dict[str, object]:
    milliseconds = [second * 1000 for second in served.seconds]
    return {
        "statuses": served.statuses,
        "p50_ms": round(percentile(milliseconds, 50), 1),
        "p99_ms": round(percentile(milliseconds, 99), 1),
        "max_ms": round(max(milliseconds), 1),
    }


def measure(server: Running, options: argparse.Namespace) -> dict[str, object]:
    """Serve two ordinary clients alone, then beside the crowd."""
    worker = psutil.Process(server.worker)
    crowd = Crowd(options.heads, options.idle, options.bodies, options.seconds + 2 * RAMP_S)
    with contextlib.ExitStack() as stack:
        holder, *clients = (stack.enter_context(own_process()) for _ in range(3))
        serve_both(server.url, clients, options.size, 3)
        alone = serve_both(server.url, clients, options.size, options.seconds / 3)
        memory, descriptors = worker.memory_info().rss, worker.num_fds()
        lines = len(server.log_file.read_text().splitlines())
        holding = holder.begin(hold, server.url, crowd)
        time.sleep(RAMP_S)
        beside = serve_both(server.url, clients, options.size, options.seconds)
        most = worker.memory_info().rss, worker.num_fds()
        held = holding.result()
    # An image has two lines of its own.
    warnings = [
        line
        for line in server.log_file.read_text().splitlines()[lines:]
        if "WARNING" in line or "ERROR" in line or "Traceback" in line
    ]
    names = ("GET /livez", "POST /generate")
    return {
        "crowd": dataclasses.asdict(crowd),
        "descriptors": options.descriptors,
        "alone": dict(zip(names, map(summary, alone), strict=True)),
        "beside_the_crowd": dict(zip(names, map(summary, beside), strict=True)),
        "connections_of_the_crowd": held.connections,
        "slow_bodies": {
            "outcomes": held.outcomes,
            "seconds_p50": round(percentile(held.body_seconds, 50), 1),
        },
        "worker": {
            "descriptors_before_and_beside": [descriptors, most[1]],
            "resident_mb_before_and_beside": [memory // 2**20, most[0] // 2**20],
            "warnings": warnings,
        },
        "bars_met": {
            "every ping and every image has its 200": all(
                set(served.statuses) == {"200"} for served in beside
            )
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--heads", type=int, default=2000, help="clients with half a head")
    parser.add_argument("--idle", type=int, default=1000, help="clients with an idle connection")
    parser.add_argument("--bodies", type=int, default=300, help="clients with a slow body")
    parser.add_argument("--seconds", type=float, default=90.0, help="beside the crowd")
    parser.add_argument("--descriptors", type=int, default=1024, help="the service's ulimit -n")
    parser.add_argument("--size", type=int, default=64, help="pixels, both sides")
    parser.add_argument("--model", type=Path, help="model directory; the demo model by default")
    parser.add_argument("--threads", type=int, default=1, help="OMP_NUM_THREADS of the service")
    parser.add_argument("--quick", action="store_true", help="15 s; no result is kept")
    options = parser.parse_args()
    if options.quick:
        options.seconds = 15.0
    with model_to_serve(options.model) as model:
        service = dataclasses.replace(our_service(model), descriptors=options.descriptors)
        with running(service, model, options.threads) as server:
            device = str(server.ask("/info")["device"])
            others = OtherWork()
            result = measure(server, options) | {"others_share_of_cores": others.share()}
    about = service_surroundings(device, options.threads)
    write_result("connections", about | result, keep=not options.quick)


if __name__ == "__main__":
    main()

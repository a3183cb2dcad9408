"""How soon does the service answer a ping under full load?

`GET /livez` every 20 ms and `POST /inspect_prompt` every 100 ms, each on a connection that is kept
open and from a process of its own, while sixteen mixed requests are always in flight; and the same
while the service is idle. Every ping is timed from when it was due: a stall counts for each ping
that it delayed, not once.

Bar: p99 of /livez under 50 ms.

    python benchmarks/ping.py [--rounds 3] [--seconds 60] [--size PIXELS] [--model DIRECTORY]
        [--threads 2] [--quick]
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import itertools
import json
import statistics
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from common import percentile, service_surroundings, write_result
from load import Client, OwnProcess, Target, closed_loop, keep_in_flight, own_process
from services import OtherWork, Running, model_to_serve, our_service, running
from workload import Stream, requests

IN_FLIGHT = 16
RAMP_S = 3
IDLE_SHARE = 1 / 3  # of the seconds under load
MAX_P99_MS = 50
INSPECTION = {"prompt": "a (red:1.3) fox in deep snow, " * 10, "negative_prompt": "blurry"}


@dataclass(frozen=True)
class Ping:
    """A ping, sent over and over.

    Attributes:
        method: HTTP's.
        path: of the endpoint.
        every_s: seconds between two.
        body: JSON, if any.
    """

    method: str
    path: str
    every_s: float
    body: Mapping[str, str] | None = None


PINGS = (
    Ping("GET", "/livez", 0.02),
    Ping("POST", "/inspect_prompt", 0.1, INSPECTION),
)
Milliseconds = dict[str, list[float]]


def ping(url: str, what: Ping, seconds: float) -> list[float]:
    """Ping on one connection; return milliseconds from when each was due. For its own process.

    Raises:
        RuntimeError: if an answer is not 200.
    """
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    body = None if what.body is None else json.dumps(what.body)
    took = []
    started = time.perf_counter()
    for number in range(round(seconds / what.every_s)):
        due = started + number * what.every_s
        time.sleep(max(0.0, due - time.perf_counter()))
        connection.request(what.method, what.path, body, {"content-type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{what.path} answered {answer.status}")
        took.append((time.perf_counter() - due) * 1000)
    connection.close()
    return took


def keep_busy(url: str, size: int, seed: int, seconds: float) -> dict[int, int]:
    """Keep mixed requests in flight; count answers by status. For a process of its own."""

    async def play() -> dict[int, int]:
        drawn = requests(Stream.MIXED, size, seed)
        async with Client(url) as client:
            answers = await keep_in_flight(client, drawn, IN_FLIGHT, lambda: client.now_s > seconds)
        return dict(Counter(answer.status for answer in answers))

    return asyncio.run(play())


def ping_all(server: Running, pingers: list[OwnProcess], seconds: float) -> Milliseconds:
    pings: list[Future[list[float]]] = [
        process.begin(ping, server.url, what, seconds)
        for process, what in zip(pingers, PINGS, strict=True)
    ]
    return {what.path: took.result() for what, took in zip(PINGS, pings, strict=True)}


def summary(rounds: list[Milliseconds], path: str) -> dict[str, object]:
    p99s = [percentile(took[path], 99) for took in rounds]
    return {
        "pings": sum(len(took[path]) for took in rounds),
        "p50": round(statistics.median(percentile(took[path], 50) for took in rounds), 1),
        "p99": round(statistics.median(p99s), 1),
        "p99 of each round": [round(p99, 1) for p99 in p99s],
        "max": round(max(max(took[path]) for took in rounds), 1),
    }


def measure(server: Running, options: argparse.Namespace) -> dict[str, object]:
    """Ping idle and busy in turn."""
    idle: list[Milliseconds] = []
    busy: list[Milliseconds] = []
    statuses: Counter[int] = Counter()
    with ExitStack() as stack:
        client, *pingers = (stack.enter_context(own_process()) for _ in range(1 + len(PINGS)))
        warm_up = list(itertools.islice(requests(Stream.MIXED, options.size, 0), IN_FLIGHT))
        client.run(closed_loop, server.url, Target(), warm_up, IN_FLIGHT)
        ping_all(server, pingers, seconds=1)
        for number in range(1, options.rounds + 1):
            idle.append(ping_all(server, pingers, options.seconds * IDLE_SHARE))
            work_s = options.seconds + 2 * RAMP_S
            work = client.begin(keep_busy, server.url, options.size, number, work_s)
            time.sleep(RAMP_S)
            busy.append(ping_all(server, pingers, options.seconds))
            statuses.update(work.result())
            path = PINGS[0].path
            both = (round(percentile(took[-1][path], 99), 1) for took in (idle, busy))
            print(
                "round {}: p99 of {}: idle {} ms, busy {} ms".format(number, path, *both),
                flush=True,
            )
    pinged = {what.path: summary(busy, what.path) for what in PINGS}
    return {
        "in_flight": IN_FLIGHT,
        "seconds": options.seconds,
        "rounds": options.rounds,
        "busy_ms": pinged,
        "idle_ms": {what.path: summary(idle, what.path) for what in PINGS},
        "images_meanwhile": dict(statuses),
        "bars_met": {
            "p99 of /livez under 50 ms": float(str(pinged["/livez"]["p99"])) < MAX_P99_MS,
            "every image was made": set(statuses) == {200},
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=60.0, help="of one round under load")
    parser.add_argument("--size", type=int, default=128, help="pixels, both sides")
    parser.add_argument("--model", type=Path, help="model directory; the demo model by default")
    parser.add_argument("--threads", type=int, default=2, help="OMP_NUM_THREADS of the service")
    parser.add_argument("--quick", action="store_true", help="one round; no result is kept")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 1, 20.0
    with (
        model_to_serve(options.model) as model,
        running(our_service(model), model, options.threads) as server,
    ):
        device = str(server.ask("/info")["device"])
        others = OtherWork()
        result = measure(server, options) | {"others_share_of_cores": others.share()}
    about = service_surroundings(device, options.threads)
    write_result("ping", about | result, keep=not options.quick)


if __name__ == "__main__":
    main()

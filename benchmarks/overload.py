"""What does ten times too much do to the service, for two minutes?

A real `bentoml serve` with a short queue. Its capacity is measured first; then requests arrive ten
times as fast, whatever the answers. One client in five waits as Retry-After requires and comes
again; the others never wait. The moment the flood stops, a lone client asks until it is served, and
until it is served as quickly as before the flood. At last a crowd of four queues' worth comes at
once and obeys Retry-After: how soon are all accepted?

Bars: 200 and 429 only, refusals within 100 ms (p99), served again within 10 s, memory as before.

    python benchmarks/overload.py [--seconds 120] [--queue 16] [--size PIXELS] [--model DIRECTORY]
        [--threads 2] [--quick]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import psutil
from common import percentile, service_surroundings, write_result
from load import Answer, Client, OwnProcess, Target, closed_loop, own_process
from services import OtherWork, Running, model_to_serve, our_service, running
from workload import Arrival, Stream, poisson, requests

TIMES = 10
POLITE_ONE_IN = 5
CROWD_QUEUES = 4
DEFAULT_WAIT_S = 1.0  # if a refusal has no Retry-After
PROBE_AGAIN_S = 0.05
PROBES_IN_A_ROW = 3
NEAR_BASE = 1.5  # multiple of the latency of a lone request before the flood
GIVE_UP_S = 120
SETTLE_S = 5
MAX_REFUSAL_S = 0.1
MAX_RECOVERY_S = 10
MAX_GROWTH = 1.05


@dataclass(frozen=True)
class Recovery:
    """The recovery as a lone client measured it; seconds from the end of the flood.

    Attributes:
        served_s: until it had its first image; None if it never had one.
        base_s: until it had the first of three in a row as quickly as before.
        answers: all that it received.
    """

    served_s: float | None
    base_s: float | None
    answers: list[Answer]


@dataclass(frozen=True)
class Flood:
    """The answers to a flood's clients: those that never wait, and each try of the others."""

    stubborn: list[Answer]
    polite: list[list[Answer]]
    recovery: Recovery


def probe(size: int) -> dict[str, object]:
    """Build the request of the lone client; always the same work."""
    return {"prompt": "a lone fox", "num_inference_steps": 20, "width": size, "height": size}


def flood(url: str, arrivals: Sequence[Arrival], lone: dict[str, object], base_s: float) -> Flood:
    """Send the flood, then the lone client's requests; for a process of its own."""

    async def play() -> Flood:
        async with Client(url) as client:
            stubborn, polite = [], []
            end_s = arrivals[-1].at_s
            for number, arrival in enumerate(arrivals):
                await asyncio.sleep(max(0.0, arrival.at_s - client.now_s))
                if number % POLITE_ONE_IN:
                    send = client.send(arrival.request, arrival.at_s)
                    stubborn.append(asyncio.create_task(send))
                else:
                    come = as_told(client, arrival, end_s)
                    polite.append(asyncio.create_task(come))
            recovery = await recover(client, lone, base_s)
            return Flood(await asyncio.gather(*stubborn), await asyncio.gather(*polite), recovery)

    return asyncio.run(play())


async def as_told(client: Client, arrival: Arrival, end_s: float) -> list[Answer]:
    """Send a request, again after each Retry-After until the end; return every answer."""
    answers = [await client.send(arrival.request, arrival.at_s)]
    while answers[-1].status == 429:
        wait_s = answers[-1].retry_after_s or DEFAULT_WAIT_S
        if client.now_s + wait_s > end_s:
            break
        await asyncio.sleep(wait_s)
        answers.append(await client.send(arrival.request))
    return answers


async def recover(client: Client, lone: dict[str, object], base_s: float) -> Recovery:
    """Send single requests one after another until the service is as fast as before."""
    stopped_s = client.now_s
    served_s = None
    answers: list[Answer] = []
    near: list[Answer] = []
    while len(near) < PROBES_IN_A_ROW and client.now_s < stopped_s + GIVE_UP_S:
        answers.append(await client.send(lone))
        if answers[-1].status != 200:
            await asyncio.sleep(PROBE_AGAIN_S)
            continue
        served_s = answers[-1].done_s - stopped_s if served_s is None else served_s
        near = [*near, answers[-1]] if answers[-1].seconds <= NEAR_BASE * base_s else []
    is_back = len(near) == PROBES_IN_A_ROW
    return Recovery(served_s, near[0].done_s - stopped_s if is_back else None, answers)


def crowd(url: str, drawn: Sequence[dict[str, object]]) -> list[list[Answer]]:
    """Send a crowd's requests at once, each obeying Retry-After; for a process of its own."""

    async def play() -> list[list[Answer]]:
        async with Client(url) as client:
            come = (as_told(client, Arrival(0.0, request), GIVE_UP_S) for request in drawn)
            return await asyncio.gather(*come)

    return asyncio.run(play())


def watch(process: int, work: Future[Flood]) -> list[float]:
    """Sample a process's resident memory, MB, every half second until the work is done."""
    samples = []
    while not work.done():
        samples.append(resident_mb(process))
        time.sleep(0.5)
    return samples


def resident_mb(process: int) -> float:
    return float(psutil.Process(process).memory_info().rss) / 1e6


def milliseconds(answers: Sequence[Answer]) -> dict[str, float]:
    seconds = [answer.seconds for answer in answers]
    return {
        "p50": round(percentile(seconds, 50) * 1000, 1),
        "p99": round(percentile(seconds, 99) * 1000, 1),
        "max": round(percentile(seconds, 100) * 1000, 1),
    }


def count(answers: Iterable[Answer]) -> dict[int, int]:
    return dict(sorted(Counter(answer.status for answer in answers).items()))


def honesty(tries: Sequence[Sequence[Answer]]) -> dict[str, object]:
    """Summarise the tries of clients that obey Retry-After."""
    returned = [answers for answers in tries if len(answers) > 1]
    waits_s = [a.retry_after_s for answers in tries for a in answers if a.status == 429]
    return {
        "clients": len(tries),
        "refused at first, came again": len(returned),
        "share let in on the first return": _share(returned, lambda a: a[1].status == 200),
        "share let in at last": _share(returned, lambda a: a[-1].status == 200),
        "returns p95": percentile([len(answers) - 1 for answers in returned], 95),
        "refusals without Retry-After": sum(seconds is None for seconds in waits_s),
        "Retry-After p50, s": percentile([seconds or 0.0 for seconds in waits_s], 50),
    }


def measure(server: Running, client: OwnProcess, options: argparse.Namespace) -> dict[str, object]:
    """Measure calm, flood, recovery and crowd."""
    drawn = requests(Stream.MIXED, options.size, seed=1)
    lone = probe(options.size)

    def in_flight(wanted: Iterable[dict[str, object]], clients: int) -> list[Answer]:
        return client.run(closed_loop, server.url, Target(), list(wanted), clients)

    in_flight(itertools.islice(drawn, options.queue), options.queue)
    capacity_answers = in_flight(itertools.islice(drawn, 2 * options.queue), options.queue)
    capacity = len(capacity_answers) / max(answer.done_s for answer in capacity_answers)
    base_s = statistics.median(answer.seconds for answer in in_flight([lone] * 7, 1))
    print(f"capacity {capacity:.2f} images/s, a lone request {base_s:.2f} s", flush=True)

    worker = server.worker
    before_mb = resident_mb(worker)
    arrivals = poisson(drawn, TIMES * capacity, round(TIMES * capacity * options.seconds), seed=2)
    print(f"{len(arrivals)} requests in {options.seconds} s ...", flush=True)
    running_flood = client.begin(flood, server.url, arrivals, lone, base_s)
    flood_mb = watch(worker, running_flood)
    seen = running_flood.result()
    time.sleep(SETTLE_S)
    after_mb = resident_mb(worker)
    is_same_worker = server.worker == worker
    print(f"memory {before_mb:.0f} MB before, {after_mb:.0f} MB after; a crowd ...", flush=True)
    tries = client.run(
        crowd, server.url, list(itertools.islice(drawn, CROWD_QUEUES * options.queue))
    )

    flooded = [*seen.stubborn, *itertools.chain(*seen.polite), *seen.recovery.answers]
    statuses = count([*flooded, *itertools.chain(*tries)])
    refusals = milliseconds([answer for answer in flooded if answer.status == 429])
    served_s, crowd_s = seen.recovery.served_s, max(a[-1].done_s for a in tries)
    return {
        "queue": options.queue,
        "seconds": options.seconds,
        "capacity_images_per_second": round(capacity, 3),
        "arrivals_per_second": round(TIMES * capacity, 1),
        "statuses": statuses,
        "refusal_ms": refusals,
        "recovery_seconds": {
            "until a lone request has its image": _round(served_s),
            "until it is as quick as before": _round(seen.recovery.base_s),
            "a lone request before": round(base_s, 3),
            "a full queue at capacity": round(options.queue / capacity, 2),
        },
        "worker_mb": {
            "before": round(before_mb),
            "most during the flood": round(max(flood_mb)),
            "after": round(after_mb),
        },
        "retry_after_in_the_flood": honesty(seen.polite),
        "retry_after_in_the_crowd": honesty(tries)
        | {
            "seconds until all are served": round(crowd_s, 1),
            "of them needed at capacity": round(len(tries) / capacity, 1),
        },
        "bars_met": {
            "200 and 429 only": set(statuses) <= {200, 429} and is_same_worker,
            "refusals within 100 ms (p99)": refusals["p99"] <= MAX_REFUSAL_S * 1000,
            "served again within 10 s": served_s is not None and served_s <= MAX_RECOVERY_S,
            "memory as before": after_mb <= MAX_GROWTH * before_mb,
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=120.0, help="of flood")
    parser.add_argument("--queue", type=int, default=16, help="LPW_SDXL_MAX_QUEUED_JOBS")
    parser.add_argument("--size", type=int, default=128, help="pixels, both sides")
    parser.add_argument("--model", type=Path, help="model directory; the demo model by default")
    parser.add_argument("--threads", type=int, default=2, help="OMP_NUM_THREADS of the service")
    parser.add_argument("--quick", action="store_true", help="15 s of flood; no result is kept")
    options = parser.parse_args()
    if options.quick:
        options.seconds = 15.0
    with model_to_serve(options.model) as model, own_process() as client:
        service = our_service(model, max_queued_jobs=options.queue)
        with running(service, model, options.threads) as server:
            device = str(server.ask("/info")["device"])
            others = OtherWork()
            result = measure(server, client, options) | {"others_share_of_cores": others.share()}
    about = service_surroundings(device, options.threads)
    write_result("overload", about | result, keep=not options.quick)


def _round(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 2)


def _share(tries: Sequence[Sequence[Answer]], is_so: Callable[[Sequence[Answer]], bool]) -> float:
    return round(sum(map(is_so, tries)) / len(tries), 3) if tries else float("nan")


if __name__ == "__main__":
    main()

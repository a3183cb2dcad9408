"""What do progress and previews cost 64 streams at once, and what do closed ones leave behind?

64 images of 20 steps at a time: as streams with a preview every 5 calls, as streams without, and by
/generate, in turn. The service's CPU seconds an image; how long after its step a progress event is
here, in a process of the client's own; and `GET /livez` meanwhile. Then 200 streams are closed at
random moments, and what is left is counted.

Bars: CPU seconds an image with previews at most 1.05 of those without; p95 of an event 200 ms after
its step; p99 of /livez under 50 ms; nothing left.

    python benchmarks/stream.py [--rounds 5] [--streams 64] [--closed 200] [--size PIXELS]
        [--model DIRECTORY] [--threads 1] [--quick]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

import psutil
from common import HERE, percentile, service_surroundings, write_result
from load import OwnProcess, own_process
from ping import Ping, ping
from services import OtherWork, Running, cpu_seconds, model_to_serve, our_service, running

STEPS = 20
PREVIEW_EVERY = 5
PREVIEWS, NO_PREVIEWS, PLAIN = "streams with previews", "streams without", "/generate"
ENDPOINTS = {PREVIEWS: "/generate_stream", NO_PREVIEWS: "/generate_stream", PLAIN: "/generate"}
LIVEZ = Ping("GET", "/livez", 0.05)
MAX_RATIO, MAX_P95_MS, MAX_P99_MS = 1.05, 200, 50
LARGEST_LINE = 2**24


@dataclass(frozen=True)
class Seen:
    """A progress event as the client had it.

    Attributes:
        request_id: of its job.
        call: UNet calls done.
        at_s: when it was here, time.monotonic.
        has_preview: whether it had one.
    """

    request_id: str
    call: int
    at_s: float
    has_preview: bool


async def _send(url: str, path: str, body: dict[str, object]) -> asyncio.StreamReader:
    """Send a request; return what its answer is read from, and keep the connection with it."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(
        address.hostname, address.port, limit=LARGEST_LINE
    )
    content = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
        f"content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
    )
    writer.write(head.encode() + content)
    reader.writer = writer  # type: ignore[attr-defined]
    return reader


async def _one(url: str, way: str, size: int, name: str) -> list[Seen]:
    """Make one image and note its events.

    Raises:
        RuntimeError: if there was no image.
    """
    body: dict[str, object] = {
        "prompt": "a large red circle on a white background",
        "num_inference_steps": STEPS,
        "request_id": name,
        **({} if size == 0 else {"width": size, "height": size}),
        **({"preview_every": PREVIEW_EVERY} if way == PREVIEWS else {}),
    }
    reader = await _send(url, ENDPOINTS[way], body)
    seen: list[Seen] = []
    has_image = False
    event = b""
    while line := await reader.readline():
        if line.startswith(b"event: "):
            event = line
        elif line.startswith(b"data: ") and b"progress" in event:
            now = time.monotonic()
            data = json.loads(line[6:])
            seen.append(Seen(name, data["call"], now, data["preview"] is not None))
        has_image |= b"image" in event or b"image/png" in line
    reader.writer.close()  # type: ignore[attr-defined]
    if not has_image:
        raise RuntimeError(f"{name} got no image")
    return seen


def make_all(url: str, way: str, size: int, names: Sequence[str]) -> list[Seen]:
    """Make all images at once. For a process of its own."""

    async def play() -> list[Seen]:
        every = await asyncio.gather(*(_one(url, way, size, name) for name in names))
        return [seen for one in every for seen in one]

    return asyncio.run(play())


def close_some(url: str, size: int, count: int, at_once: int, longest_s: float) -> None:
    """Begin streams and close each at a random moment. For a process of its own."""

    async def one(free: asyncio.Semaphore, rng: random.Random) -> None:
        async with free:
            body: dict[str, object] = {"prompt": "a", "num_inference_steps": STEPS}
            body |= {"preview_every": 1} | ({} if size == 0 else {"width": size, "height": size})
            reader = await _send(url, "/generate_stream", body)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(rng.uniform(0, longest_s)):
                    await reader.read(-1)
            reader.writer.transport.abort()  # type: ignore[attr-defined]

    async def play() -> None:
        rng, free = random.Random(7), asyncio.Semaphore(at_once)
        await asyncio.gather(*(one(free, rng) for _ in range(count)))

    asyncio.run(play())


@dataclass(frozen=True)
class Left:
    """What a worker holds; previews in bytes, all of its memory in megabytes."""

    tasks: int
    jobs: int
    preview_bytes: int
    files: int
    threads: int
    megabytes: int


def count_left(server: Running, steps: Path) -> Left:
    worker = psutil.Process(server.worker)
    file = steps.with_suffix(".left")
    file.unlink(missing_ok=True)
    os.kill(worker.pid, signal.SIGUSR2)
    while not (file.exists() and file.read_text().endswith("\n")):
        time.sleep(0.05)
    tasks, jobs, preview_bytes = map(int, file.read_text().split())
    megabytes = worker.memory_info().rss // 2**20
    return Left(tasks, jobs, preview_bytes, worker.num_fds(), worker.num_threads(), megabytes)


def wait_until_idle(server: Running) -> float:
    """Return the seconds until no job is left."""
    started = time.monotonic()
    while server.ask("/info")["engine"]["queued_jobs"]:  # type: ignore[index]
        time.sleep(0.01)
    return time.monotonic() - started


def step_times(steps: Path) -> dict[tuple[str, int], float]:
    """Read when each call of each job was done."""
    times: dict[tuple[str, int], float] = {}
    for line in steps.read_text().splitlines():
        at_s, name, call = line.split()
        times[name, int(call)] = float(at_s)
    return times


def measure(server: Running, steps: Path, options: argparse.Namespace) -> dict[str, object]:
    """Measure the ways in turn, in another order each round; then close streams."""
    cpu: dict[str, list[float]] = {way: [] for way in ENDPOINTS}
    delays: dict[str, list[float]] = {PREVIEWS: [], NO_PREVIEWS: []}
    pings: list[float] = []
    previews = 0
    worker = psutil.Process(server.worker)
    with own_process() as client, own_process() as pinger:
        warm = [f"warm-{n}" for n in range(options.streams)]
        client.run(make_all, server.url, PREVIEWS, options.size, warm)
        for number in range(options.rounds):
            ways = [*ENDPOINTS]
            for way in ways[number % 3 :] + ways[: number % 3]:
                names = [
                    f"{way.replace(' ', '-').strip('/')}.{number}.{n}"
                    for n in range(options.streams)
                ]
                before = cpu_seconds(worker)
                making = client.begin(make_all, server.url, way, options.size, names)
                took = _ping_until(pinger, server.url, making.done)  # a part of each way's CPU time
                pings += took if way == PREVIEWS else []
                seen = making.result()
                cpu[way].append((cpu_seconds(worker) - before) / options.streams)
                if way in delays:
                    times = step_times(steps)
                    delays[way] += [
                        (one.at_s - times[one.request_id, one.call]) * 1000 for one in seen
                    ]
                previews += sum(one.has_preview for one in seen)
            print({way: round(values[-1], 4) for way, values in cpu.items()}, flush=True)
        left, idle_s = close_all(server, steps, client, options)
    ratios = [a / b for a, b in zip(cpu[PREVIEWS], cpu[NO_PREVIEWS], strict=True)]
    p95s = {way: round(percentile(values, 95), 1) for way, values in delays.items()}
    p99 = round(percentile(pings, 99), 1)
    ratio = round(statistics.median(ratios), 3)
    return {
        "streams": options.streams,
        "rounds": options.rounds,
        "cpu_seconds_an_image": {w: round(statistics.median(v), 4) for w, v in cpu.items()},
        "ratios": [round(one, 3) for one in ratios],
        "median_ratio": ratio,
        "previews_an_image": round(previews / options.streams / options.rounds, 1),
        "event_p95_ms": p95s,
        "livez_p99_ms": p99,
        "closed": options.closed,
        "seconds_until_idle": round(idle_s, 3),
        "left": {when: vars(one) for when, one in left.items()},
        "bars_met": {
            "CPU with previews at most 1.05": ratio <= MAX_RATIO,
            "p95 of an event 200 ms": p95s[PREVIEWS] <= MAX_P95_MS,
            "p99 of /livez under 50 ms": p99 < MAX_P99_MS,
            "nothing left": _is_clean(left["before"], left["after"]),
        },
    }


def close_all(
    server: Running, steps: Path, client: OwnProcess, options: argparse.Namespace
) -> tuple[dict[str, Left], float]:
    """Close streams at random moments; return what there was before and after, and the wait."""
    client.run(close_some, server.url, options.size, 20, 16, 0.5)  # what is made once
    wait_until_idle(server)
    time.sleep(12)  # connections that are kept are closed
    before = count_left(server, steps)
    client.run(close_some, server.url, options.size, options.closed, 32, 2.0)
    idle_s = wait_until_idle(server)
    time.sleep(12)
    return {"before": before, "after": count_left(server, steps)}, idle_s


def _ping_until(pinger: OwnProcess, url: str, is_done: Callable[[], bool]) -> list[float]:
    took: list[float] = []
    while not is_done():
        took += pinger.run(ping, url, LIVEZ, 1.0)
    return took


def _is_clean(before: Left, after: Left) -> bool:
    """Compare all but memory, which the allocator keeps a little of."""
    first, last = (replace(one, megabytes=0, threads=0) for one in (before, after))
    return first == last and not after.jobs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--streams", type=int, default=64, help="at once")
    parser.add_argument("--closed", type=int, default=200, help="at random moments")
    parser.add_argument("--size", type=int, default=0, help="pixels, both sides; 0: the model's")
    parser.add_argument("--model", type=Path, help="model directory; the demo model by default")
    parser.add_argument("--threads", type=int, default=1, help="OMP_NUM_THREADS of the service")
    parser.add_argument("--quick", action="store_true", help="one round; no result is kept")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.streams, options.closed = 1, 16, 30
    with model_to_serve(options.model) as model, tempfile.TemporaryDirectory() as folder:
        steps = Path(folder) / "steps"
        plain = our_service(model)
        target, environment = (
            "timed_service:LpwSdxl",
            {**plain.environment, "TIMED_STEPS": str(steps)},
        )
        timed = replace(plain, target=target, folder=HERE / "baselines", environment=environment)
        with running(timed, model, options.threads) as server:
            device = str(server.ask("/info")["device"])
            others = OtherWork()
            result = measure(server, steps, options) | {"others_share_of_cores": others.share()}
    about = service_surroundings(device, options.threads)
    write_result("stream", about | result, keep=not options.quick)


if __name__ == "__main__":
    main()

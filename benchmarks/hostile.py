"""What do requests at every limit cost the other clients?

For each route, forty clients send the worst requests that are allowed (or nearly) as fast as they
are answered: prompts, bodies and headers at their limits, of every kind that costs a reader most.
Meanwhile another client sends one small request after the other, and `GET /livez` comes every 100
ms, each from a process of its own. The same is done with forty clients of ordinary requests on the
same route, and what the worst ones cost is compared with that.

Bars: p99 of /livez under 100 ms and never over 500; the small request takes at most 3 times as
long as beside the ordinary ones; the memory grows by no more than the bound on bodies, and is back
within 60 s at 1.1 times what it was; no answer is a 5xx.

    python benchmarks/hostile.py [--seconds 60] [--only NAME ...] [--threads 2] [--quick]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
from common import percentile, service_surroundings, write_result
from load import Answer, Client, OwnProcess, Target, own_process
from ping import Ping, ping
from services import OtherWork, Running, model_to_serve, our_service, running

from lpw_sdxl.api.border import LARGEST_BODIES
from lpw_sdxl.settings import Settings

CLIENTS = 40
BACK_WITHIN_S = 60
MAX_P99_MS, MAX_MS, MAX_TIMES, MAX_GROWTH = 100, 500, 3.0, 1.1
CHARACTERS = Settings().max_prompt_characters
BODY_BYTES = Settings().max_body_bytes
SMALL: dict[str, object] = {
    "prompt": "a red circle",
    "num_inference_steps": 4,
    "width": 64,
    "height": 64,
}
LIVEZ = Ping("GET", "/livez", 0.1)


Prompts = Mapping[str, Mapping[str, object]]
"""The longest prompts of each kind."""


@dataclass(frozen=True)
class Attack:
    """One kind of worst request.

    Attributes:
        route: path that the ordinary requests it is compared with are sent to.
        make: builds the whole HTTP request, head and body.
    """

    route: str
    make: Callable[[Prompts], bytes]


def http(path: str, body: bytes | None, headers: Mapping[str, str] | None = None) -> bytes:
    """Write a request: POST with a JSON body, GET without."""
    lines = [f"{'GET' if body is None else 'POST'} {path} HTTP/1.1", "host: x", "connection: close"]
    more = {} if body is None else {"content-type": "application/json"}
    lines += [f"{name}: {value}" for name, value in (more | {**(headers or {})}).items()]
    if body is not None:
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


def post(path: str, content: object) -> Callable[[Prompts], bytes]:
    return lambda _: http(path, json.dumps(content).encode())


def prompted(path: str, kind: str, items: int = 0) -> Callable[[Prompts], bytes]:
    """Use the longest prompts of a kind, in a single request or so many items of a batch."""

    def make(prompts: Prompts) -> bytes:
        one = prompts[kind] if path == "/inspect_prompt" else {**SMALL, **prompts[kind]}
        return http(path, json.dumps({"requests": [one] * items} if items else one).encode())

    return make


def raw(
    path: str, start: bytes, middle: bytes, end: bytes, size: int
) -> Callable[[Prompts], bytes]:
    """Repeat a piece of a body up to a size, bytes."""
    return lambda _: http(path, start + middle * ((size - len(start + end)) // len(middle)) + end)


PIECES = {
    "words": "sun sea fox ",
    "spans": "(a:1.1) [b] ",
    "nests": "(a [b (c)] d) ",
    "odd characters": "ü😀é 猫 ",
}


def longest_prompts(url: str) -> dict[str, dict[str, object]]:
    """Find the longest prompts of each piece that a service takes."""

    def build(piece: str, repeats: int) -> dict[str, object]:
        return {"prompt": piece * repeats, "negative_prompt": piece * repeats}

    def is_taken(piece: str, repeats: int) -> bool:
        answer = httpx.post(f"{url}/inspect_prompt", json=build(piece, repeats), timeout=300)
        return answer.is_success

    longest = {}
    for name, piece in PIECES.items():
        taken, refused = 1, CHARACTERS // len(piece) + 1
        while refused - taken > 1:
            middle = (taken + refused) // 2
            taken, refused = (middle, refused) if is_taken(piece, middle) else (taken, middle)
        longest[name] = build(piece, taken)
    return longest


GENERATE_BYTES = 2 * CHARACTERS * 12 + 64 * 1024
ATTACKS = {
    "ordinary images": Attack("/generate", post("/generate", SMALL)),
    "prompts of words": Attack("/generate", prompted("/generate", "words")),
    "prompts of spans": Attack("/generate", prompted("/generate", "spans")),
    "nested prompts": Attack("/generate", prompted("/generate", "nests")),
    "prompts of odd characters": Attack("/generate", prompted("/generate", "odd characters")),
    "unknown fields": Attack(
        "/generate", raw("/generate", b"{", b'"a":1,', b'"b":1}', GENERATE_BYTES)
    ),
    "ordinary batches": Attack(
        "/generate_batch", post("/generate_batch", {"requests": [SMALL] * 4})
    ),
    "batches of long prompts": Attack(
        "/generate_batch", prompted("/generate_batch", "words", items=4)
    ),
    "batches of 64": Attack("/generate_batch", post("/generate_batch", {"requests": [SMALL] * 64})),
    "a batch of fields": Attack(
        "/generate_batch",
        raw("/generate_batch", b'{"requests": [{', b'"a":1,', b'"b":1}]}', BODY_BYTES),
    ),
    "a batch of objects": Attack(
        "/generate_batch", raw("/generate_batch", b'{"requests": [', b"{},", b"{}]}", BODY_BYTES)
    ),
    "a batch of one name": Attack(
        "/generate_batch", raw("/generate_batch", b'{"requests": [{"', b"a", b'":1}]}', BODY_BYTES)
    ),
    "a batch of one text": Attack(
        "/generate_batch",
        raw("/generate_batch", b'{"requests": [{"prompt": "', b'\\"', b'"}]}', BODY_BYTES),
    ),
    "a batch of blanks": Attack(
        "/generate_batch", raw("/generate_batch", b'{"requests": [', b" ", b"{}]}", BODY_BYTES)
    ),
    "ordinary inspections": Attack(
        "/inspect_prompt", post("/inspect_prompt", {"prompt": "a (red:1.3) fox in deep snow"})
    ),
    "inspections of words": Attack("/inspect_prompt", prompted("/inspect_prompt", "words")),
    "inspections of nests": Attack("/inspect_prompt", prompted("/inspect_prompt", "nests")),
    "inspections of odd characters": Attack(
        "/inspect_prompt", prompted("/inspect_prompt", "odd characters")
    ),
    "ordinary /info": Attack("/info", post("/info", {})),
    "a Content-Type of blanks": Attack(
        "/info",
        lambda _: http("/info", b"{}", {"content-type": "application/json" + " " * 16_000 + "x"}),
    ),
    "a long Authorization": Attack(
        "/info", lambda _: http("/info", b"{}", {"authorization": "Bearer " + " a" * 8_000})
    ),
    "a long Origin": Attack(
        "/info", lambda _: http("/info", b"{}", {"origin": "http://" + "a." * 8_000})
    ),
    "a long path": Attack("/info", lambda _: http("/" + "a/" * 30_000, None)),
    "ordinary documents": Attack("/docs.json", lambda _: http("/docs.json", None)),
    "metrics": Attack("/docs.json", lambda _: http("/metrics", None)),
    "schemas": Attack("/docs.json", lambda _: http("/schema.json", None)),
}


async def flood(url: str, request: bytes, seconds: float, clients: int = CLIENTS) -> dict[str, int]:
    """Send a request again and again on new connections from so many clients; count the answers."""
    answers: Counter[str] = Counter()
    address = urlsplit(url)
    until = time.perf_counter() + seconds

    async def one() -> str:
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        try:
            writer.write(request)
            await writer.drain()
            start = await reader.read(64 * 1024)
            while await reader.read(1024 * 1024):
                pass
            return start[9:12].decode()
        finally:
            writer.close()

    async def client() -> None:
        while (left := until - time.perf_counter()) > 0:
            try:
                async with asyncio.timeout(left + 60):
                    answers[await one()] += 1
            except (OSError, TimeoutError) as error:
                answers[type(error).__name__] += 1

    await asyncio.gather(*(client() for _ in range(clients)))
    return dict(answers)


def attack(url: str, name: str, prompts: Prompts, seconds: float) -> dict[str, int]:
    """Flood a service; for a process of its own."""
    return asyncio.run(flood(url, ATTACKS[name].make(prompts), seconds))


def keep_asking(url: str, seconds: float) -> list[Answer]:
    """Send one small request after the other; for a process of its own."""

    async def play() -> list[Answer]:
        answers = []
        async with Client(url, Target()) as client:
            while client.now_s < seconds:
                answers.append(await client.send(SMALL))
        return answers

    return asyncio.run(play())


def resident_mb(process: int) -> float:
    return float(psutil.Process(process).memory_info().rss) / 1e6


def watch(process: int, work: Future[Any]) -> float:
    """Return a process's largest resident memory until the work is done, MB."""
    largest = 0.0
    while not work.done():
        largest = max(largest, resident_mb(process))
        time.sleep(0.1)
    return largest


def seconds_until_back(process: int, base_mb: float) -> float | None:
    """Wait until a process's memory is back; return the seconds, or None if it never is."""
    started = time.perf_counter()
    while (passed := time.perf_counter() - started) < BACK_WITHIN_S:
        if resident_mb(process) <= MAX_GROWTH * base_mb:
            return passed
        time.sleep(0.5)
    return None


def measure(
    server: Running, processes: list[OwnProcess], name: str, prompts: Prompts, seconds: float
) -> dict[str, object]:
    """Run one attack."""
    attacker, other, pinger = processes
    worker = server.worker
    base_mb = resident_mb(worker)
    work = attacker.begin(attack, server.url, name, prompts, seconds)
    asking = other.begin(keep_asking, server.url, seconds)
    pinging = pinger.begin(ping, server.url, LIVEZ, seconds)
    largest_mb = watch(worker, work)
    took = pinging.result()
    small = asking.result()
    return {
        "route": ATTACKS[name].route,
        "answers": work.result(),
        "livez_p99_ms": round(percentile(took, 99), 1),
        "livez_max_ms": round(max(took), 1),
        "small_requests": dict(Counter(str(one.status) for one in small)),
        "small_median_s": round(
            statistics.median(
                [one.seconds for one in small if one.status == 200] or [float("nan")]
            ),
            3,
        ),
        "base_mb": round(base_mb),
        "growth_mb": round(largest_mb - base_mb),
        "back_after_s": seconds_until_back(worker, base_mb),
    }


def compare(results: dict[str, dict[str, object]]) -> None:
    """Put beside each attack how much slower the small request was than beside ordinary ones."""
    ordinary = {
        result["route"]: float(str(result["small_median_s"]))
        for name, result in results.items()
        if name.startswith("ordinary")
    }
    for result in results.values():
        times = float(str(result["small_median_s"])) / ordinary.get(result["route"], float("nan"))
        result["small_times_ordinary"] = round(times, 2)


def is_met(result: Mapping[str, object], bound_mb: float) -> dict[str, bool]:
    answers = result["answers"]
    small = result["small_requests"]
    assert isinstance(answers, dict)
    assert isinstance(small, dict)
    return {
        "livez p99": float(str(result["livez_p99_ms"])) < MAX_P99_MS,
        "livez max": float(str(result["livez_max_ms"])) <= MAX_MS,
        "small request": float(str(result["small_times_ordinary"])) <= MAX_TIMES,
        "small requests served": set(small) == {"200"},
        "memory": float(str(result["growth_mb"])) <= bound_mb,
        "memory back": result["back_after_s"] is not None,
        "no 5xx": not any(status.startswith("5") for status in answers),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="of each attack")
    parser.add_argument("--only", nargs="+", choices=ATTACKS, help="and what they are compared to")
    parser.add_argument("--threads", type=int, default=2, help="OMP_NUM_THREADS of the service")
    parser.add_argument("--quick", action="store_true", help="8 s each; no result is kept")
    options = parser.parse_args()
    seconds = 8.0 if options.quick else options.seconds
    routes = {ATTACKS[name].route for name in options.only or ATTACKS}
    names = [
        name
        for name, one in ATTACKS.items()
        if not options.only
        or name in options.only
        or (name.startswith("ordinary") and one.route in routes)
    ]
    results: dict[str, dict[str, object]] = {}
    others = OtherWork()
    with (
        model_to_serve(None) as model,
        running(our_service(model), model, options.threads) as server,
        ExitStack() as stack,
    ):
        processes = [stack.enter_context(own_process()) for _ in range(3)]
        prompts = longest_prompts(server.url)
        device = str(server.ask("/info")["device"])
        for warm_up in names:
            if warm_up.startswith("ordinary"):
                measure(server, processes, warm_up, prompts, 3.0)
        for name in names:
            results[name] = measure(server, processes, name, prompts, seconds)
            print(f"{name}: {json.dumps(results[name])}", flush=True)
    compare(results)
    bound_mb = LARGEST_BODIES * BODY_BYTES / 1e6
    for result in results.values():
        result["missed"] = [bar for bar, is_good in is_met(result, bound_mb).items() if not is_good]
    about = service_surroundings(device, options.threads)
    measured: dict[str, object] = {
        "clients": CLIENTS,
        "seconds": seconds,
        "others_share_of_cores": others.share(),
        "bound_mb": round(bound_mb),
        "attacks": results,
        "bars_met": not any(one["missed"] for one in results.values()),
    }
    write_result("hostile", about | measured, keep=not options.quick and not options.only)
    sys.exit(0 if measured["bars_met"] else 1)


if __name__ == "__main__":
    main()

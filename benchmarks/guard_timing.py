"""Does the time of a refusal tell how much of a token was right?

Tokens that are wrong at their first byte, at their last, at every byte, and right ones are asked
for in random order: of the comparison alone, with one token and with a hundred, and over HTTP with
uvicorn in front of the guard. Noise is what medians of the same kind differ by: its even and its
odd calls, and the first kind asked for a second time.

    python benchmarks/guard_timing.py [--calls 20000] [--requests 1000]
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import random
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import uvicorn
from common import surroundings, write_result

from lpw_sdxl.api.guard import RequestGuard
from lpw_sdxl.api.tokens import Tokens

RIGHT = "c0ffee" * 10 + "abcd"
KINDS: Mapping[str, str] = {
    "wrong at the first byte": "x" + RIGHT[1:],
    "wrong at the first byte, again": "y" + RIGHT[1:],
    "wrong at the last byte": RIGHT[:-1] + "x",
    "wrong at every byte": RIGHT[::-1],
    "right": RIGHT,
}
REFERENCE, AGAIN = [*KINDS][:2]


def tokens_of(number: int) -> Tokens:
    """Make so many tokens, one of them right."""
    others = [f"another-token-{index}" for index in range(number - 1)]
    return Tokens(frozenset(hashlib.sha256(t.encode()).digest() for t in [RIGHT, *others]))


def times_us(ask: Callable[[bytes], object], rounds: int) -> dict[str, list[float]]:
    """Ask for every kind in random order, and give each one's times, microseconds."""
    chance = random.Random(7)
    headers = {kind: f"Bearer {token}".encode() for kind, token in KINDS.items()}
    times: dict[str, list[float]] = {kind: [] for kind in KINDS}
    order = [*KINDS]
    for number in range(rounds + rounds // 10):
        chance.shuffle(order)
        for kind in order:
            header = headers[kind]
            started = time.perf_counter()
            ask(header)
            if number >= rounds // 10:  # after warming up
                times[kind].append((time.perf_counter() - started) * 1e6)
    return times


def summary(times: Mapping[str, Sequence[float]], compared: Sequence[str]) -> dict[str, object]:
    """Give medians, what the compared kinds differ by, and what one kind differs from itself by."""
    medians = {kind: statistics.median(values) for kind, values in times.items()}
    halves = [
        abs(statistics.median(values[::2]) - statistics.median(values[1::2]))
        for values in times.values()
    ]
    of_compared = [medians[kind] for kind in compared]
    return {
        "median_us": {kind: round(value, 3) for kind, value in medians.items()},
        "largest_difference_us": round(max(of_compared) - min(of_compared), 3),
        "noise_us": round(max(*halves, abs(medians[REFERENCE] - medians[AGAIN])), 3),
    }


def over_http(requests: int) -> dict[str, list[float]]:
    """Ask a guard behind uvicorn for a path that is not there, on one connection."""
    guard = RequestGuard(_never, {}, {}, tokens=tokens_of(3))
    config = uvicorn.Config(guard, port=0, lifespan="off", log_config=None, access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    connection = http.client.HTTPConnection("127.0.0.1", port)

    def ask(header: bytes) -> None:
        connection.request("GET", "/nowhere", headers={"authorization": header})
        connection.getresponse().read()

    try:
        return times_us(ask, requests)
    finally:
        connection.close()
        server.should_exit = True
        thread.join()


async def _never(*_: Any) -> None:
    raise AssertionError("nothing passes the guard here")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--calls", type=int, default=20_000, help="comparisons of each kind")
    parser.add_argument("--requests", type=int, default=1000, help="requests of each kind")
    arguments = parser.parse_args()
    wrong = [kind for kind in KINDS if kind != "right"]  # that a token is right is told anyway
    results = {}
    for number in (1, 100):
        tokens = tokens_of(number)
        times = times_us(lambda header, tokens=tokens: tokens.allow([header]), arguments.calls)
        results[f"comparison, tokens: {number}"] = summary(times, wrong)
    results["HTTP, tokens: 3"] = summary(over_http(arguments.requests), wrong)
    write_result(
        "guard_timing",
        {
            "question": "does the time of a refusal tell how much of a token was right?",
            **surroundings(torch.device("cpu")),
            "calls": arguments.calls,
            "requests": arguments.requests,
            "results": results,
        },
    )


if __name__ == "__main__":
    main()

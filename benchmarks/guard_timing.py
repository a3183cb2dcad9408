"""Does the time of a refusal tell how much of a token was right?

Tokens that are wrong at their first byte, at their last, in their length, and right ones are asked
for in random order: of the comparison alone, with one token and with a hundred, and over HTTP with
uvicorn in front of the guard. Each kind's median is held against that of the same kind asked for a
second time: a difference within that is noise.

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
    "wrong at every byte": "z" * len(RIGHT),
    "right": RIGHT,
}
REFERENCE, AGAIN = [*KINDS][:2]


def tokens_of(number: int) -> Tokens:
    """Make so many tokens, one of them right."""
    others = [f"another-token-{index}" for index in range(number - 1)]
    return Tokens(frozenset(hashlib.sha256(t.encode()).digest() for t in [RIGHT, *others]))


def medians_us(ask: Callable[[str], object], rounds: int) -> dict[str, float]:
    """Ask for every kind in random order, and give the median time of each, microseconds."""
    chance = random.Random(7)
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    order = [*KINDS]
    for number in range(rounds + rounds // 10):
        chance.shuffle(order)
        for kind in order:
            started = time.perf_counter()
            ask(KINDS[kind])
            if number >= rounds // 10:  # after warming up
                seconds[kind].append(time.perf_counter() - started)
    return {kind: statistics.median(times) * 1e6 for kind, times in seconds.items()}


def differences(medians: Mapping[str, float], kinds: Sequence[str]) -> dict[str, float]:
    """Give what each kind's median has over the first kind's, percent."""
    reference = medians[REFERENCE]
    return {kind: round((medians[kind] / reference - 1) * 100, 2) for kind in kinds}


def over_http(requests: int) -> dict[str, float]:
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

    def ask(token: str) -> None:
        connection.request("GET", "/nowhere", headers={"authorization": f"Bearer {token}"})
        connection.getresponse().read()

    try:
        return medians_us(ask, requests)
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
    results = {}
    for number in (1, 100):
        tokens = tokens_of(number)
        results[f"comparison, tokens: {number}"] = medians_us(
            lambda token, tokens=tokens: tokens.allow([f"Bearer {token}".encode()]),
            arguments.calls,
        )
    # A right token is answered 404 here, by other code than a wrong one's 401: not compared.
    results["HTTP, tokens: 3"] = over_http(arguments.requests)
    wrong = [kind for kind in KINDS if kind != "right"]
    write_result(
        "guard_timing",
        {
            "question": "does the time of a refusal tell how much of a token was right?",
            **surroundings(torch.device("cpu")),
            "calls": arguments.calls,
            "requests": arguments.requests,
            "median_us": {
                name: {kind: round(value, 2) for kind, value in medians.items()}
                for name, medians in results.items()
            },
            "percent_over_the_first_kind": {
                name: differences(medians, wrong if name.startswith("HTTP") else [*KINDS])
                for name, medians in results.items()
            },
            "noise_percent": {
                name: abs(differences(medians, [AGAIN])[AGAIN]) for name, medians in results.items()
            },
        },
    )


if __name__ == "__main__":
    main()

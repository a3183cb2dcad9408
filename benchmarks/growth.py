"""How does the time of every reader of text grow when a text as bad as can be doubles?

Each reader reads each of its patterns (benchmarks/readers.py) at n and at 2n characters, n so large
that a reading takes some milliseconds. The result is the smallest CPU time of several rounds at 2n
over that at n; a ratio over the bar is measured again with more rounds before it counts.

    python benchmarks/growth.py [--rounds 5] [--reader WORD]
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable
from contextlib import suppress

import torch
from common import surroundings, write_result
from readers import Pattern, all_readers

from lpw_sdxl.errors import LpwSdxlError

MAX_GROWTH = 2.3
SHORTEST = 2_000  # characters
ENOUGH_S = 0.004  # of one reading: the clock's and the collector's share is small then
ATTEMPTS = 3
TOO_LONG_S = 1.0  # not doubled any further


def read_s(read: Callable[[str], object], text: str) -> float:
    """Measure the CPU time of one reading, seconds; a refusal is a reading too."""
    start = time.process_time()
    with suppress(LpwSdxlError, RecursionError):
        read(text)
    return time.process_time() - start


def measure(
    read: Callable[[str], object], pattern: Pattern, largest: int, rounds: int
) -> tuple[int, float, float]:
    """Return n in characters, the time at 2n in seconds, and the growth from n to 2n.

    A reader that needs under 0.2 ms for the longest text has no growth to measure: 1.
    """
    size = SHORTEST
    while 2 * size < largest and read_s(read, pattern.text(size)) < ENOUGH_S:
        size *= 2
    one, two = pattern.text(size), pattern.text(2 * size)
    growth = best = 0.0
    for attempt in range(ATTEMPTS):
        count = rounds * (1 + 2 * attempt)
        gc.collect()
        pairs = [(read_s(read, one), read_s(read, two)) for _ in range(count)]
        shorter, longer = (min(column) for column in zip(*pairs, strict=True))
        now = 1.0 if longer < 2e-4 else longer / max(shorter, 1e-6)
        growth, best = (now, longer) if not attempt or now < growth else (growth, best)
        if growth <= MAX_GROWTH or longer > TOO_LONG_S:
            break
    return size, best, growth


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--reader", default="", help="only readers with this word in their name")
    options = parser.parse_args()
    readers = [one for one in all_readers() if options.reader in one.name]
    results, over, count = {}, [], 0
    gc.disable()  # its passes are paid for by whatever runs when they come due
    for reader in readers:
        worst, where, slowest = 0.0, "", 0.0
        for name, pattern in reader.patterns.items():
            size, seconds, growth = measure(reader.read, pattern, reader.largest, options.rounds)
            count += 1
            slowest = max(slowest, seconds / (2 * size) * 1e9)
            if growth > worst:
                worst, where = growth, name
            if growth > MAX_GROWTH:
                over.append(f"{reader.name}: {name}, x{growth:.2f} at {size}")
        results[reader.name] = {
            "patterns": len(reader.patterns),
            "largest_growth": round(worst, 2),
            "of": where,
            "slowest_ns_a_character": round(slowest),
        }
        print(f"{reader.name:28} x{worst:.2f} ({where}), {slowest:.0f} ns a character", flush=True)
    result = {
        "question": "how does the CPU time of each reader grow when a bad text doubles?",
        "bar": MAX_GROWTH,
        "rounds": options.rounds,
        "patterns": count,
        "over_the_bar": over,
        "results": results,
        **surroundings(torch.device("cpu")),
    }
    write_result("growth", result, keep=not options.reader)


if __name__ == "__main__":
    main()

"""How does the time to parse a prompt grow with its length, whatever is nested in it?

Every style parses texts that are as bad for it as we know how to make them, and an ordinary one, at
12,500 to 100,000 characters. The four lengths are paired in every round; the result is the median
CPU time of each and the largest growth from one length to its double.

    python benchmarks/prompt_parsing.py [--rounds 9]
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import subprocess
import time
from contextlib import suppress
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from readers import PROMPT_PATTERNS, UNLIMITED

from lpw_sdxl.errors import InvalidPromptError
from lpw_sdxl.prompt import PromptStyle, parse

HERE = Path(__file__).parent
SIZES = (12_500, 25_000, 50_000, 100_000)  # characters
MAX_GROWTH = 2.5


def make_text(pattern: tuple[str, str], characters: int) -> str:
    """Repeat a pattern's halves to about so many characters."""
    before, after = pattern
    count = characters // len(before + after)
    return f"(a:{before * count}x{after * count}"


def parse_s(text: str, style: PromptStyle) -> float:
    """Measure the CPU time of one parse, seconds, the garbage collector's share included."""
    gc.collect()  # else a parse would pay for the garbage of those before it
    start = time.process_time()
    # Infinity times zero, deep in a nest, is no weight and refused, but its time was spent.
    with suppress(InvalidPromptError):
        parse(text, UNLIMITED, style=style)
    return time.process_time() - start


class Cost(NamedTuple):
    """The cost of one pattern in one style.

    Attributes:
        median_ms: at each size.
        largest_growth: of the steps from a size to its double; each step is the median of the
            rounds' own ratios, so that a slower minute of the machine is on both sides of one.
    """

    median_ms: list[float]
    largest_growth: float


def measure(pattern: tuple[str, str], style: PromptStyle, rounds: int) -> Cost:
    """Time all sizes in turn, round by round, after one round to warm up."""
    texts = [make_text(pattern, size) for size in SIZES]
    times = [[parse_s(text, style) for text in texts] for _ in range(rounds + 1)][1:]
    ratios = [[after / before for before, after in pairwise(row)] for row in times]
    return Cost(
        [round(statistics.median(column) * 1000, 3) for column in zip(*times, strict=True)],
        round(max(statistics.median(column) for column in zip(*ratios, strict=True)), 2),
    )


def surroundings() -> dict[str, str]:
    """Describe hardware, versions and commit of a measurement."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=HERE,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit,
        "hardware": f"{os.cpu_count()} CPU cores",
        "python": platform.python_version(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    costs = {}
    for style in PromptStyle:
        for name, pattern in PROMPT_PATTERNS.items():
            cost = measure(pattern, style, rounds)
            costs[f"{style}, {name}"] = cost
            print(f"{style:15} {name:30} {cost.median_ms[-1]:9.1f} ms  x{cost.largest_growth}")
    slow = [name for name, cost in costs.items() if cost.largest_growth > MAX_GROWTH]
    worst = max(cost.largest_growth for cost in costs.values())
    output = {
        "question": "how does the CPU time to parse grow when the text doubles?",
        "characters": SIZES,
        "rounds": rounds,
        "largest_growth": worst,
        "over_the_bar": slow,
        "results": {name: cost._asdict() for name, cost in costs.items()},
        **surroundings(),
    }
    path = HERE / "results" / "prompt_parsing.json"
    path.write_text(json.dumps(output, indent=1) + "\n")
    print(f"largest growth {worst:.2f}, over {MAX_GROWTH}: {slow or 'none'}; {path}")


if __name__ == "__main__":
    main()

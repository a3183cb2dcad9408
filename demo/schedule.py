"""Parts that all trainings share: repeatable sums, the learning rate, lines of progress."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch

PROGRESS_S = 20.0
WARM_UP = 100
"""Steps."""


@contextmanager
def repeatable() -> Iterator[None]:
    """Make threads add in the same order each time; embeddings' gradients do not by default."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def optimiser(parameters: Iterable[torch.nn.Parameter], rate: float) -> torch.optim.AdamW:
    """Make the optimiser that all networks are trained with."""
    groups = [{"params": list(parameters), "initial_lr": rate}]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.99), weight_decay=1e-4, fused=True)


def steps(
    name: str, count: int, adam: torch.optim.Optimizer, first: int = 0
) -> Iterator[tuple[int, dict[str, float]]]:
    """Count steps, set each one's learning rate (a half cosine), and print how training goes.

    Args:
        name: of the trained part, for the printed lines.
        count: of all steps.
        adam: its groups have their highest rate as `initial_lr`.
        first: number of the first step.

    Yields:
        A step's number, and a dict for figures, whose running means are printed.
    """
    began = last = time.monotonic()
    means: dict[str, float] = {}
    for step in range(first, count):
        share = min(1.0, (step + 1) / WARM_UP) * (0.505 + 0.495 * math.cos(math.pi * step / count))
        for group in adam.param_groups:
            group["lr"] = group["initial_lr"] * share
        report: dict[str, float] = {}
        yield step, report
        for key, value in report.items():
            means[key] = 0.98 * means.get(key, value) + 0.02 * value
        if time.monotonic() - last > PROGRESS_S or step == count - 1:
            last = time.monotonic()
            figures = ", ".join(f"{key} {value:.4f}" for key, value in means.items())
            print(
                f"{name}: step {step + 1} of {count}, {last - began:.0f} s, {figures}", flush=True
            )

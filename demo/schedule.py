"""Parts that all trainings share: the device, seeds, the learning rate, lines of progress."""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

import torch

PROGRESS_S = 20.0
WARM_UP = 100
"""Steps."""


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add the option `--device` to a command line: the GPU if there is one."""
    found = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=found, help=f"cpu or cuda; here {found}")


@contextmanager
def training_on(device: str) -> Iterator[None]:
    """Make tensors on a device, and sums in the same order each time, as far as it can."""
    before = torch.are_deterministic_algorithms_enabled()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # CUDA's sums ask for it
    torch.use_deterministic_algorithms(True, warn_only=device != "cpu")
    with ExitStack() as stack:
        stack.callback(torch.use_deterministic_algorithms, before)
        if device != "cpu":  # the default already, and each call has its price
            stack.enter_context(torch.device(device))
        yield


def seeded(seed: int) -> torch.Generator:
    """Make a generator on the device that is trained on."""
    return torch.Generator(torch.get_default_device()).manual_seed(seed)


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

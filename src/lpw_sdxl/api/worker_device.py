"""Several workers on one machine: each sees one GPU, that of its number.

BentoML shows all its workers all GPUs that it took for the service. Whoever sees one alone can use
no other by mistake, in whatever thread or library.
"""

from __future__ import annotations

from collections.abc import MutableMapping

VISIBLE = "CUDA_VISIBLE_DEVICES"


def restrict_to_own_gpu(environment: MutableMapping[str, str], worker: int, workers: int) -> None:
    """Leave a worker its own GPU of those that are visible; before torch first looks.

    Args:
        environment: of the process; changed.
        worker: its number, 1 to `workers`.
        workers: how many share the machine; one alone keeps what it sees.
    """
    if workers == 1:
        return
    told = environment.get(VISIBLE)
    names = [str(number) for number in range(workers)] if told is None else told.split(",")
    if worker <= len(names):
        environment[VISIBLE] = names[worker - 1].strip()

"""One GPU for each of several workers on one machine, by the worker's number.

BentoML shows each of its workers all GPUs of the service. A worker that sees only its own can use
no other by mistake, in any thread or library.
"""

from __future__ import annotations

from collections.abc import MutableMapping

_VISIBLE = "CUDA_VISIBLE_DEVICES"


def restrict_to_own_gpu(environment: MutableMapping[str, str], worker: int, workers: int) -> None:
    """Make only a worker's own GPU visible to it; to be called before torch is imported.

    Args:
        environment: of the process; changed.
        worker: its number, 1 to `workers`.
        workers: how many share the machine; a single one keeps all GPUs.
    """
    if workers == 1:
        return
    visible = environment.get(_VISIBLE)
    names = [str(number) for number in range(workers)] if visible is None else visible.split(",")
    if worker <= len(names):
        environment[_VISIBLE] = names[worker - 1].strip()

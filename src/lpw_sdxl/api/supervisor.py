"""The end of a worker that can't serve, and of all of `bentoml serve` where a new one couldn't.

BentoML's supervisor looks every ten seconds for workers that ended, and starts new ones, or in a
container ends itself. Meanwhile the port is open, and connections wait. So a worker whose device
failed becomes a new one itself, by `exec`: the port stays open. A model that can't be loaded stays
so, and in a container the orchestrator should know: there the worker signals the supervisor, which
stops all workers in order and ends with a failure. It must have called `heed_workers` before it
started them.
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping, MutableMapping
from typing import NoReturn

from lpw_sdxl.settings import is_in_container

logger = logging.getLogger(__name__)

ANSWER_SECONDS = 5  # for the last answers to reach their clients
_SUPERVISOR = "LPW_SDXL_SUPERVISOR_PID"  # from the supervisor to its workers; no setting
_SIGNAL = signal.SIGUSR1  # the one that neither BentoML, Circus nor uvicorn handles
FAILURE = 1
PATIENCE_S = 10


def heed_workers(environment: MutableMapping[str, str]) -> None:
    """Make this process, the supervisor, end when a worker asks for it.

    Nothing happens outside of a main thread.

    Args:
        environment: of this process, which its workers inherit.
    """
    if threading.current_thread() is threading.main_thread():
        environment[_SUPERVISOR] = str(os.getpid())
        signal.signal(_SIGNAL, _end_in_order)


def end_process(reason: str) -> None:
    """End this process for a new one to serve: nothing else revives a device.

    To be called when every caller has its error, in a thread that no other thread waits for.

    Args:
        reason: why it can't serve any more.
    """
    logger.critical("%s; this process ends, for a new one to start", reason)
    time.sleep(ANSWER_SECONDS)  # the answers go out
    if not _is_heeded(os.environ):
        os._exit(os.EX_SOFTWARE)  # an ordinary exit would wait for a thread that may never return
    if is_in_container():
        end_service(f"lpw-sdxl: {reason}", os.environ)
    from prometheus_client.multiprocess import mark_process_dead  # noqa: PLC0415 - a worker's only

    mark_process_dead(os.getpid())  # its gauges; the new process has the same number
    logging.shutdown()
    # The listening socket alone of its files is inherited, as it was from the supervisor.
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - as it was started


def end_service(sentence: str, environment: Mapping[str, str]) -> NoReturn:
    """Write a last sentence and end the supervisor, and this worker with it.

    Args:
        sentence: why this service can't serve.
        environment: of this process.
    """
    sys.stderr.write(f"{sentence}\n")
    sys.stderr.flush()
    logging.disable()  # that sentence is the last, not those about the stop that it causes
    if _is_heeded(environment):
        os.kill(os.getppid(), _SIGNAL)
        time.sleep(PATIENCE_S)  # the supervisor's SIGTERM ends this process meanwhile
    os._exit(FAILURE)


def _is_heeded(environment: Mapping[str, str]) -> bool:
    """Return whether the parent is a supervisor that called `heed_workers`."""
    return environment.get(_SUPERVISOR) == str(os.getppid())


def _end_in_order(*_: object) -> None:
    """Stop as SIGTERM does, and make it a failure."""
    signal.signal(_SIGNAL, signal.SIG_IGN)  # one worker is enough
    atexit.register(_fail)
    os.kill(os.getpid(), signal.SIGTERM)


def _fail() -> None:
    """End the process with a failure: BentoML's command has no way to, once it was stopped."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(FAILURE)

"""The start of a worker: a thread loads what it serves while the port answers already.

It knows nothing of what is loaded, nor of HTTP.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from enum import Enum, auto
from typing import Generic, TypeVar

from lpw_sdxl.errors import StartingError, UnavailableError

Loaded = TypeVar("Loaded")


class Phase(Enum):
    """How far a worker is."""

    STARTING = auto()
    READY = auto()
    LEAVING = auto()
    FAILED = auto()


class Startup(Generic[Loaded]):
    """A loading in a thread of its own, and what it has loaded; safe to use from any thread.

    Args:
        load: loads what is served.
        on_failure: called in the same thread with what `load` raised, unless the worker is leaving
            by then.
    """

    def __init__(
        self, load: Callable[[], Loaded], on_failure: Callable[[BaseException], None]
    ) -> None:
        self._load = load
        self._on_failure = on_failure
        self._lock = threading.Lock()
        self._phase = Phase.STARTING
        self._loaded: Loaded | None = None
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lpw-sdxl-start", daemon=True)

    def begin(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def phase(self) -> Phase:
        """Return how far the worker is."""
        return self._phase

    @property
    def found(self) -> Loaded | None:
        """Return what is loaded; None until then."""
        return self._loaded

    @property
    def loaded(self) -> Loaded:
        """Return what is loaded; it stays usable while the worker is leaving.

        Raises:
            StartingError: it is still being loaded.
            UnavailableError: it can't be loaded, or the worker leaves before it is.
        """
        with self._lock:
            if self._loaded is not None:
                return self._loaded
            phase = self._phase
        if phase is Phase.STARTING:
            raise StartingError("the model is still being loaded; try again in a few seconds")
        raise UnavailableError("the server is stopping; try another replica, or later")

    @property
    def obstacle(self) -> UnavailableError | None:
        """Return why nothing can be made now, as `loaded` raises it; None if it can."""
        try:
            _ = self.loaded
        except UnavailableError as error:
            return error
        return None

    def leave(self) -> None:
        """Note that the worker is leaving."""
        with self._lock:
            if self._phase is not Phase.FAILED:
                self._phase = Phase.LEAVING

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until it is loaded or has failed; return whether that is so.

        Args:
            timeout_s: seconds; None to wait for as long as it takes.
        """
        return self._is_over.wait(timeout_s)

    def _run(self) -> None:
        try:
            loaded = self._load()
        except BaseException as error:  # noqa: BLE001 (whatever it is, this worker can't serve)
            with self._lock:
                is_awaited = self._phase is Phase.STARTING
                self._phase = Phase.FAILED
            self._is_over.set()
            if is_awaited:
                self._on_failure(error)
            return
        with self._lock:
            self._loaded = loaded
            if self._phase is Phase.STARTING:
                self._phase = Phase.READY
        self._is_over.set()

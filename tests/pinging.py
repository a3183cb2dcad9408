"""Pings of a service from before its start to after its end, each on a connection of its own."""

from __future__ import annotations

import http.client
import threading
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

EVERY_S = 0.05
PATIENCE_S = 20.0


@dataclass(frozen=True)
class Ping:
    """One ping.

    Attributes:
        at_s: when it was sent, seconds after the first.
        took_s: until its answer was there.
        outcome: the status, or the name of the error.
    """

    at_s: float
    took_s: float
    outcome: int | str


class Pinging:
    """A thread that asks `GET /ping` twenty times a second.

    Each ping has a thread of its own, so that one that hangs delays no other.
    """

    def __init__(self, url: str) -> None:
        self.pings: list[Ping] = []
        self._address = urlsplit(url)
        self._threads: list[threading.Thread] = []
        self._is_over = threading.Event()
        self._begun = time.monotonic()
        self._thread = threading.Thread(target=self._go_on)

    def __enter__(self) -> Pinging:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()
        for thread in self._threads:
            thread.join()
        self.pings.sort(key=lambda ping: ping.at_s)

    @property
    def phases(self) -> list[int | str]:
        """Every outcome once for each time that it began."""
        outcomes = [ping.outcome for ping in self.pings]
        return [
            one
            for one, before in zip(outcomes, [None, *outcomes[:-1]], strict=True)
            if one != before
        ]

    def wait_for(self, outcome: int | str, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not self.pings or self.pings[-1].outcome != outcome:
            assert time.monotonic() < deadline, self.phases
            time.sleep(0.01)

    def _go_on(self) -> None:
        while not self._is_over.wait(EVERY_S):
            thread = threading.Thread(target=self._ping)
            thread.start()
            self._threads.append(thread)

    def _ping(self) -> None:
        sent = time.monotonic()
        connection = http.client.HTTPConnection(
            self._address.hostname or "", self._address.port, timeout=PATIENCE_S
        )
        outcome: int | str
        try:
            connection.request("GET", "/ping")
            outcome = connection.getresponse().status
        except OSError as error:
            outcome = type(error).__name__
        finally:
            connection.close()
        self.pings.append(Ping(sent - self._begun, time.monotonic() - sent, outcome))

"""The add-ons that requests can name now, while their folders change; no torch.

A thread looks at every source again and again, because folders on volumes report no change.
Requests take the registry of the moment, which never changes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from lpw_sdxl.addon.registry import NO_ADDONS, Addon, Finding, Registry
from lpw_sdxl.store.kind import AddonKind

LOOK_EVERY_S = 0.5
REST_SHARE = 4  # a look that takes long, as at a slow volume, is followed by as many times its rest
SETTLE_S = 20.0
SETTLE_EVERY_S = 0.02

logger = logging.getLogger(__name__)


class Source(Protocol):
    """A place of LoRAs or embeddings."""

    def look(self) -> Finding:
        """Refresh what is there, and return it."""

    def find(self) -> Finding:
        """Return what was there at the last look, as far as it is read by now."""


class ReadingSource(Source, Protocol):
    """A source that reads what it finds in a thread of its own."""

    has_read: Callable[[], None]

    def start(self) -> None:
        """Start the thread."""

    def close(self) -> None:
        """End the thread."""


class Catalogue:
    """The add-ons of several sources, as they are now.

    Args:
        sources: in the order in which one's names count before another's.
        readers: likewise, after them.
        first: what can be named before `start`, and for ever where there is no source.

    Attributes:
        can_change: whether there may be other names later.
    """

    def __init__(
        self,
        sources: Sequence[Source] = (),
        readers: Sequence[ReadingSource] = (),
        first: Registry = NO_ADDONS,
    ) -> None:
        self._sources = [*sources, *readers]
        self._readers = readers
        self.can_change = bool(self._sources)
        self._findings: list[Finding] = []
        self._current = first
        self._on_change: Callable[[Registry], None] = lambda _: None
        self._looking = threading.Lock()
        self._is_closed = threading.Event()
        for reader in readers:
            reader.has_read = self.publish

    @property
    def current(self) -> Registry:
        """Return what can be named now."""
        return self._current

    def start(self, on_change: Callable[[Registry], None]) -> None:
        """Start to look, now and then again and again in a thread.

        Args:
            on_change: called with every registry, the first one too, before `current` is that one;
                by one thread at a time.
        """
        self._on_change = on_change
        if not self._sources:
            on_change(self._current)
            return
        for reader in self._readers:
            reader.start()
        self.look()
        threading.Thread(target=self._run, name="lpw-sdxl-addons", daemon=True).start()

    def settle(self) -> None:
        """Wait until every embedding that is there is read, or for some seconds.

        A request waits for its LoRA, but a prompt can't for a name that may be just a word.
        """
        until = time.monotonic() + SETTLE_S
        while any(name.startswith(AddonKind.EMBEDDING.prefix) for name in self._current.pending):
            if time.monotonic() > until:
                logger.warning(
                    "embeddings are still being written or read; they may be named later"
                )
                return
            time.sleep(SETTLE_EVERY_S)

    def look(self) -> None:
        """Refresh what is known of every source."""
        if not self._sources:
            return
        with self._looking:
            self._publish([source.look() for source in self._sources])

    def publish(self) -> None:
        """Offer what was read since the last look."""
        with self._looking:
            self._publish([source.find() for source in self._sources])

    def _publish(self, findings: list[Finding]) -> None:
        if findings == self._findings:
            return
        registry = Registry.of(findings)
        self._on_change(registry)
        self._findings, self._current = findings, registry

    def close(self) -> None:
        """Stop looking."""
        self._is_closed.set()
        for reader in self._readers:
            reader.close()

    def _run(self) -> None:
        wait_s, is_failing = LOOK_EVERY_S, False
        while not self._is_closed.wait(wait_s):
            started = time.monotonic()
            try:
                self.look()
                is_failing = False
            except Exception:
                if not is_failing:
                    logger.exception("the folders of add-ons could not be looked at")
                is_failing = True
            wait_s = max(LOOK_EVERY_S, REST_SHARE * (time.monotonic() - started))


class AddonsByKey(Mapping[str, Addon]):
    """The LoRAs of a catalogue by their keys, as they are when one is asked for."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    def __getitem__(self, key: str) -> Addon:
        return self._catalogue.current.by_key[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._catalogue.current.by_key)

    def __len__(self) -> int:
        return len(self._catalogue.current.by_key)

"""A folder of LoRAs or of embeddings as their authors' files, which come and go; no torch.

Looking costs no more than the files' names and stamps. A file is read, by another thread, once it
has kept still for a moment: one that still grows is not opened, and one that is not whole is
refused by its header.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path

from lpw_sdxl.addon.folder_listing import walk
from lpw_sdxl.addon.loose import LooseAddon, read_loose, stamp_with_config
from lpw_sdxl.addon.loose_file import AGAIN_S, MOST_STILL_S, ChangedError, LooseFile, State
from lpw_sdxl.addon.registry import Finding, Found, Pending
from lpw_sdxl.conditioning.mentions import NAME
from lpw_sdxl.errors import LpwSdxlError
from lpw_sdxl.lora.targets import TargetModules
from lpw_sdxl.store.kind import AddonKind
from lpw_sdxl.weights.text import clean_text

LOOK_EVERY_BYTES = 64 * 1024**2  # while a file is hashed: has it changed meanwhile?

logger = logging.getLogger(__name__)


class LooseFolder:
    """A folder with files of one kind, sub-folders too.

    Args:
        kind: of the files.
        root: the folder.
        targets: the modules of the model that is served.
        has_read: called, in the reading thread, after each file that was read.
    """

    def __init__(
        self,
        kind: AddonKind,
        root: Path,
        targets: TargetModules,
        has_read: Callable[[], None] = lambda: None,
    ) -> None:
        self.kind = kind
        self.root = root
        self.has_read = has_read
        self._targets = targets
        self._files: dict[Path, LooseFile] = {}
        self._to_read: deque[LooseFile] = deque()
        self._lock = threading.Condition()
        self._is_closed = False
        self._is_out_of_reach = False
        self._reader = threading.Thread(
            target=self._run, name=f"lpw-sdxl-{kind}-reader", daemon=True
        )

    def start(self) -> None:
        """Start the thread that reads."""
        self._reader.start()

    def close(self) -> None:
        """End the thread."""
        with self._lock:
            self._is_closed = True
            self._lock.notify_all()

    def look(self) -> Finding:
        """Return what is there now, and have read what is new."""
        found = self._list()
        with self._lock:
            if found is not None:
                self._note(found, time.monotonic())
            return self._find()

    def _list(self) -> dict[Path, str] | None:
        """Return each file's stamp by its path within the folder; None if that can't be known."""
        try:
            paths = [*walk(self.root)]
        except OSError as error:
            if not self._is_out_of_reach:
                reason = error.strerror
                logger.warning("%s can't be read (%s); what it held is kept", self.root, reason)
            self._is_out_of_reach = True
            return None
        self._is_out_of_reach = False
        stamps = {path.relative_to(self.root): stamp_with_config(path) for path in paths}
        return {path: stamp for path, stamp in stamps.items() if stamp.strip()}

    def _note(self, found: Mapping[Path, str], now: float) -> None:
        """Note what came, changed or went; queue what is to be read."""
        for path, known in [*self._files.items()]:
            if found.get(path) != known.stamp:
                self._drop(path, known, is_replaced=path in found)
        for path, stamp in found.items():
            file = self._files.get(path)
            if file is None:
                file = LooseFile(self.root / path, stamp, now)
            elif file.stamp != stamp:
                file = file.replace(stamp, now, serves_on=self.kind is AddonKind.EMBEDDING)
            self._files[path] = file
            if file.state is State.SEEN and file.is_still(now):
                file.state = State.WAITING
                (self._to_read.appendleft if file.waiting else self._to_read.append)(file)
                self._lock.notify_all()

    def _drop(self, path: Path, known: LooseFile, *, is_replaced: bool) -> None:
        if not is_replaced:
            del self._files[path]
            logger.info("%s %s is gone", self.kind.noun, clean_text(str(path)))
        self._to_read = deque(one for one in self._to_read if one is not known)
        known.release()

    def find(self) -> Finding:
        """Describe the files as they are, with their folders where two have one name."""
        with self._lock:
            return self._find()

    def _find(self) -> Finding:
        stems = Counter(path.stem.lower() for path in self._files)
        found = []
        for path, file in self._files.items():
            full = path.with_suffix("").as_posix()
            name = path.stem if stems[path.stem.lower()] == 1 else full
            found.append(Found(self.kind, name, full, self._content(file, name)))
        return tuple(found)

    def _content(self, file: LooseFile, name: str) -> LooseAddon | Pending | str:
        if not name.isprintable() or not _is_text(name):
            return "its name is no text"
        if self.kind is AddonKind.EMBEDDING and not NAME.fullmatch(name):
            return f"its name {name} can't be a word of a prompt"
        if file.usable is not None:
            return _named(file.usable, name)
        return file.reason if file.state is State.REFUSED else _Reading(self, file)

    def when_read(self, file: LooseFile) -> Future[None]:
        """Read a file before others; return a future of the moment when that has ended."""
        future: Future[None] = Future()
        with self._lock:
            if file.is_known or self._is_closed or not self._has(file):
                future.set_result(None)
                return future
            file.waiting.append(future)
            if file in self._to_read:
                self._to_read.remove(file)
                self._to_read.appendleft(file)
                self._lock.notify_all()
        return future

    def _has(self, file: LooseFile) -> bool:
        return any(one is file for one in self._files.values())

    def _run(self) -> None:
        """Read what is queued, one file after another, until closed."""
        while True:
            with self._lock:
                self._lock.wait_for(lambda: self._is_closed or self._to_read)
                if self._is_closed:
                    for one in self._files.values():
                        one.release()
                    return
                file = self._to_read.popleft()
            started = time.monotonic()
            self._read(file)
            rest_s = time.monotonic() - started
            try:
                self.has_read()
            except Exception:
                logger.exception("what was read could not be offered")
            with self._lock:
                file.release()
                if self.kind is AddonKind.LORA:
                    # Half of the time at most, unless a request waits: the rest is the engine's.
                    self._lock.wait_for(self._is_hurried, rest_s)

    def _is_hurried(self) -> bool:
        return self._is_closed or any(one.waiting for one in self._to_read)

    def _read(self, file: LooseFile) -> None:
        name, started = file.path.stem, time.monotonic()
        shown = clean_text(str(file.path.relative_to(self.root)))
        try:
            addon = read_loose(self.kind, name, file.path, self._targets, self._watch(file))
        except ChangedError:
            with self._lock:
                file.state = State.SEEN  # what it is now is seen at the next look
            return
        except (LpwSdxlError, OSError) as error:
            if isinstance(error, OSError) or isinstance(error.__cause__, OSError):
                self._try_again(file, shown, error)  # that is no verdict on the file
                return
            if stamp_with_config(file.path) == file.stamp:
                logger.warning("%s %s is left out: %s", self.kind.noun, shown, error)
            self._refuse(file, str(error))  # last: an answer refers to the log
            return
        except Exception as error:
            logger.exception("%s %s is left out", self.kind.noun, shown)
            self._refuse(file, str(error))
            return
        with self._lock:
            file.state, file.addon, file.before = State.READ, addon, None
        size, seconds = addon.manifest.origin.size / 1e6, time.monotonic() - started
        logger.info("%s %s: %.1f MB read in %.2f s", self.kind.noun, shown, size, seconds)

    def _try_again(self, file: LooseFile, shown: str, error: Exception) -> None:
        """Queue a file for later that the disk did not give now."""
        with self._lock:
            if file.still_s < AGAIN_S:
                logger.warning("%s %s can't be read now: %s", self.kind.noun, shown, error)
            file.state, file.since = State.SEEN, time.monotonic()
            file.still_s = min(max(AGAIN_S, 2 * file.still_s), MOST_STILL_S)

    def _refuse(self, file: LooseFile, reason: str) -> None:
        with self._lock:
            file.state, file.reason, file.before = State.REFUSED, reason, None

    def _watch(self, file: LooseFile) -> Callable[[int], None]:
        """Return what stops the reading of a file that has changed."""
        seen = 0

        def note(done: int) -> None:
            nonlocal seen
            file.was_read = True
            if done - seen < LOOK_EVERY_BYTES:
                return
            seen = done
            if self._is_closed or stamp_with_config(file.path) != file.stamp:
                raise ChangedError

        return note


@dataclass(frozen=True)
class _Reading:
    """A file of a folder that is still being read."""

    folder: LooseFolder
    file: LooseFile

    def when_read(self) -> Future[None]:
        return self.folder.when_read(self.file)


def _named(addon: LooseAddon, name: str) -> LooseAddon:
    if addon.manifest.name == name:
        return addon
    return replace(addon, manifest=replace(addon.manifest, name=name))


def _is_text(name: str) -> bool:
    """Return whether a name can be written: a file's may hold any bytes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True

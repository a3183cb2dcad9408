"""Logs as lines of JSON: one object a line, from every logger and from print.

It knows nothing of BentoML: logging that is configured by now keeps its levels and streams, and
only the form of the lines changes. Nothing happens before `log_as_json` is called.
"""

from __future__ import annotations

import atexit
import io
import json
import logging
import sys
import threading
from datetime import UTC, datetime
from types import TracebackType
from typing import TextIO


class JsonFormatter(logging.Formatter):
    """A formatter of a record as one JSON object.

    Its keys are `time`, `level`, `logger`, `process`, `message`, and `exception` and `stack` where
    the record has them.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as a JSON object without line breaks."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "process": record.process,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack"] = record.stack_info
        return json.dumps(line)


def log_as_json() -> None:
    """Turn everything that this process writes from Python into lines of JSON.

    That is log records, warnings, uncaught exceptions, and printed text: a library's `print` and
    the sentence of a `sys.exit` become records of the loggers `stdout` and `stderr`. Output from
    outside Python stays as it is, such as a CUDA library's last message or a shell's `echo`.
    """
    formatter = JsonFormatter()
    for handler in _handlers():
        handler.setFormatter(formatter)
    logging.captureWarnings(capture=True)
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_in_thread
    sys.stdout = _wrap("stdout", logging.INFO, sys.stdout)
    sys.stderr = _wrap("stderr", logging.ERROR, sys.stderr)


class LineStream(io.TextIOBase):
    """A text stream whose lines become log records."""

    def __init__(self, logger: logging.Logger, level: int, original: TextIO) -> None:
        super().__init__()
        self._logger = logger
        self._level = level
        self._original = original
        self._rest = ""
        self._lock = threading.RLock()

    def write(self, text: str) -> int:
        """Log the complete lines and keep the rest."""
        with self._lock:
            *lines, self._rest = (self._rest + text).split("\n")
            for line in lines:
                self._log(line)
        return len(text)

    def finish(self) -> None:
        """Log the last line, which has no line end."""
        with self._lock:
            rest, self._rest = self._rest, ""
            self._log(rest)

    def fileno(self) -> int:
        """Return the original's descriptor: `faulthandler` and child processes write there."""
        return self._original.fileno()

    def isatty(self) -> bool:
        """Return False, so that libraries write no colours and no progress bars."""
        return False

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Return the encoding, for libraries that read it."""
        return "utf-8"

    def _log(self, line: str) -> None:
        text = line.rpartition("\r")[2].rstrip()  # the last state of a progress bar
        if text:
            self._logger.log(self._level, "%s", text)


def _wrap(name: str, level: int, original: TextIO) -> TextIO:
    """Wrap a stream so that each line is written to it as a JSON record."""
    logger = logging.getLogger(name)
    logger.setLevel(logging.INFO)
    logger.propagate = False  # the root's handlers may write elsewhere, or drop a level
    handler = logging.StreamHandler(original)
    handler.setFormatter(JsonFormatter())
    logger.handlers = [handler]
    stream = LineStream(logger, level, original)
    atexit.register(stream.finish)
    return stream  # type: ignore[return-value]


def _handlers() -> list[logging.Handler]:
    """Return every handler of every logger."""
    named = list(logging.root.manager.loggerDict.values())
    loggers = [logging.root, *(one for one in named if isinstance(one, logging.Logger))]
    return [handler for logger in loggers for handler in logger.handlers]


def _log_uncaught(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    level = logging.INFO if issubclass(kind, KeyboardInterrupt) else logging.CRITICAL
    logging.getLogger("stderr").log(
        level, "%s ended the process", kind.__name__, exc_info=(kind, error, trace)
    )


def _log_uncaught_in_thread(arguments: threading.ExceptHookArgs) -> None:
    if arguments.exc_value is None or issubclass(arguments.exc_type, SystemExit):
        return
    name = arguments.thread.name if arguments.thread else "a thread"
    logging.getLogger("stderr").error(
        "%s ended thread %s",
        arguments.exc_type.__name__,
        name,
        exc_info=(arguments.exc_type, arguments.exc_value, arguments.exc_traceback),
    )

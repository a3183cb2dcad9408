"""The output of the import's command line: rows of facts, notes, and progress.

On a terminal, a table and bars (rich); elsewhere plain lines that a log can keep.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

_LINE_EVERY_S = 2.0
_TITLES = {
    "download": "downloading",
    "hash": "hashing",
    "convert": "converting",
    "verify": "comparing with the source",
    "generate": "trying one step",
}

Row = tuple[str, str]
"""A fact: its name and its value."""


class ImportConsole:
    """Shows rows, notes and progress on standard output, until it is closed."""

    def __init__(self, console: Console | None = None) -> None:
        # A file's name or a server's words are no markup, and a log's lines are not wrapped.
        self._console = console or _PatientConsole(
            markup=False, emoji=False, highlight=False, soft_wrap=True
        )
        # A dumb terminal can't redraw a bar.
        self._has_bars = self._console.is_terminal and not self._console.is_dumb_terminal
        self._bars = Progress(
            TextColumn("{task.description:<26}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._has_bars,
        )
        self._tasks: dict[str, TaskID] = {}
        self._stage = ""
        self._line_at = 0.0
        self._began_at = 0.0

    def __enter__(self) -> ImportConsole:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def show(self, rows: Sequence[Row]) -> None:
        """Show a table of names and values."""
        if not self._has_bars:
            for name, value in rows:
                self.print_line(f"{name}: {value}")
            return
        table = Table.grid(padding=(0, 2))
        for name, value in rows:
            table.add_row(name, value)
        self._console.print(table)

    def print_line(self, line: str) -> None:
        """Show one line, above the bars."""
        self._console.print(line)

    def progress(self, stage: str, done: int, total: int) -> None:
        """Show how far a stage is; the numbers are those of `Progress` in progress.py."""
        if self._has_bars and stage != "generate":  # one step needs no bar
            self._move_bar(stage, done, total)
        else:
            self._print_line(stage, done, total)

    def _move_bar(self, stage: str, done: int, total: int) -> None:
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(_TITLES.get(stage, stage), total=None)
        self._bars.update(self._tasks[stage], completed=done, total=total or None)

    def _print_line(self, stage: str, done: int, total: int) -> None:
        """Print when a stage begins and ends, and every few seconds between."""
        now = time.monotonic()
        is_new = stage != self._stage
        is_last = 0 < total <= done
        if not (is_new or is_last) and now - self._line_at < _LINE_EVERY_S:
            return
        if is_new:
            self._stage, self._began_at = stage, now
        self._line_at = now
        self.print_line(_line(stage, done, total, now - self._began_at))


def _line(stage: str, done: int, total: int, seconds: float) -> str:
    title = _TITLES.get(stage, stage)
    if stage == "generate":
        return f"{title}: {'done' if done else 'begun'}"
    of_all = f" of {total / 1e6:,.0f}" if total else ""
    rate = f", {done / 1e6 / seconds:,.0f} MB/s" if seconds > 0 and done else ""
    return f"{title}: {done / 1e6:,.0f}{of_all} MB{rate}"


def facts(values: Mapping[str, object]) -> list[Row]:
    """Turn a manifest's description into rows."""
    return [(name.replace("_", " "), _text(value)) for name, value in values.items()]


def _text(value: object) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{key} ({count})" for key, count in value.items()) or "nothing"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return str(value) if value != "" else "-"


class _PatientConsole(Console):
    """A console that goes on when its output is no longer read, as behind `| head`."""

    def on_broken_pipe(self) -> None:
        silence_output()


def silence_output() -> None:
    """Discard everything that is still written to standard output."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

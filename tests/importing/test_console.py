"""What the user sees: plain lines in a log, a table and bars on a terminal."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from lpw_sdxl.checkpoint.inspect import summarise
from lpw_sdxl.importing import console as module
from lpw_sdxl.importing.checkpoints import summary_rows
from lpw_sdxl.importing.console import ImportConsole, facts
from tests.checkpoint.conftest import header_of
from tests.checkpoint.test_kinds import FILES, SDXL

MB = 10**6
MARKED_UP = "[red]x[/red].safetensors"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that the test sets; its one number is the time."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_a_log_has_a_line_at_begin_end_and_every_two_seconds(
    capsys: pytest.CaptureFixture[str], clock: list[float]
):
    with ImportConsole() as console:
        for step in range(101):
            clock[0] = 100 + step / 20  # 5 seconds in all
            console.progress("hash", step * MB, 100 * MB)
        console.progress("generate", 0, 1)
        console.progress("generate", 1, 1)
    assert capsys.readouterr().out.splitlines() == [
        "hashing: 0 of 100 MB",
        "hashing: 40 of 100 MB, 20 MB/s",
        "hashing: 80 of 100 MB, 20 MB/s",
        "hashing: 100 of 100 MB, 20 MB/s",
        "trying one step: begun",
        "trying one step: done",
    ]


def test_each_stage_counts_its_own_time(capsys: pytest.CaptureFixture[str], clock: list[float]):
    with ImportConsole() as console:
        for stage in ("download", "hash", "convert", "verify"):
            console.progress(stage, 0, 10 * MB)
            clock[0] += 5
            console.progress(stage, 10 * MB, 10 * MB)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[::2]] == [
        "downloading",
        "hashing",
        "converting",
        "comparing with the source",
    ]
    assert all(line.endswith("10 of 10 MB, 2 MB/s") for line in lines[1::2])


def test_an_unknown_total_is_left_out(capsys: pytest.CaptureFixture[str], clock: list[float]):
    with ImportConsole() as console:
        console.progress("download", 0, 0)
        clock[0] += 4
        console.progress("download", 8 * MB, 0)
    assert capsys.readouterr().out == "downloading: 0 MB\ndownloading: 8 MB, 2 MB/s\n"


def test_a_log_has_no_escape_and_no_wrapped_line(capsys: pytest.CaptureFixture[str]):
    name = "long " * 100
    with ImportConsole() as console:
        console.show([("file", name)])
        console.print_line(name)
        console.progress("hash", 0, MB)
    captured = capsys.readouterr()
    assert captured.out.splitlines()[:2] == [f"file: {name}", name]
    assert "\x1b" not in captured.out
    assert captured.err == ""


@pytest.mark.parametrize("name", [MARKED_UP, "[/]", "[bold]", ":smile:", "a[link=x]b", "{x}"])
def test_a_files_name_is_printed_as_it_is(capsys: pytest.CaptureFixture[str], name: str):
    header = header_of(SDXL)
    with ImportConsole() as console:
        console.show(summary_rows(name, 12, summarise(header)))
        console.print_line(f"{name} is here")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"file: {name}"
    assert lines[-1] == f"{name} is here"


def _terminal() -> tuple[Console, StringIO]:
    text = StringIO()
    terminal = Console(
        force_terminal=True, file=text, width=100, markup=False, highlight=False, color_system=None
    )
    return terminal, text


def test_a_terminal_has_a_table_and_bars():
    terminal, text = _terminal()
    with ImportConsole(terminal) as console:
        console.show(summary_rows(MARKED_UP, 12, summarise(header_of(SDXL))))
        for stage in ("download", "hash", "convert", "verify"):
            console.progress(stage, 0, 0)
            console.progress(stage, 50 * MB, 100 * MB)
            console.print_line(f"{MARKED_UP} goes on")
            console.progress(stage, 100 * MB, 100 * MB)
        console.progress("generate", 0, 1)
        console.progress("generate", 1, 1)
    shown = text.getvalue()
    for part in ("downloading", "hashing", "converting", "comparing with the source", "━"):
        assert part in shown
    assert "100.0/100.0 MB" in shown
    assert f"file           {MARKED_UP}" in shown
    assert f"{MARKED_UP} goes on\n" in shown
    assert shown.count("trying one step") == 2


def test_an_error_gives_the_terminal_back():
    terminal, text = _terminal()

    def interrupted() -> None:
        with ImportConsole(terminal) as console:
            console.progress("hash", MB, 2 * MB)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert "\x1b[?25h" in text.getvalue()  # the cursor is shown again


def test_rows_say_what_a_file_is():
    rows = dict(summary_rows("a", 6_938_041_110, summarise(header_of(SDXL))))
    assert rows["is"] == "an SDXL checkpoint"
    assert rows["size"] == "6.94 GB, 6,938,041,110 bytes"
    assert rows["dtypes"] == "F16 (7)"
    assert rows["predicts"] == "epsilon"
    assert rows["schedule type"].startswith("leading; --schedule-type TYPE sets another")
    assert rows["native size"].startswith("1024x1024 pixels (SDXL's")
    assert (rows["VAE"], rows["EMA weights"]) == ("inside", "none inside")


def test_rows_say_what_is_told_and_what_is_missing():
    shapes = {k: s for k, s in SDXL.items() if "first_stage" not in k}
    shapes |= {"model_ema.decay": (), "v_pred": (0,), "ztsnr": (0,)}
    header = header_of(shapes, **{"modelspec.resolution": "832x1216"})
    rows = dict(summary_rows("a", 1, summarise(header)))
    assert rows["predicts"] == "v_prediction, zero terminal SNR"
    assert rows["schedule type"].startswith("trailing; ")
    assert rows["native size"] == "832x1216 pixels"
    assert "--vae FILE" in rows["VAE"]
    assert "--ema" in rows["EMA weights"]


@pytest.mark.parametrize("kind", list(FILES), ids=lambda kind: kind.name)
def test_rows_of_what_is_not_served_end_with_the_advice(kind):
    rows = summary_rows("a", 1, summarise(header_of(FILES[kind][0])))
    assert rows[1] == ("is", kind.title)
    assert rows[-1] == ("can't be imported", kind.advice)


def test_facts_are_one_line_each():
    values = {"source_file": "a", "ignored": {"EMA weights": 3}, "trained_words": [], "ema": False}
    assert facts(values) == [
        ("source file", "a"),
        ("ignored", "EMA weights (3)"),
        ("trained words", "none"),
        ("ema", "False"),
    ]
    assert facts({"ignored": {}}) == [("ignored", "nothing")]

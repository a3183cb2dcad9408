"""`python -m lpw_sdxl.parameters`, in this process."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from lpw_sdxl.parameters.__main__ import main
from tests.parameters.pictures import TEXT, jpeg, plain, png


def test_a_picture_is_printed_as_a_request(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "picture.png"
    file.write_bytes(png(plain(TEXT)))
    assert main([str(file)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["request"]["prompt"] == "a cat"
    assert printed["request"]["scheduler"] == "Euler a"
    assert [one["name"] for one in printed["not_honoured"]] == ["missing"]


def test_a_text_is_read_from_a_file_and_from_standard_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "text.txt"
    file.write_text(TEXT)
    assert main([str(file)]) == 0
    from_file = capsys.readouterr().out
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TEXT.encode())))
    assert main(["-"]) == 0
    assert capsys.readouterr().out == from_file


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (jpeg(None), "the file holds no text of how it was made"),
        (b"", "parameters is empty"),
        (None, "No such file"),
    ],
)
def test_a_failure_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, sentence: str
) -> None:
    file = tmp_path / "file"
    if content is not None:
        file.write_bytes(content)
    assert main([str(file)]) == 1
    written = capsys.readouterr()
    assert written.out == ""
    assert sentence in written.err
    assert len(written.err.strip().splitlines()) == 1

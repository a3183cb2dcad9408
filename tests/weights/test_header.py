"""Reading a safetensors header: what is whole is read, what is not is refused in one sentence."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import random
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from safetensors import deserialize, safe_open

from lpw_sdxl.errors import CheckpointError, UnsupportedCheckpointError
from lpw_sdxl.weights.header import MAX_HEADER_BYTES, read_header
from lpw_sdxl.weights.header_json import MAX_NAME_CHARACTERS, MAX_TENSORS
from tests.forge.raw import safetensors_bytes

A = {"dtype": "F16", "shape": [2, 3], "data_offsets": [0, 12]}


def test_metadata_of_null_is_no_metadata(tmp_path: Path):
    """As safetensors' own reader has it."""
    path = tmp_path / "null.safetensors"
    path.write_bytes(safetensors_bytes({"__metadata__": None, "a": A}, bytes(12)))
    with safe_open(path, "pt") as file:
        assert (file.metadata(), list(file.keys())) == (None, ["a"])
    header = read_header(path)
    assert (dict(header.metadata), list(header.tensors)) == ({}, ["a"])


def test_offsets_are_counted_from_the_start_of_the_file(tiny_checkpoint: Path):
    header = read_header(tiny_checkpoint)
    assert header.file_size == tiny_checkpoint.stat().st_size
    assert header.metadata["modelspec.resolution"] == "128x96"
    with safe_open(tiny_checkpoint, "pt") as file:
        assert set(file.keys()) == set(header.tensors)
        name = "first_stage_model.decoder.conv_in.weight"
        info = header.tensors[name]
        raw = tiny_checkpoint.read_bytes()[info.start : info.end]
        assert raw == file.get_tensor(name).numpy().tobytes()


DAMAGED = {
    "empty": b"",
    "short": b"\x08\0\0",
    "no header": b"\x10\0\0\0\0\0\0\0hello, world, hi",
    "header cut off": safetensors_bytes({"a": A})[:-4],
    "header too long": (MAX_HEADER_BYTES + 1).to_bytes(8, "little") + b"{}",
    "header beyond file": (10**18).to_bytes(8, "little") + b"{}",
    "not JSON": safetensors_bytes(b"{" * 40),
    "not text": safetensors_bytes(b"{\xff\xfe\xfd}"),
    "deep JSON": safetensors_bytes(b'{"a":' + b"[" * 200_000),
    "name twice": safetensors_bytes(b'{"a": 1, "a": 2}'),
    "metadata no object": safetensors_bytes({"__metadata__": 3}),
    "metadata no text": safetensors_bytes({"__metadata__": {"a": 3}}),
    "entry no object": safetensors_bytes({"a": [1]}),
    "no dtype": safetensors_bytes({"a": {"shape": [1], "data_offsets": [0, 2]}}, b"12"),
    "no name": safetensors_bytes({"": A}, bytes(12)),
    "a name of control characters": safetensors_bytes({"\x00 ": A}, bytes(12)),
    "unknown dtype": safetensors_bytes({"a": {**A, "dtype": "F17"}}, bytes(12)),
    "no shape": safetensors_bytes({"a": {**A, "shape": None}}, bytes(12)),
    "negative size": safetensors_bytes({"a": {**A, "shape": [-2, -3]}}, bytes(12)),
    "true as size": safetensors_bytes({"a": {**A, "shape": [True, 6]}}, bytes(12)),
    "fraction as size": safetensors_bytes({"a": {**A, "shape": [1.5, 4]}}, bytes(12)),
    "huge size": safetensors_bytes({"a": {**A, "shape": [2**63, 2**63]}}, bytes(12)),
    "one offset": safetensors_bytes({"a": {**A, "data_offsets": [0]}}, bytes(12)),
    "size and shape differ": safetensors_bytes({"a": {**A, "shape": [2, 4]}}, bytes(12)),
    "gap": safetensors_bytes({"a": A, "b": {**A, "data_offsets": [14, 26]}}, bytes(26)),
    "overlap": safetensors_bytes({"a": A, "b": {**A, "data_offsets": [6, 18]}}, bytes(18)),
    "data cut off": safetensors_bytes({"a": A}, bytes(11)),
    "trailing bytes": safetensors_bytes({"a": A}, bytes(13)),
    "many tensors": safetensors_bytes(
        {str(i): {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for i in range(MAX_TENSORS)}
        | {"a": A, "b": {"dtype": "U8", "shape": [0], "data_offsets": [12, 12]}},
        bytes(12),
    ),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED.keys())
def test_damaged_file_is_refused_in_one_sentence(tmp_path: Path, content: bytes):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as refused:
        read_header(path)
    message = str(refused.value)
    assert message.startswith("model.safetensors ")
    assert message.endswith(".")
    assert "\n" not in message
    assert len(message) < 300


FOREIGN = {
    "web page": b"<!DOCTYPE html><html><title>Log in</title></html>",
    "padded page": b"\n\n  <html><title>Log in</title></html>",
    "zip archive": b"PK\x03\x04archive/data.pkl",
    "pickle": b"\x80\x02}q\x00(X\x05",
    "GGUF": b"GGUF\x03\0\0\0\0\0\0\0",
    "Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:00",
}


@pytest.mark.parametrize(("name", "content"), FOREIGN.items(), ids=FOREIGN.keys())
def test_other_format_is_named(tmp_path: Path, name: str, content: bytes):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(UnsupportedCheckpointError, match=name.removeprefix("padded ")):
        read_header(path)


TRUE_FOREIGN = [
    *(("pickle", pickle.dumps({"a": [1.0] * 99}, protocol=protocol)) for protocol in (2, 3, 4, 5)),
    ("gzip archive", gzip.compress(bytes(9999), mtime=1_700_000_000)),
    ("gzip archive", gzip.compress(b"{" * 9999, mtime=0)),
    ("web page", b"<html>\n {</html>"),
    ("web page", b" <html> {" + b" " * 9999),
]


@pytest.mark.parametrize(("name", "content"), TRUE_FOREIGN, ids=[name for name, _ in TRUE_FOREIGN])
def test_a_true_file_of_another_format_is_named(tmp_path: Path, name: str, content: bytes):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(UnsupportedCheckpointError, match=f" is a (Python )?{name}"):
        read_header(path)


def test_a_true_archive_is_named_whatever_its_first_member(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w", method) as archive:
            archive.writestr("{", "{" * 999)
        path.write_bytes(content.getvalue())
        with pytest.raises(UnsupportedCheckpointError, match="a zip archive"):
            read_header(path)


def _with_header_length(length: int, data: bytes = bytes(12)) -> bytes:
    """A file whose JSON is padded with blanks, as the format allows."""
    return safetensors_bytes(json.dumps({"a": A}).encode().ljust(length), data)


def _lengths(every: int, modulo: int) -> Iterator[int]:
    """Every remainder of a header's length, each in its shortest header."""
    shortest = len(json.dumps({"a": A}))
    for rest in range(0, modulo, every):
        yield rest if rest >= shortest else rest + modulo


@pytest.mark.parametrize(
    ("every", "modulo", "count"),
    [pytest.param(8, 65536, 8192, marks=pytest.mark.thorough), (1, 256, 256)],
    ids=["all padded lengths", "all first bytes"],
)
def test_a_length_that_begins_like_another_format_is_a_length(
    tmp_path: Path, every: int, modulo: int, count: int
):
    """0x0280 begins like a pickle, 0x3c20 like a web page, 0x8b1f like gzip."""
    path = tmp_path / "model.safetensors"
    begun = set()
    for length in _lengths(every, modulo):
        content = _with_header_length(length)
        path.write_bytes(content)
        assert read_header(path).tensors["a"].start == 8 + length, hex(length)
        assert [name for name, _ in deserialize(content)] == ["a"]  # the library's own reader
        begun.add(length % modulo)
    assert len(begun) == count


@pytest.mark.parametrize("length", [0x0280, 0x0480, 0x3C20, 0x8B1F])
def test_a_header_like_another_format_is_read_of_a_download(tmp_path: Path, length: int):
    path = tmp_path / "model.safetensors"
    path.write_bytes(_with_header_length(length, data=b""))
    assert read_header(path, full_size=8 + length + 12).tensors["a"].end == 8 + length + 12


def test_a_length_beyond_the_file_is_no_header(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"PK\x03\x04\x00\x00\x00\x00{}")
    with pytest.raises(UnsupportedCheckpointError, match="a zip archive"):
        read_header(path)


def test_missing_file_and_folder_are_refused_by_name(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"nothing\.safetensors can't be read: No such file"):
        read_header(tmp_path / "nothing.safetensors")
    with pytest.raises(CheckpointError, match="can't be read: it is not a file"):
        read_header(tmp_path)


def test_a_pipe_is_not_waited_for(tmp_path: Path):
    path = tmp_path / "pipe.safetensors"
    os.mkfifo(path)
    with pytest.raises(CheckpointError, match=r"pipe\.safetensors can't be read: it is not a file"):
        read_header(path)


def test_empty_tensors_are_no_gap(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    entries = {"e": {"dtype": "F32", "shape": [0, 4], "data_offsets": [0, 0]}, "a": A}
    path.write_bytes(safetensors_bytes(entries, bytes(12)))
    assert read_header(path).tensors["e"].shape == (0, 4)


@pytest.mark.parametrize("seed", range(4))
def test_mutated_headers_are_read_or_refused_but_never_crash(
    write_file: Callable[..., Path], seed: int
):
    draw = random.Random(seed)
    path = write_file({f"tensor.{index}": (2, index) for index in range(1, 9)}, author="me")
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    refused = 0
    for _ in range(300):
        content = bytearray(whole)
        for _ in range(draw.randint(1, 4)):
            content[draw.randrange(8 + length)] = draw.randrange(256)
        path.write_bytes(content[: draw.choice([len(content), draw.randrange(len(content))])])
        try:
            header = read_header(path)
        except CheckpointError:
            refused += 1
        else:
            assert all(info.end <= path.stat().st_size for info in header.tensors.values())
    assert refused > 200


def test_reader_agrees_with_the_safetensors_library(write_file: Callable[..., Path]):
    path = write_file({"a": (3, 4), "b": (), "c": (5,)})
    with safe_open(path, "np") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    assert {name: info.shape for name, info in read_header(path).tensors.items()} == shapes
    assert json.loads(path.read_bytes()[8:].split(b"}}")[0] + b"}}")["a"]["dtype"] == "F16"


def _many(entry: str, count: int) -> bytes:
    return ("{" + ",".join(f'"{index}":{entry}' for index in range(count)) + "}").encode()


def _tensors(name: str, count: int = MAX_TENSORS) -> bytes:
    """A header of tensors without numbers, as many as there may be."""
    entry = '{"dtype":"F16","shape":[0],"data_offsets":[0,0]}'
    return ("{" + ",".join(f'"{index}{name}":{entry}' for index in range(count)) + "}").encode()


MILLION = 1_000_000
COSTLY = {
    "junk names": (_many("0", MILLION), "more than 100,000 names"),
    "empty objects": (_many("{}", MILLION), "more than 100,000 names"),
    "notes": (b'{"__metadata__":' + _many('""', MILLION) + b"}", "more than 100,000 names"),
    "one name": (b'{"' + b"a" * 9 * MILLION + b'":0}', "a name of 9,000,000 characters"),
    "a name of escapes": (b'{"' + rb"\u001b" * MILLION + b'":0}', "a name of 6,000,000 characters"),
    "long names": (_tensors("x" * 300), "a name of 301 characters"),
    "numbers": (b'{"a":[' + b"0," * MILLION + b"0]}", "more than 800,000 values"),
    "lists": (_many("[" * 200 + "]" * 200, 20_000), "more than 800,000 values"),
    "nest": (b'{"a":' + b"[" * 9 * MILLION, "more than 800,000 values"),
    "objects in objects": (b'{"a":' * MILLION, "more than 800,000 values|more than 100,000 names"),
    "digits": (b'{"a":' + b"1" * 9 * MILLION + b"}", "not the JSON it should be"),
    "blanks inside": (b'{"a"' + b" " * 9 * MILLION + b":0}", "not the JSON it should be"),
    "escapes": (b'{"a":"' + b"\\n" * 11 * MILLION + b'"}', "more than 10,000,000 escaped"),
    "an unclosed text": (b'{"a":"' + rb"\"" * 9 * MILLION, "not the JSON it should be"),
}


@pytest.mark.parametrize(("header", "reason"), COSTLY.values(), ids=COSTLY)
def test_a_costly_header_is_refused_before_it_is_made_into_anything(
    tmp_path: Path, header: bytes, reason: str
):
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors_bytes(header))
    started = time.process_time()
    with pytest.raises(CheckpointError, match=reason) as refused:
        read_header(path)
    assert time.process_time() - started < 1.0
    assert len(str(refused.value)) < 300


def test_notes_of_many_megabytes_are_read(tmp_path: Path):
    notes = {"ss_tag_frequency": json.dumps({f"tag {index}": index for index in range(200_000)})}
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors_bytes({"__metadata__": notes, "a": A}, bytes(12)))
    assert dict(read_header(path).metadata) == notes


def test_names_as_long_and_as_many_as_may_be_are_read(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors_bytes(_tensors("x" * (MAX_NAME_CHARACTERS - 5))))
    assert len(read_header(path).tensors) == MAX_TENSORS
    assert MAX_NAME_CHARACTERS > 200

"""Damaged, truncated and forged files: every one refused in one sentence, before the store changes.

The files are made from a whole tiny checkpoint's header; its weights are zeros, in a hole of the
file. Some in `make test`, 1,500 in `make test-long`. LPW_TEST_SEED repeats a run.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lpw_sdxl.checkpoint.synthetic import POSITION_IDS

ROOT = Path(__file__).parents[2]
Entries = dict[str, dict]


class Forgery:
    """A checkpoint's header that is about to be spoilt, and the size of its weights."""

    def __init__(self, entries: Entries, chance: random.Random) -> None:
        self.entries = json.loads(json.dumps(entries))
        self.size = max(entry["data_offsets"][1] for entry in entries.values())
        self.chance = chance

    @property
    def name(self) -> str:
        return self.chance.choice([*self.entries])

    def write(self, path: Path, text: bytes | None = None, length: int | None = None) -> None:
        """Write the file as it should be, but for what is given."""
        text = json.dumps(self.entries, separators=(",", ":")).encode() if text is None else text
        with path.open("wb") as file:
            file.write((len(text) if length is None else length).to_bytes(8, "little") + text)
            file.truncate(8 + len(text) + self.size)


def truncate(forgery: Forgery, path: Path) -> None:
    forgery.write(path)
    size = path.stat().st_size
    # Half of the cuts within the header, which is but a hundredth of the file.
    end = forgery.chance.choice([size, size - forgery.size])
    os.truncate(path, forgery.chance.randrange(end))


def append(forgery: Forgery, path: Path) -> None:
    forgery.write(path)
    with path.open("ab") as file:
        file.write(forgery.chance.randbytes(forgery.chance.randint(1, 100)))


def flip_in_header(forgery: Forgery, path: Path) -> None:
    text = bytearray(json.dumps(forgery.entries, separators=(",", ":")).encode())
    position = forgery.chance.randrange(len(text))
    text[position] ^= 1 << forgery.chance.randrange(8)
    forgery.write(path, bytes(text))


def overwrite_in_header(forgery: Forgery, path: Path) -> None:
    text = bytearray(json.dumps(forgery.entries, separators=(",", ":")).encode())
    for _ in range(forgery.chance.randint(1, 8)):
        position = forgery.chance.randrange(len(text))
        text[position] = (text[position] + forgery.chance.randint(1, 255)) % 256
    forgery.write(path, bytes(text))


def lie_about_the_header(forgery: Forgery, path: Path) -> None:
    right = len(json.dumps(forgery.entries, separators=(",", ":")))
    wrong = [0, 1, right - 1, right + 1, 2 * right, 2**31, 2**62, 2**64 - 1]
    forgery.write(path, length=forgery.chance.choice(wrong))


def drop_a_tensor(forgery: Forgery, path: Path) -> None:
    del forgery.entries[forgery.name]
    forgery.write(path)


def drop_a_tensor_and_close_the_gap(forgery: Forgery, path: Path) -> None:
    dropped = forgery.entries.pop(forgery.name)["data_offsets"]
    size = dropped[1] - dropped[0]
    for entry in forgery.entries.values():
        if entry["data_offsets"][0] >= dropped[1]:
            entry["data_offsets"] = [offset - size for offset in entry["data_offsets"]]
    forgery.size -= size
    forgery.write(path)


def rename_a_tensor(forgery: Forgery, path: Path) -> None:
    name = forgery.name
    renamed = forgery.chance.choice([name + ".x", name[:-1], name.replace(".", "/"), "", "\x00"])
    forgery.entries[renamed] = forgery.entries.pop(name)
    forgery.write(path)


def name_a_tensor_twice(forgery: Forgery, path: Path) -> None:
    name = forgery.name
    text = json.dumps(forgery.entries, separators=(",", ":"))
    entry = json.dumps({name: forgery.entries[name]}, separators=(",", ":"))
    forgery.write(path, f"{text[:-1]},{entry[1:]}".encode())


def spoil_a_field(forgery: Forgery, path: Path) -> None:
    chance = forgery.chance
    entry = forgery.entries[forgery.name]
    field = chance.choice([*entry])
    nonsense = [None, 1, -1, 1.5, "x", [], {}, [None], [-1], [2**70], [1] * 100, True, [[1]], "F4"]
    entry[field] = chance.choice(nonsense)
    if field == "shape" and entry[field] == []:
        entry[field] = [0]
    forgery.write(path)


def move_offsets(forgery: Forgery, path: Path) -> None:
    entry = forgery.entries[forgery.name]
    shift = forgery.chance.choice([-4, -2, -1, 1, 2, 4, 2**40])
    entry["data_offsets"] = [offset + shift for offset in entry["data_offsets"]]
    forgery.write(path)


def another_dtype_of_the_same_size(forgery: Forgery, path: Path) -> None:
    entry = forgery.entries[forgery.name]
    entry["dtype"] = forgery.chance.choice(["I16", "U16"])
    forgery.write(path)


def another_shape_of_the_same_size(forgery: Forgery, path: Path) -> None:
    shaped = [e for e in forgery.entries.values() if e["shape"] != e["shape"][::-1]]
    entry = forgery.chance.choice(shaped)
    entry["shape"] = entry["shape"][::-1]
    forgery.write(path)


def add_a_tensor(forgery: Forgery, path: Path) -> None:
    entry = {"dtype": "F16", "shape": [2], "data_offsets": [forgery.size, forgery.size + 4]}
    name = forgery.chance.choice(
        ["edm_mean", "model.diffusion_model.more", "x.lora_up.weight", "a.absmax", "é" * 9]
    )
    forgery.entries[name] = entry
    forgery.size += 4
    forgery.write(path)


def put_in_nan(forgery: Forgery, path: Path) -> None:
    forgery.write(path)
    data_start = path.stat().st_size - forgery.size
    start, end = forgery.entries[forgery.name]["data_offsets"]
    with path.open("r+b") as file:
        file.seek(data_start + start + 2 * forgery.chance.randrange((end - start) // 2))
        file.write(forgery.chance.choice([b"\x00\x7e", b"\x00\x7c", b"\x00\xfc", b"\xff\xff"]))


def other_json(forgery: Forgery, path: Path) -> None:
    text = forgery.chance.choice(
        [b"", b"null", b"[]", b"3", b'"x"', b"{", b"{}", b"[" * 50_000, b'{"a":' * 9_000, b"\xff"]
    )
    forgery.write(path, text)


def other_format(forgery: Forgery, path: Path) -> None:
    forgery.write(path)
    magic = [b"PK\x03\x04", b"\x80\x02}q", b"GGUF\x03", b"<!DOCTYPE html>", b"\x1f\x8b\x08", b"{"]
    with path.open("r+b") as file:
        file.write(forgery.chance.choice(magic))


def noise(forgery: Forgery, path: Path) -> None:
    path.write_bytes(forgery.chance.randbytes(forgery.chance.randrange(300)))


MUTATIONS: tuple[Callable[[Forgery, Path], None], ...] = (
    truncate,
    append,
    flip_in_header,
    overwrite_in_header,
    lie_about_the_header,
    drop_a_tensor,
    drop_a_tensor_and_close_the_gap,
    rename_a_tensor,
    name_a_tensor_twice,
    spoil_a_field,
    move_offsets,
    another_dtype_of_the_same_size,
    another_shape_of_the_same_size,
    add_a_tensor,
    put_in_nan,
    other_json,
    other_format,
    noise,
)


@pytest.fixture(scope="module")
def entries(tiny_checkpoint: Path) -> Entries:
    """The tiny checkpoint's header without what may change without harm."""
    content = tiny_checkpoint.read_bytes()
    entries = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    for name in ("__metadata__", POSITION_IDS):
        del entries[name]
    position = 0
    for entry in entries.values():
        size = entry["data_offsets"][1] - entry["data_offsets"][0]
        entry["data_offsets"] = [position, position + size]
        position += size
    return entries


@pytest.mark.parametrize(
    "count", [90, pytest.param(1500, marks=[pytest.mark.slow, pytest.mark.timeout(3000)])]
)
def test_a_spoilt_file_is_refused_and_the_store_stays(
    entries: Entries, store_home: Path, tmp_path: Path, capsys, count: int
):
    spec = importlib.util.spec_from_file_location("model_import", ROOT / "model_import.py")
    command_line = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(command_line)
    whole = tmp_path / "whole.safetensors"
    Forgery(entries, random.Random(0)).write(whole)
    assert command_line.main(["checkpoint", str(whole)]) == 0, "unspoilt, it is imported"
    before = _snapshot(store_home)

    seed = int(os.environ.get("LPW_TEST_SEED", time.time_ns() % 10**6))
    path = tmp_path / "spoilt.safetensors"
    for number in range(count):
        mutate = MUTATIONS[number % len(MUTATIONS)]
        mutate(Forgery(entries, random.Random(seed + number)), path)
        where = f"LPW_TEST_SEED={seed + number} {mutate.__name__}"
        capsys.readouterr()
        status = command_line.main(["checkpoint", str(path)])
        sentence = capsys.readouterr().err
        assert status == 1, where
        assert sentence.startswith("model_import: "), where
        assert sentence.count("\n") == 1, (where, sentence)
        assert len(sentence) < 1000, (where, sentence)
        assert _snapshot(store_home) == before, where


def _snapshot(home: Path) -> dict[str, int]:
    return {
        str(path.relative_to(home)): path.stat().st_mtime_ns
        for path in home.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }

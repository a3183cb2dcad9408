"""Damaged, truncated and forged safetensors files, made from a whole one's header.

Each mutation spoils a file so that it can't be what it was; `flip_in_the_weights` stands apart.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path

Entries = dict[str, dict]


class Forgery:
    """A file's header that is about to be spoilt, and its weights, or their size if all are 0."""

    def __init__(self, entries: Entries, chance: random.Random, data: bytes = b"") -> None:
        self.entries = json.loads(json.dumps(entries))
        self.size = max(entry["data_offsets"][1] for entry in entries.values())
        self.chance = chance
        self.data = data

    @property
    def name(self) -> str:
        return self.chance.choice([*self.entries])

    def write(self, path: Path, text: bytes | None = None, length: int | None = None) -> None:
        """Write the file as it should be, but for what is given."""
        text = json.dumps(self.entries, separators=(",", ":")).encode() if text is None else text
        with path.open("wb") as file:
            file.write(
                (len(text) if length is None else length).to_bytes(8, "little")
                + text
                + self.data[: self.size]
            )
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
        ["edm_mean", "model.diffusion_model.é", "vae.more", "x.lora_up.weight", "a.absmax"]
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


def flip_in_the_weights(forgery: Forgery, path: Path) -> None:
    """What only a hash can tell, unless a number is no longer finite."""
    forgery.write(path)
    data_start = path.stat().st_size - forgery.size
    with path.open("r+b") as file:
        file.seek(data_start + forgery.chance.randrange(forgery.size))
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ (1 << forgery.chance.randrange(8))]))


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


Mutation = Callable[[Forgery, Path], None]
MUTATIONS: tuple[Mutation, ...] = (
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


def entries_of(content: bytes) -> Entries:
    """The header of a whole file, without its notes."""
    entries = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    entries.pop("__metadata__", None)
    return entries

"""CLIP's tokenizer as files that Transformers loads; knows nothing about tensors.

The vocabulary is not stored: it follows from the merges. 256 byte symbols, the same 256 at a word's
end, one entry for each merge and two special tokens make CLIP's 49,408 entries (Radford et al.,
"Learning Transferable Visual Models From Natural Language Supervision", 2021, and its published
`simple_tokenizer.py`).
"""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

from lpw_sdxl.checkpoint.published import read_config

START_TOKEN = "<|startoftext|>"  # noqa: S105 - not a secret: 49406, opens every prompt
END_TOKEN = "<|endoftext|>"  # noqa: S105 - 49407, closes every prompt
MAX_LENGTH = 77
"""Tokens in one window, start and end token included."""


def write_tokenizer(directory: Path, *, pad_token: str) -> None:
    """Write CLIP's tokenizer into a directory, the same bytes every time.

    Args:
        directory: made when it is missing.
        pad_token: `<|endoftext|>` for SDXL's first tokenizer, `!` (id 0) for its second.
    """
    directory.mkdir(parents=True, exist_ok=True)
    merges = read_merges()
    _write_json(directory / "vocab.json", build_vocabulary(merges))
    # Readers of merges.txt skip the first line, as in OpenAI's file.
    (directory / "merges.txt").write_bytes(("#version: 0.2\n" + "\n".join(merges) + "\n").encode())
    for name in ("special_tokens_map", "tokenizer_config"):
        _write_json(directory / f"{name}.json", read_config(name) | {"pad_token": pad_token})


def read_merges() -> list[str]:
    """Read CLIP's 48,894 merges, each two symbols with a blank between, most frequent first."""
    asset = files("lpw_sdxl.checkpoint") / "assets" / "clip_merges.txt"
    return asset.read_bytes().decode("utf-8").rstrip("\n").split("\n")


def build_vocabulary(merges: list[str]) -> dict[str, int]:
    """Return every token's id: bytes, bytes that end a word, merges, then start and end."""
    symbols = _byte_symbols()
    tokens = symbols + [symbol + "</w>" for symbol in symbols]
    tokens += [merge.replace(" ", "") for merge in merges]
    tokens += [START_TOKEN, END_TOKEN]
    return {token: index for index, token in enumerate(tokens)}


def _byte_symbols() -> list[str]:
    """Return a printable character for each byte, in CLIP's order (printable bytes first)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = 256 - len(printable)
    return [chr(byte) for byte in printable] + [chr(0x100 + index) for index in range(others)]


def _write_json(path: Path, content: object) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    path.write_bytes(text.encode("utf-8"))

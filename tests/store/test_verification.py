"""An entry's files against its manifest, as deep as is asked."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from blake3 import blake3

from lpw_sdxl.errors import ModelError
from lpw_sdxl.store import verification
from lpw_sdxl.store.manifest import Manifest, read_manifest, write_manifest
from lpw_sdxl.store.verification import Depth, begin_to_verify, list_files, verify_files
from lpw_sdxl.weights.files import FileRecord, hash_file, hash_file_fast, record_file
from lpw_sdxl.weights.writer import TensorSpec, write_safetensors

WEIGHTS = "unet/model.safetensors"
READING = (Depth.CONTENTS, Depth.ALL_DIGESTS)


@pytest.fixture
def directory(model_directory: Path, tmp_path: Path) -> Path:
    """An entry with a small file and weights that are too large to be one."""
    folder = tmp_path / "sdxl" / "0123456789ab"
    (folder / "unet").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    size = verification.SMALL_BYTES
    record = write_safetensors(
        folder / WEIGHTS, [TensorSpec("a", "U8", (size,))], [bytes(size)], {}
    )
    files = {"config.json": record_file(folder / "config.json"), WEIGHTS: record}
    write_manifest(folder, replace(read_manifest(model_directory), files=files))
    return folder


def change(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def without_fast_digests(manifest: Manifest) -> Manifest:
    """Return a manifest as earlier versions wrote it."""
    files = {name: replace(one, blake3=None) for name, one in manifest.files.items()}
    return replace(manifest, files=files)


def test_both_digests_are_those_of_the_libraries(tmp_path: Path) -> None:
    content = bytes(range(256)) * 10_000  # in three pieces
    file = tmp_path / "file"
    file.write_bytes(content)
    sha256, fast = hashlib.sha256(content).hexdigest(), blake3(content).hexdigest()
    right = FileRecord(len(content), sha256, fast)
    assert record_file(file) == right
    assert (hash_file(file), hash_file_fast(file)) == (sha256, fast)
    specs = [TensorSpec("a", "U8", (256,)), TensorSpec("b", "U8", (512,))]
    written = write_safetensors(file, specs, [content[:256], content[:512]], {"format": "pt"})
    assert written == record_file(file)


@pytest.mark.parametrize("depth", Depth)
@pytest.mark.parametrize("age", [lambda new: new, without_fast_digests], ids=["new", "old"])
def test_a_whole_entry_passes(
    directory: Path, depth: Depth, age: Callable[[Manifest], Manifest]
) -> None:
    write_manifest(directory, age(read_manifest(directory)))
    verify_files(directory, read_manifest(directory), depth)


@pytest.mark.parametrize("age", [lambda new: new, without_fast_digests], ids=["new", "old"])
@pytest.mark.parametrize(
    ("name", "place", "finding"),
    [
        ("config.json", 0, (Depth.HEADS, *READING)),
        (WEIGHTS, 0, (Depth.HEADS, *READING)),
        (WEIGHTS, -1, READING),
    ],
    ids=["a small file", "a head", "a weight"],
)
def test_a_changed_byte_is_found_where_it_is_read(
    directory: Path,
    age: Callable[[Manifest], Manifest],
    name: str,
    place: int,
    finding: tuple[Depth, ...],
) -> None:
    manifest = age(read_manifest(directory))
    change(directory / name, place)
    for depth in Depth:
        if depth not in finding:
            verify_files(directory, manifest, depth)
            continue
        with pytest.raises(ModelError, match=f"has other bytes in {name} than were imported"):
            verify_files(directory, manifest, depth)


@pytest.mark.parametrize("depth", Depth)
def test_names_and_sizes_are_always_checked(directory: Path, depth: Depth) -> None:
    manifest = read_manifest(directory)
    with (directory / WEIGHTS).open("ab") as file:
        file.write(b"x")
    with pytest.raises(ModelError, match=r"bytes in unet/model\.safetensors; .* would be right"):
        verify_files(directory, manifest, depth)
    (directory / WEIGHTS).unlink()
    with pytest.raises(ModelError, match=r"lacks its file unet/model\.safetensors"):
        verify_files(directory, manifest, depth)


def test_the_command_finds_a_digest_that_is_wrong_in_itself(directory: Path) -> None:
    file = directory / "manifest.json"
    values = json.loads(file.read_text())
    values["files"]["config.json"]["sha256"] = "0" * 64
    file.write_text(json.dumps(values))
    manifest = read_manifest(directory)
    verify_files(directory, manifest)
    with pytest.raises(ModelError, match=r"other bytes in config\.json"):
        verify_files(directory, manifest, Depth.ALL_DIGESTS)


def test_an_old_manifest_is_written_as_it_was(directory: Path) -> None:
    write_manifest(directory, without_fast_digests(read_manifest(directory)))
    files = json.loads((directory / "manifest.json").read_text())["files"]
    assert [sorted(record) for record in files.values()] == [["sha256", "size"]] * 2


def test_a_check_beside_the_caller_ends_with_what_it_found(directory: Path) -> None:
    manifest = read_manifest(directory)
    before = threading.active_count()
    begin_to_verify(directory, manifest, Depth.CONTENTS).result(30)
    change(directory / WEIGHTS, -1)
    with pytest.raises(ModelError, match="other bytes"):
        begin_to_verify(directory, manifest, Depth.CONTENTS).result(30)
    for thread in threading.enumerate():
        if thread.name.startswith("lpw-sdxl-verify"):
            thread.join(10)
    assert threading.active_count() == before


def test_weights_that_can_not_be_read_are_named_as_that(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> str:
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr(verification, "hash_file_fast", fail)
    with pytest.raises(ModelError, match="can't be read"):
        verify_files(directory, read_manifest(directory))
    assert WEIGHTS in list_files(directory)

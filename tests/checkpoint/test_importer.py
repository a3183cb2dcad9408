"""The import: a whole entry or none, known before done, in a store of the test's own."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import bentoml
import pytest

from lpw_sdxl.checkpoint import importer, store
from lpw_sdxl.checkpoint.dtypes import CheckpointDtype
from lpw_sdxl.checkpoint.importer import ImportOptions, import_checkpoint
from lpw_sdxl.checkpoint.manifest import read_manifest, verify_files
from lpw_sdxl.checkpoint.synthetic import SyntheticSize, write_checkpoint
from lpw_sdxl.errors import CheckpointError, ModelError

from .conftest import silent

OPTIONS = ImportOptions(name="mine")


def _snapshot(home: Path) -> dict[str, int]:
    """Every file of the store and of its staging area, with the time of its last change."""
    return {
        str(path.relative_to(home)): path.stat().st_mtime_ns
        for path in sorted(home.rglob("*"))
        if path.is_file() and path.suffix != ".lock"
    }


@pytest.fixture
def entry(store_home: Path, tiny_checkpoint: Path) -> store.StoreEntry:
    return store.find(import_checkpoint(tiny_checkpoint, OPTIONS, silent).tag)


def test_an_import_ends_in_a_verified_entry(entry: store.StoreEntry, tiny_checkpoint: Path):
    sha256 = hashlib.sha256(tiny_checkpoint.read_bytes()).hexdigest()
    assert entry.tag == f"mine:{sha256[:12]}"
    manifest = read_manifest(entry.path)
    verify_files(entry.path, manifest)
    assert (manifest.name, manifest.source_sha256, manifest.dtype) == ("mine", sha256, "float16")
    assert str(manifest.native_size) == "128x96"
    assert entry.metadata["source_sha256"] == sha256
    assert entry.metadata["base_model"] == "SDXL 1.0"
    assert entry.metadata["source_tensors"] == 1208
    model = bentoml.models.get("mine:latest")
    assert (str(model.tag), model.info.labels) == (entry.tag, store.LABELS)
    assert [listed.tag for listed in store.list_entries()] == [entry.tag]


def test_nothing_is_left_beside_the_entry(entry: store.StoreEntry, store_home: Path):
    assert [path.name for path in (store_home / "tmp").iterdir()] == ["lpw-sdxl-import.lock"]


def test_importing_again_changes_nothing(
    entry: store.StoreEntry, store_home: Path, tiny_checkpoint: Path
):
    before = _snapshot(store_home)
    result = import_checkpoint(tiny_checkpoint, OPTIONS, silent)
    assert (result.tag, result.was_known) == (entry.tag, True)
    assert _snapshot(store_home) == before


def test_force_replaces(entry: store.StoreEntry, store_home: Path, tiny_checkpoint: Path):
    before = _snapshot(store_home)
    options = ImportOptions(name="mine", dtype=CheckpointDtype.BFLOAT16, force=True)
    assert not import_checkpoint(tiny_checkpoint, options, silent).was_known
    after = _snapshot(store_home)
    assert after.keys() == before.keys()
    manifest = read_manifest(entry.path)
    assert manifest.dtype == "bfloat16"
    verify_files(entry.path, manifest)


def test_another_dtype_of_a_known_file_needs_force(entry: store.StoreEntry, tiny_checkpoint: Path):
    options = ImportOptions(name="mine", dtype=CheckpointDtype.BFLOAT16)
    with pytest.raises(CheckpointError, match="imported in float16; --force replaces it"):
        import_checkpoint(tiny_checkpoint, options, silent)


@pytest.mark.parametrize("damage", ["manifest.json", "unet/config.json", "model.yaml"])
def test_a_half_made_entry_is_made_whole_by_importing_again(
    entry: store.StoreEntry, tiny_checkpoint: Path, damage: str
):
    (entry.path / damage).unlink()
    assert not import_checkpoint(tiny_checkpoint, OPTIONS, silent).was_known
    verify_files(entry.path, read_manifest(entry.path))
    assert store.find("mine").tag == entry.tag


def test_a_failed_import_leaves_the_store_as_it_was(
    entry: store.StoreEntry, store_home: Path, change_tensor: Callable[..., Path]
):
    before = _snapshot(store_home)
    path = change_tensor("first_stage_model.quant_conv.bias", lambda t: t.fill_(float("nan")))
    with pytest.raises(CheckpointError, match=r"quant_conv\.bias holds NaN"):
        import_checkpoint(path, OPTIONS, silent)
    assert _snapshot(store_home) == before
    assert store.find("mine").tag == entry.tag


@pytest.mark.parametrize("stage", ["convert", "verify_directory", "write_manifest"])
@pytest.mark.parametrize("failure", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interrupt_at_any_stage_leaves_nothing(
    store_home: Path, tiny_checkpoint: Path, monkeypatch, stage: str, failure
):
    def fail(*args: object, **options: object) -> None:
        raise failure

    monkeypatch.setattr(importer, stage, fail)
    with pytest.raises((KeyboardInterrupt, OSError)):
        import_checkpoint(tiny_checkpoint, OPTIONS, silent)
    assert _snapshot(store_home) == {}
    with pytest.raises(ModelError, match="No model mine is in the store; import one with"):
        store.find("mine")


def test_a_killed_import_is_cleaned_up_by_the_next(store_home: Path, tiny_checkpoint: Path):
    leftover = store_home / "tmp" / "lpw-sdxl-import-killed" / "mine" / "abc"
    leftover.mkdir(parents=True)
    (leftover / "weights").write_bytes(b"half")
    foreign = store_home / "tmp" / "another-tool"
    foreign.mkdir()
    import_checkpoint(tiny_checkpoint, OPTIONS, silent)
    assert not leftover.exists()
    assert foreign.exists()


def test_two_imports_at_once_are_refused(store_home: Path, tiny_checkpoint: Path):
    with (
        store.publication("other:1", {}, {}),
        pytest.raises(CheckpointError, match="Another import is at work"),
    ):
        import_checkpoint(tiny_checkpoint, OPTIONS, silent)


def test_latest_is_the_newest_import_and_falls_back_when_it_is_removed(
    entry: store.StoreEntry, tmp_path: Path
):
    path = tmp_path / "second.safetensors"
    write_checkpoint(path, SyntheticSize.TINY, seed=8)
    second = import_checkpoint(path, OPTIONS, silent).tag
    assert second != entry.tag
    assert store.find("mine").tag == store.find("mine:latest").tag == second
    assert store.find(entry.tag).path == entry.path
    assert store.remove(second) == second
    assert store.find("mine").tag == entry.tag
    store.remove("mine")
    assert store.list_entries() == []


@pytest.mark.parametrize("name", ["", "-a", "a-", "Upper", "a b", "a/b", "../a", "a:b", "x" * 64])
def test_a_name_that_the_store_cannot_keep_is_refused(
    store_home: Path, tiny_checkpoint: Path, name: str
):
    with pytest.raises(CheckpointError, match=r"^The name .* can't be used"):
        import_checkpoint(tiny_checkpoint, ImportOptions(name=name), silent)


@pytest.mark.parametrize("tag", ["", "../x", "a/b", "a:b/c", "a:..", "A", "a:b:c"])
def test_a_tag_that_is_none_is_refused(store_home: Path, tag: str):
    with pytest.raises(ModelError, match="is no model tag"):
        store.find(tag)


def test_a_version_is_not_completed(entry: store.StoreEntry):
    with pytest.raises(ModelError, match="No model mine:"):
        store.find(entry.tag[:-2])


def test_a_wrong_sha256_is_refused(store_home: Path, tiny_checkpoint: Path):
    options = ImportOptions(name="mine", sha256="0" * 64)
    with pytest.raises(CheckpointError, match=f"{'0' * 64} was asked for"):
        import_checkpoint(tiny_checkpoint, options, silent)
    assert _snapshot(store_home) == {}


def test_a_full_disk_is_told_before_the_first_byte(
    store_home: Path, tiny_checkpoint: Path, monkeypatch
):
    import shutil

    usage = shutil.disk_usage(store_home)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10**6))
    with pytest.raises(CheckpointError, match=r"0\.0 GB free and this import needs 0\.1 GB"):
        import_checkpoint(tiny_checkpoint, OPTIONS, silent)
    assert os.listdir(store_home / "models") == []


def test_served_tag_is_the_setting_then_the_argument_then_the_bentos(tmp_path: Path):
    folder = tmp_path / "src"
    assert store.served_tag("a", "b", folder) == "a"
    assert store.served_tag("", "b", folder) == "b"
    assert store.served_tag("", "", folder) == "sdxl:latest"
    (tmp_path / "bento.yaml").write_text("services: [{name: S, models: [{tag: 'mine:123'}]}]")
    assert store.served_tag("", "", folder) == "mine:123"


@pytest.mark.parametrize("content", [None, "{{{", "[]"])
def test_a_foreign_entry_that_cannot_be_read_hides_nothing(
    entry: store.StoreEntry, store_home: Path, content: str | None
):
    foreign = store_home / "models" / "foreign" / "abc"
    foreign.mkdir(parents=True)
    if content is not None:
        (foreign / "model.yaml").write_text(content)
    assert [found.tag for found in store.list_entries()] == [entry.tag]
    with pytest.raises(ModelError):
        store.find("foreign:abc")


def test_an_entry_of_ours_that_cannot_be_read_is_listed(entry: store.StoreEntry):
    (entry.path / "model.yaml").write_text("{{{")
    assert [found.tag for found in store.list_entries()] == [entry.tag]
    with pytest.raises(ModelError, match="--force"):
        store.find(entry.tag)


def test_a_replacement_that_fails_keeps_the_old_entry(
    entry: store.StoreEntry, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
):
    """The second of the two renames is interrupted."""
    rename = Path.rename
    store_folder = entry.path.parent

    def interrupted(path: Path, target: Path) -> Path:
        if Path(target) == entry.path and path.name != "replaced":
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        import_checkpoint(tiny_checkpoint, ImportOptions(name="mine", force=True), silent)
    assert store_folder.is_dir()
    verify_files(store.find(entry.tag).path, read_manifest(entry.path))


def test_a_store_on_another_disk_is_refused_before_the_hash(
    store_home: Path, tiny_checkpoint: Path
):
    elsewhere = Path(tempfile.mkdtemp(dir="/dev/shm"))
    try:
        shutil.rmtree(store_home / "models", ignore_errors=True)
        (store_home / "models").symlink_to(elsewhere)
        with pytest.raises(CheckpointError, match="different disks"):
            import_checkpoint(tiny_checkpoint, ImportOptions(), fail_at_once)
    finally:
        shutil.rmtree(elsewhere)


def fail_at_once(stage: str, done: int, total: int) -> None:
    raise AssertionError(f"{stage} began")

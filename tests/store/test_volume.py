"""A store's folder on a volume: read as it is, and explained in one sentence where it can't be."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from lpw_sdxl.errors import ModelError, SettingsError
from lpw_sdxl.store.manifest import read_manifest, write_manifest
from lpw_sdxl.store.unreadable import why_unreadable
from lpw_sdxl.store.verification import list_files, verify_files
from lpw_sdxl.store.volume import Volume, open_volume
from lpw_sdxl.weights.files import record_file
from other_users import OTHER_UID, as_another_user

from .test_manifest import make_manifest


def make_entry(folder: Path, tag: str, created: str = "2026-01-01T00:00:00+00:00") -> Path:
    name, version = tag.split(":")
    directory = folder / name / version
    (directory / "unet").mkdir(parents=True)
    (directory / "unet" / "w.bin").write_text(tag)
    files = {name: record_file(path) for name, path in list_files(directory).items()}
    write_manifest(directory, make_manifest(files, name=name, created=created))
    return directory


def opened(folder: Path) -> Volume:
    volume = open_volume(folder)
    assert volume is not None
    return volume


def test_without_the_setting_there_is_none() -> None:
    assert open_volume(None) is None


@pytest.mark.parametrize("tag", ["mine", "mine:latest", "mine:aa"])
def test_a_model_is_found(open_folder: Path, tag: str) -> None:
    entry = make_entry(open_folder, "mine:aa")
    assert opened(open_folder).find_model(tag) == entry


@pytest.mark.parametrize(
    "tag", ["other", "mine:bb", "mine:", "mine:a", "../mine:aa", "", "lora-a:bb", "Mine:aa"]
)
def test_what_is_not_there_is_none(open_folder: Path, tag: str) -> None:
    make_entry(open_folder, "mine:aa")
    make_entry(open_folder, "lora-a:bb")
    assert opened(open_folder).find_model(tag) is None


def test_the_newest_is_what_latest_names_else_what_was_imported_last(open_folder: Path) -> None:
    one = make_entry(open_folder, "mine:aa", created="2026-03-01T00:00:00+00:00")
    two = make_entry(open_folder, "mine:bb", created="2026-02-01T00:00:00+00:00")
    assert opened(open_folder).find_model("mine") == one
    (open_folder / "mine" / "latest").write_text("bb\n")
    assert opened(open_folder).find_model("mine") == two
    (open_folder / "mine" / "latest").write_bytes(b"\xff\xfe")
    assert opened(open_folder).find_model("mine") == one
    (two / "manifest.json").write_text("{")
    assert opened(open_folder).find_model("mine:latest") == one


def test_what_is_no_entry_is_none(open_folder: Path) -> None:
    make_entry(open_folder, ".importing:aa")
    make_entry(open_folder, "mine:.hidden")
    (open_folder / "lost+found").mkdir(mode=0o000)
    (open_folder / "README").write_text("a file")
    volume = opened(open_folder)
    assert volume.model_names() == []
    assert volume.find_model(".importing") is volume.find_model("mine") is None


def test_models_and_addons_are_told_apart_by_their_names(open_folder: Path) -> None:
    make_entry(open_folder, "mine:aa")
    make_entry(open_folder, "lora-a:bb")
    make_entry(open_folder, "embedding-b:cc")
    assert opened(open_folder).model_names() == ["mine"]


def test_a_bentoml_home_serves_as_well(open_folder: Path) -> None:
    entry = make_entry(open_folder / "models", "mine:aa")
    assert opened(open_folder).find_model("mine") == entry


def test_an_empty_bentoml_home_is_one_too(open_folder: Path) -> None:
    for name in ("bentos", "models", "tmp"):
        (open_folder / name).mkdir()
    assert opened(open_folder).folder == open_folder / "models"


def test_a_model_named_models_is_a_model(open_folder: Path) -> None:
    entry = make_entry(open_folder, "models:aa")
    assert opened(open_folder).find_model("models") == entry


def test_another_programs_models_are_no_bentoml_home(open_folder: Path) -> None:
    (open_folder / "models" / "checkpoints").mkdir(parents=True)
    (open_folder / "models" / "checkpoints" / "old.safetensors").touch()
    assert opened(open_folder).folder == open_folder


# ---- One sentence for each failure -----------------------------------------------------------


def test_a_folder_that_is_missing(open_folder: Path) -> None:
    gone = open_folder / "gone"
    with pytest.raises(SettingsError, match="LPW_SDXL_STORE names") as caught:
        open_volume(gone)
    assert f"names {gone}, which is not there; mount a volume" in str(caught.value)
    assert "`python model_import.py demo`" in str(caught.value)


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_file_where_a_folder_should_be(open_folder: Path, name: str) -> None:
    (open_folder / "file").touch()
    with pytest.raises(SettingsError) as caught:
        open_volume(open_folder / name)
    assert str(caught.value) == (
        f"LPW_SDXL_STORE names {open_folder / name}, and {open_folder / 'file'} is a file; a "
        "folder would be right"
    )


@pytest.mark.parametrize("version", ["", ":latest", ":aa"])
def test_a_half_made_model(open_folder: Path, version: str) -> None:
    (make_entry(open_folder, "mine:aa") / "manifest.json").unlink()
    with pytest.raises(ModelError) as caught:
        opened(open_folder).find_model(f"mine{version}")
    assert str(caught.value) == (
        f"The model mine:aa in {open_folder} has no manifest.json, so it is half-made; import its "
        "checkpoint again with `python model_import.py checkpoint FILE --name mine --force`."
    )


def test_a_half_made_model_beside_a_whole_one_is_not_the_newest(open_folder: Path) -> None:
    whole = make_entry(open_folder, "mine:aa")
    (make_entry(open_folder, "mine:bb") / "manifest.json").unlink()
    (open_folder / "mine" / "latest").write_text("bb")
    assert opened(open_folder).find_model("mine") == whole


@pytest.mark.processes
def test_a_volume_that_is_open_is_read_by_another_user(open_folder: Path) -> None:
    directory = make_entry(open_folder, "mine:aa")

    def read() -> str:
        found = opened(open_folder).find_model("mine")
        assert found == directory
        verify_files(found, read_manifest(found))
        return "whole"

    assert as_another_user(read) == "whole"


@pytest.mark.processes
@pytest.mark.parametrize("closed", ["", "mine", "mine/aa", "mine/aa/unet", "mine/aa/unet/w.bin"])
def test_what_is_closed_to_this_user(open_folder: Path, closed: str) -> None:
    """The folder itself, a name, an entry, a folder in it, a file."""
    volume = open_folder / "volume"
    directory = make_entry(volume, "mine:aa")
    (volume / closed).chmod(0o000)

    def read() -> None:
        found = opened(volume).find_model("mine")
        assert found is not None
        verify_files(found, read_manifest(found))

    uid = OTHER_UID if os.geteuid() == 0 else os.geteuid()
    text = as_another_user(read)
    (volume / closed).chmod(0o755)
    assert f"{volume / closed} is closed to uid {uid} (" in text, text
    opened_at_once = directory if closed.startswith("mine/aa/") else volume
    assert text.endswith(
        (
            f"`chmod -R a+rX {opened_at_once}` by its owner would be right",
            f"`chmod -R a+rX {opened_at_once}` by its owner would be right.",
        )
    ), text
    assert "\n" not in text


@pytest.mark.processes
def test_a_folder_above_that_is_closed_is_the_one_named(open_folder: Path) -> None:
    make_entry(open_folder / "above" / "volume", "mine:aa")
    (open_folder / "above").chmod(0o700 if os.geteuid() == 0 else 0o000)
    text = as_another_user(lambda: open_volume(open_folder / "above" / "volume"))
    (open_folder / "above").chmod(0o755)
    assert f"{open_folder / 'above'} is closed to uid" in text, text
    assert f"`chmod -R a+rX {open_folder / 'above'}`" in text


@pytest.mark.processes
def test_a_closed_folder_of_another_program_hides_nothing(open_folder: Path) -> None:
    make_entry(open_folder, "mine:aa")
    make_entry(open_folder, "private:bb")
    (open_folder / "private").chmod(0o000)
    names = as_another_user(lambda: opened(open_folder).model_names())
    (open_folder / "private").chmod(0o755)
    assert names == "['mine']"


@pytest.mark.processes
def test_a_closed_lora_is_named_in_the_log(
    open_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_entry(open_folder, "lora-a:aa")
    make_entry(open_folder, "lora-b:bb")
    (open_folder / "lora-a").chmod(0o000)

    def warn() -> str:
        opened(open_folder).warn_of_closed_addons()
        return caplog.text

    text = as_another_user(warn)
    (open_folder / "lora-a").chmod(0o755)
    assert f"left out: {open_folder / 'lora-a'} is closed to uid" in text
    assert "lora-b" not in text


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO, errno.ENOTCONN])
def test_a_volume_that_does_not_answer(number: int) -> None:
    error = OSError(number, os.strerror(number), "/volume/sdxl")
    assert why_unreadable(Path("/volume"), error) == (
        f"/volume/sdxl can't be read ({os.strerror(number)}), as its volume does not answer; "
        "mounting it again would be right"
    )


def test_a_read_that_fails_names_the_folder(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An NFS server that is gone; no test has one."""
    make_entry(open_folder, "mine:aa")
    volume = opened(open_folder)

    def fail(path: object) -> list[str]:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))

    monkeypatch.setattr(os, "listdir", fail)
    reads = volume.model_names, volume.warn_of_closed_addons, lambda: volume.find_model("mine")
    for read in reads:
        with pytest.raises(SettingsError, match=rf"names {open_folder}, and .*Stale file handle"):
            read()
    with pytest.raises(SettingsError, match="mounting it again would be right"):
        open_volume(open_folder)

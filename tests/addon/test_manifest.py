"""An entry's manifest: read as it was written, or refused by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from lpw_sdxl.addon.manifest import (
    AddonDetails,
    read_addon_manifest,
)
from lpw_sdxl.embedding.preflight import PAIR_NAMING, embedding_fit
from lpw_sdxl.errors import AddonError
from lpw_sdxl.store.kind import AddonKind
from lpw_sdxl.store.verification import verify_files
from other_users import as_another_user

from .conftest import MANIFEST, Write


def test_a_manifest_is_read_as_it_was_written(write_entry: Write):
    manifest = read_addon_manifest(write_entry())
    assert manifest.files.keys() == {"lora.safetensors"}
    for name in ("kind", "name", "details", "origin", "fits", "created"):
        assert getattr(manifest, name) == getattr(MANIFEST, name)
    assert isinstance(manifest.kind, AddonKind)


def test_the_description_is_plain_and_leaves_out_what_is_not_of_the_kind(write_entry: Write):
    described = read_addon_manifest(write_entry()).describe()
    assert json.loads(json.dumps(described)) == described
    assert described["modules"] == {"unet": 722, "text_encoder": 72}
    assert (described["kinds"], described["source_autov2"]) == (["LoRA"], "0D9BD1B873")
    assert not {"files", "vectors", "details"} & described.keys()
    details = AddonDetails(vectors=8)
    entry = write_entry(kind=AddonKind.EMBEDDING, fits=embedding_fit(768, 1280), details=details)
    described = read_addon_manifest(entry).describe()
    assert (described["vectors"], described["fits"]) == (8, "768+1280")
    assert not {"kinds", "ranks", "modules"} & described.keys()


def _without(key: str):
    def spoil(content: dict[str, object]) -> object:
        del content[key]
        return content

    return spoil


@pytest.mark.parametrize(
    "spoil",
    [
        _without("details"),
        _without("kind"),
        lambda content: content | {"kind": "hypernetwork"},
        lambda content: content | {"name": 5},
        lambda content: content | {"trained_words": "word"},
        lambda content: content | {"files": []},
        lambda content: content | {"more": 1},
        lambda content: [content],
        lambda content: None,
    ],
)
def test_a_damaged_manifest_is_refused_with_the_command_that_mends_it(write_entry: Write, spoil):
    directory = write_entry()
    path = directory / "manifest.json"
    path.write_text(json.dumps(spoil(json.loads(path.read_text()))))
    with pytest.raises(AddonError) as caught:
        read_addon_manifest(directory)
    assert str(caught.value) == (
        "The LoRA lora-add-detail-xl:0d9bd1b873a7 has a damaged manifest.json; import its file "
        "again with `python model_import.py lora FILE --name add-detail-xl --force`."
    )


def test_another_format_and_a_missing_manifest_are_told(write_entry: Write):
    directory = write_entry()
    path = directory / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 9}))
    with pytest.raises(AddonError, match=r"has a manifest of another format \(9\)"):
        read_addon_manifest(directory)
    path.write_bytes(b'{"kind": "\xff')
    with pytest.raises(AddonError, match=r"has a damaged manifest\.json"):
        read_addon_manifest(directory)
    path.unlink()
    with pytest.raises(AddonError, match=r"has no manifest\.json that can be read"):
        read_addon_manifest(directory)


def test_a_manifest_that_lists_a_file_of_another_name_is_refused(write_entry: Write):
    directory = write_entry()
    path = directory / "manifest.json"
    path.write_text(path.read_text().replace('"lora.safetensors"', '"../../secret"'))
    with pytest.raises(AddonError, match=r"lists other files than lora\.safetensors"):
        read_addon_manifest(directory)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (Path.unlink, "lacks its file lora.safetensors"),
        (lambda path: path.write_bytes(b"longer"), "has 6 bytes in lora.safetensors; 4 would be"),
        (lambda path: path.with_name("x").touch(), "holds x, which its manifest doesn't list"),
        (lambda path: path.write_bytes(b"DATA"), "has other bytes in lora.safetensors than were"),
    ],
)
def test_a_file_that_is_not_as_imported_is_named(write_entry: Write, damage, sentence: str):
    directory = write_entry()
    manifest = read_addon_manifest(directory)
    verify_files(directory, manifest)
    damage(directory / "lora.safetensors")
    with pytest.raises(AddonError, match=sentence) as caught:
        verify_files(directory, manifest)
    assert "lora FILE --name 'Add Detail XL' --force" in str(caught.value)
    assert str(directory) not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"details": AddonDetails(asked_alpha=0.1)}, "lora FILE --alpha 0.1 --name"),
        (
            {"details": AddonDetails(ignored={"lora_unet_x.gate, by --ignore-unknown": 1})},
            "lora FILE --ignore-unknown --name",
        ),
        (
            {"kind": AddonKind.EMBEDDING, "details": AddonDetails(naming=PAIR_NAMING)},
            "embedding FIRST SECOND --name",
        ),
    ],
    ids=["alpha", "unknown", "pair"],
)
def test_the_command_that_mends_it_has_the_options_it_was_imported_with(
    write_entry: Write, changes: dict[str, object], words: str
):
    directory = write_entry(**changes)
    manifest = read_addon_manifest(directory)
    directory.joinpath(manifest.kind.file_name).unlink()
    with pytest.raises(AddonError, match=f"`python model_import.py {words} 'Add Detail XL' --fo"):
        verify_files(directory, manifest)


@pytest.mark.processes
def test_an_entry_that_is_closed_is_explained(open_folder: Path, write_entry: Write) -> None:
    directory = Path(shutil.copytree(write_entry(), open_folder / "lora-a" / "aa"))
    (directory / "manifest.json").chmod(0o000)
    sentence = as_another_user(lambda: read_addon_manifest(directory))
    assert sentence.startswith("AddonError: The LoRA lora-a:aa can't be read: ")
    assert f"{directory / 'manifest.json'} is closed to uid" in sentence
    assert sentence.endswith(f"`chmod -R a+rX {directory}` by its owner would be right.")

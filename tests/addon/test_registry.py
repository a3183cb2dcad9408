"""What requests can name, and what they are told of a name that they can't."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lpw_sdxl.addon.entry import EntrySource, Fits
from lpw_sdxl.addon.manifest import AddonDetails
from lpw_sdxl.addon.registry import Registry
from lpw_sdxl.embedding.preflight import embedding_fit
from lpw_sdxl.errors import AddonError, InvalidRequestError
from lpw_sdxl.store.kind import AddonKind

from .conftest import MANIFEST, Write

FIELD = "loras.0.name"


def read(directories, *, signature, embedding_fit=None) -> Registry:
    source = EntrySource(lambda: directories, Fits(signature, embedding_fit))
    return Registry.of([source.look()])


@pytest.mark.parametrize("name", ["Add Detail XL", "add-detail-xl", "ADD detail-XL"])
def test_a_name_is_found_in_upper_and_lower_case(write_entry: Write, name: str):
    directory = write_entry()
    addon = read([directory], signature=MANIFEST.fits).lora(name, FIELD)
    assert addon.path == directory
    assert addon.file.read_bytes() == b"data"


def test_an_unknown_name_is_refused_with_near_matches(write_entry: Write):
    names = ["Add Detail XL", "add-detail-v2", "add details", "Add Detail", "pixel-art"]
    registry = read([write_entry(name=name) for name in names], signature=None)
    with pytest.raises(InvalidRequestError) as caught:
        registry.lora("ad-detail", FIELD)
    assert (caught.value.field, caught.value.status) == (FIELD, 400)
    assert str(caught.value).startswith("No LoRA is named 'ad-detail'; near are 'Add Detail', ")
    assert str(caught.value).count("'") == 8
    with pytest.raises(InvalidRequestError) as caught:
        registry.lora("zzzz", FIELD)
    assert str(caught.value) == "No LoRA is named 'zzzz'; /info lists the known ones (5)."
    with pytest.raises(InvalidRequestError, match=r"'zzzz'; this server has none\.$"):
        read([], signature=None).lora("zzzz", FIELD)


def test_a_long_name_is_cut_in_the_answer(write_entry: Write):
    registry = read([write_entry()], signature=None)
    with pytest.raises(InvalidRequestError) as caught:
        registry.lora("x" * 100_000, FIELD)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("name", ["../lora-add-detail-xl", "/etc/passwd", "lora.safetensors", ""])
def test_no_name_becomes_a_path(write_entry: Write, name: str):
    registry = read([write_entry()], signature=None)
    with pytest.raises(InvalidRequestError):
        registry.lora(name, FIELD)


@pytest.mark.parametrize("reverse", [False, True])
def test_of_several_versions_the_one_imported_last_serves(write_entry: Write, reverse: bool):
    old = write_entry("aaa", created="2026-01-01T00:00:00.000000+00:00")
    new = write_entry("bbb", created="2026-02-01T00:00:00.000000+00:00")
    registry = read(sorted([old, new], reverse=reverse), signature=None)
    assert registry.lora("Add Detail XL", FIELD).path == new


def test_a_version_that_fits_serves_before_a_newer_one_that_does_not(write_entry: Write):
    old = write_entry("aaa")
    new = write_entry("bbb", created="2027", fits="another", fits_name="tiny:1")
    registry = read([old, new], signature=MANIFEST.fits)
    assert registry.lora("Add Detail XL", FIELD).path == old


def test_what_is_damaged_or_unfit_is_left_out_logged_once_and_told(
    write_entry: Write, tmp_path: Path, caplog
):
    unfit = write_entry(name="other", fits="another", fits_name="tiny:1")
    damaged = write_entry(name="broken")
    (damaged / "lora.safetensors").write_bytes(b"shorter or longer")
    half = write_entry(name="half")
    (half / "manifest.json").unlink()
    good = write_entry()
    registry = read([unfit, damaged, half, good], signature=MANIFEST.fits)
    assert [*registry.loras] == ["add-detail-xl"]
    assert registry.unusable.keys() == {"lora-other", "lora-broken", "lora-half"}
    assert "was imported for tiny:1 and doesn't fit" in registry.unusable["lora-other"]
    assert len(caplog.records) == 3
    assert str(tmp_path) not in caplog.text + "".join(registry.unusable.values())
    for name in ("Other", "broken", "HALF"):
        with pytest.raises(InvalidRequestError, match="is there but can't be used") as caught:
            registry.lora(name, FIELD)
        assert "model_import" not in str(caught.value)


def test_the_bytes_are_checked_when_they_are_first_loaded(write_entry: Write):
    directory = write_entry()
    addon = read([directory], signature=None).lora("Add Detail XL", FIELD)
    (directory / "lora.safetensors").write_bytes(b"DATA")
    with pytest.raises(AddonError, match=r"has other bytes in lora\.safetensors"):
        addon.load(addon.file)


def test_embeddings_are_apart_from_loras_and_fit_by_their_widths(write_entry: Write):
    embedding = {"kind": AddonKind.EMBEDDING, "details": AddonDetails(vectors=8)}
    fit, other = embedding_fit(768, 1280), embedding_fit(32, 64)
    directories = [
        write_entry(),
        write_entry(name="add-detail-xl", **embedding, fits=fit),
        write_entry(name="tiny", **embedding, fits=other),
    ]
    registry = read(directories, signature=MANIFEST.fits, embedding_fit=fit)
    assert [*registry.loras] == [*registry.embeddings] == ["add-detail-xl"]
    assert [*registry.unusable] == ["embedding-tiny"]


def test_the_advice_quotes_a_name_for_a_shell(write_entry: Write):
    directory = write_entry(name="it's")
    (directory / "lora.safetensors").write_bytes(b"longer than before")
    advice = read([directory], signature=None).unusable["lora-it-s"]
    assert """lora FILE --name 'it'"'"'s' --force`""" in advice


@pytest.mark.parametrize("name", ["bad hands", "négatif", "neg+"])
def test_an_embedding_whose_name_is_no_word_is_left_out(write_entry: Write, name: str):
    directory = write_entry(name=name, kind=AddonKind.EMBEDDING)
    registry = read([directory], signature=None)
    assert not registry.embeddings
    assert "a name that no prompt can hold as a word" in registry.unusable[directory.parent.name]


@pytest.mark.processes
def test_nothing_heavy_is_imported():
    script = (
        "import sys, lpw_sdxl.addon.catalogue;"
        "heavy = {'torch', 'bentoml', 'diffusers', 'transformers', 'safetensors'};"
        "sys.exit(repr(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")

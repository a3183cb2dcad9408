"""The manifest: written whole, read back, and every difference on disk found and named."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from lpw_sdxl.errors import ModelError
from lpw_sdxl.schedule_types import ScheduleType
from lpw_sdxl.schema import ImageSize
from lpw_sdxl.store.manifest import Manifest, read_manifest, write_manifest
from lpw_sdxl.store.origin import AuthorNotes, Origin
from lpw_sdxl.store.verification import Depth, list_files, verify_files
from lpw_sdxl.weights.files import FileRecord, record_file

ORIGIN = Origin(
    "civitai:128078",
    "m.safetensors",
    12,
    "0123456789ab" + "0" * 52,
    AuthorNotes("A model", "SDXL 1.0", ("one", "two")),
)


def make_manifest(files: Mapping[str, FileRecord], **changes: object) -> Manifest:
    values = {
        "name": "sdxl",
        "origin": ORIGIN,
        "native_size": ImageSize(height=96, width=128),
        "dtype": "float16",
        "prediction_type": "epsilon",
        "zero_terminal_snr": False,
        "schedule_type": ScheduleType.LEADING,
        "ema": True,
        "vae": "v.safetensors, SHA-256 1",
        "ignored": {"EMA weights": 3},
        "created": "2026-01-01T00:00:00+00:00",
        "importer_version": "0.1.0",
    }
    return Manifest(**values | changes, files=files)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    directory = tmp_path / "sdxl" / "0123456789ab"
    for name, content in {"a.json": b"{}", "unet/w.bin": b"weights", "model.yaml": b"own"}.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    files = {name: record_file(path) for name, path in list_files(directory).items()}
    write_manifest(directory, make_manifest(files))
    return directory


def test_it_is_read_back_as_written(directory: Path):
    manifest = read_manifest(directory)
    assert manifest.origin == ORIGIN
    assert (manifest.ema, manifest.ignored) == (True, {"EMA weights": 3})
    assert manifest.origin.autov2 == manifest.describe()["source_autov2"] == "0123456789"
    assert manifest.native_size == ImageSize(height=96, width=128)
    assert list(manifest.files) == ["a.json", "unet/w.bin"]
    assert manifest.describe()["native_size"] == "128x96"
    assert "files" not in manifest.describe()
    verify_files(directory, manifest)


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "flipped byte": (
        lambda d: (d / "unet/w.bin").write_bytes(b"wEights"),
        "has other bytes in unet/w",
    ),
    "missing": (lambda d: (d / "a.json").unlink(), "lacks its file a.json"),
    "longer": (lambda d: (d / "a.json").write_bytes(b"{} "), "has 3 bytes in a.json; 2 would be"),
    "extra": (lambda d: (d / "unet/x.py").write_bytes(b""), r"holds unet/x\.py, which its manif"),
    "link": (lambda d: (d / "l").symlink_to("/nowhere"), "holds l, which its manifest doesn't"),
}


@pytest.mark.parametrize(("change", "complaint"), CHANGES.values(), ids=CHANGES.keys())
def test_a_difference_is_found_and_named(directory: Path, change, complaint: str):
    change(directory)
    with pytest.raises(ModelError, match=f"^The model sdxl:0123456789ab {complaint}.*--force"):
        verify_files(directory, read_manifest(directory))


def test_without_contents_only_names_and_sizes_count(directory: Path):
    CHANGES["flipped byte"][0](directory)
    verify_files(directory, read_manifest(directory), Depth.SIZES)
    CHANGES["longer"][0](directory)
    with pytest.raises(ModelError, match="3 bytes"):
        verify_files(directory, read_manifest(directory), Depth.SIZES)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"3", b"{}", b'{"format_version": 1}', b"\xff", b'{"format_version": 2}'],
)
def test_a_damaged_manifest_is_refused_in_one_sentence(directory: Path, content: bytes):
    (directory / "manifest.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"^The model sdxl:0123456789ab has [^\n]*\.$"):
        read_manifest(directory)


def test_it_is_described_in_plain_values(directory: Path):
    described = read_manifest(directory).describe()
    assert json.loads(json.dumps(described)) == described
    assert described["source"] == "civitai:128078"


@pytest.mark.parametrize("key", ["files", "native_size", "dtype", "source", "trained_words"])
def test_a_manifest_without_a_part_is_refused(directory: Path, key: str):
    path = directory / "manifest.json"
    content = json.loads(path.read_text())
    del content[key]
    path.write_text(json.dumps(content))
    with pytest.raises(ModelError, match=r"damaged manifest\.json"):
        read_manifest(directory)


@pytest.mark.parametrize(
    ("prediction", "zero_snr", "schedule_type"),
    [
        ("epsilon", False, ScheduleType.LEADING),
        ("v_prediction", False, ScheduleType.TRAILING),
        ("v_prediction", True, ScheduleType.TRAILING),
    ],
)
def test_a_manifest_of_before_schedule_types_has_the_one_that_its_import_wrote(
    directory: Path, prediction: str, zero_snr: bool, schedule_type: ScheduleType
):
    path = directory / "manifest.json"
    content = json.loads(path.read_text())
    del content["schedule_type"]
    content |= {"prediction_type": prediction, "zero_terminal_snr": zero_snr}
    path.write_text(json.dumps(content))
    assert read_manifest(directory).schedule_type is schedule_type
    verify_files(directory, read_manifest(directory))


@pytest.mark.parametrize("flaw", ["sideways", None, 3, ["leading"]])
def test_a_schedule_type_that_is_none_is_damage(directory: Path, flaw: object):
    path = directory / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schedule_type": flaw}))
    with pytest.raises(ModelError, match=r"damaged manifest\.json"):
        read_manifest(directory)


def test_the_advice_names_a_schedule_type_that_was_chosen(directory: Path):
    for schedule_type, option in [("leading", ""), ("trailing", " --schedule-type trailing")]:
        manifest = make_manifest({}, schedule_type=ScheduleType(schedule_type), vae="")
        error = Manifest.unusable(directory, "is bad", manifest)
        assert f"--name sdxl --ema{option} --force`" in str(error)


def test_a_directory_without_a_manifest_is_half_made(directory: Path):
    (directory / "manifest.json").unlink()
    with pytest.raises(ModelError, match=r"has no manifest\.json"):
        read_manifest(directory)

"""Known before done: the same file again is told at once, and nothing changes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lpw_sdxl.checkpoint.inspect import PREDICTIONS
from lpw_sdxl.checkpoint.selection import Selection
from lpw_sdxl.errors import CheckpointError
from lpw_sdxl.importing.checkpoints import CheckpointImporter
from lpw_sdxl.importing.entry import SHA256, find_known
from lpw_sdxl.importing.importer import ImportResult
from lpw_sdxl.schedule_types import ScheduleType
from lpw_sdxl.store import entries
from lpw_sdxl.store.entries import find_whole
from lpw_sdxl.store.manifest import UNKNOWN, Manifest, read_manifest
from lpw_sdxl.store.origin import AuthorNotes
from lpw_sdxl.store.verification import verify_files
from lpw_sdxl.weights.dtypes import CheckpointDtype
from lpw_sdxl.weights.files import file_stamp
from store.test_manifest import ORIGIN, make_manifest
from stores import snapshot

from .conftest import MINE, fail_at_once, import_file, mine

BF16 = CheckpointDtype.BFLOAT16

pytestmark = pytest.mark.thorough


@pytest.fixture
def no_torch_work(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("convert", "verify"):
        monkeypatch.setitem(sys.modules, f"lpw_sdxl.checkpoint.{module}", None)


@pytest.fixture
def copied(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    return shutil.copy2(tiny_checkpoint, tmp_path / "copied.safetensors")


@pytest.mark.usefixtures("no_torch_work")
def test_the_same_file_is_known_without_reading_it(entry, store_home: Path, tiny_checkpoint: Path):
    before = snapshot(store_home)
    result = import_file(tiny_checkpoint, progress=fail_at_once)
    assert (result.tag, result.was_known) == (entry.tag, True)
    assert snapshot(store_home) == before


@pytest.mark.processes
def test_a_known_file_is_told_without_torch(entry, store_home: Path, tiny_checkpoint: Path):
    """In a process of its own, in which torch can't be imported at all."""
    program = (
        "import sys\n"
        "for name in ('torch', 'diffusers', 'transformers'): sys.modules[name] = None\n"
        "from pathlib import Path\n"
        "from lpw_sdxl.importing.checkpoints import CheckpointImporter\n"
        "from lpw_sdxl.importing.entry import import_entry\n"
        "from lpw_sdxl.importing.importer import ImportOptions\n"
        "from lpw_sdxl.store.origin import AuthorNotes\n"
        "importer = CheckpointImporter(ImportOptions(name='mine'))\n"
        "opened = importer.open(Path(sys.argv[1]))\n"
        "print(import_entry(importer, opened, 'x', AuthorNotes(), print))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tiny_checkpoint)],
        env=os.environ | {"BENTOML_HOME": str(store_home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == f"ImportResult(tag='{entry.tag}', was_known=True)\n", done.stderr


def _stages(path: Path) -> tuple[set[str], str]:
    """Import a file that is known, and return the stages that it took."""
    stages = set()
    result = import_file(path, progress=lambda stage, *_: stages.add(stage))
    assert result.was_known
    return stages, result.tag


def test_a_copy_is_known_by_its_bytes(entry, store_home: Path, copied: Path):
    before = snapshot(store_home)
    assert _stages(copied) == ({"hash"}, entry.tag)
    assert snapshot(store_home) == before


def test_a_touched_file_is_known_by_its_bytes(store_home: Path, copied: Path):
    first = import_file(copied)
    assert _stages(copied) == (set(), first.tag)
    os.utime(copied)
    assert _stages(copied) == ({"hash"}, first.tag)


def test_any_change_of_a_file_changes_its_stamp(copied: Path):
    stamp = file_stamp(copied)
    stat = copied.stat()
    with copied.open("r+b") as file:
        file.write(b"\x00")
    # Even where the time of the change is put back.
    os.utime(copied, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert copied.stat().st_mtime_ns == stat.st_mtime_ns
    assert file_stamp(copied) != stamp


def test_another_file_at_the_same_place_is_imported(
    store_home: Path, copied: Path, second_checkpoint: Path
):
    first = import_file(copied)
    shutil.copy2(second_checkpoint, copied)
    second = import_file(copied)
    assert (second.was_known, second.tag != first.tag) == (False, True)


def test_another_name_is_another_import(entry, tiny_checkpoint: Path):
    result = import_file(tiny_checkpoint, mine(name="other"))
    assert (result.was_known, result.tag) == (False, entry.tag.replace("mine", "other"))


V_PREDICTION = mine(selection=Selection(prediction=PREDICTIONS["v_prediction"]))
ZERO_SNR = mine(selection=Selection(prediction=PREDICTIONS["v_prediction_ztsnr"]))
LINSPACE = mine(selection=Selection(schedule_type=ScheduleType.LINSPACE))
OTHER_OPTIONS: dict[str, tuple[CheckpointImporter, str]] = {
    "dtype": (mine(dtype=BF16), "dtype float16, and dtype bfloat16"),
    "prediction": (V_PREDICTION, "epsilon, and v_prediction"),
    "zero SNR": (ZERO_SNR, "epsilon, and v_prediction and zero terminal SNR"),
    "schedule type": (LINSPACE, "schedule type leading, and schedule type linspace"),
}


@pytest.mark.parametrize(
    ("importer", "difference"), OTHER_OPTIONS.values(), ids=OTHER_OPTIONS.keys()
)
@pytest.mark.parametrize("is_copy", [False, True], ids=["same file", "copy"])
def test_other_options_are_refused_with_the_difference(
    entry, store_home: Path, tiny_checkpoint, copied, importer, difference, is_copy
):
    before = snapshot(store_home)
    with pytest.raises(CheckpointError) as refused:
        import_file(copied if is_copy else tiny_checkpoint, importer)
    assert str(refused.value) == (
        f"{entry.tag} is imported with {difference} is asked for; --force replaces it, and --name "
        "gives the new one another name."
    )
    assert snapshot(store_home) == before


def test_another_vae_is_refused_with_the_difference(
    entry, tiny_checkpoint: Path, second_checkpoint: Path
):
    sha256 = hashlib.sha256(second_checkpoint.read_bytes()).hexdigest()
    with pytest.raises(
        CheckpointError,
        match=f"with the checkpoint's own VAE, and a VAE with the SHA-256 {sha256} is asked for",
    ):
        import_file(tiny_checkpoint, mine(selection=Selection(vae=second_checkpoint)))


def _known(**changes: object) -> Manifest:
    """An import with the options MINE and nothing chosen, but for these changes."""
    plain = {"dtype": "float16", "ema": False, "vae": "", "zero_terminal_snr": False}
    return make_manifest({}, name="mine", **(plain | changes))


@pytest.mark.parametrize(
    ("known", "selection", "difference"),
    [
        (_known(dtype="float32"), Selection(), "dtype float32, and dtype float16"),
        (_known(ema=True), Selection(), "EMA weights, and the UNet's own weights"),
        (_known(), Selection(use_ema=True), "the UNet's own weights, and EMA weights"),
        (
            _known(vae="a.safetensors, SHA-256 " + "0" * 64),
            Selection(),
            f"a VAE with the SHA-256 {'0' * 64}, and the checkpoint's own VAE",
        ),
    ],
)
def test_every_choice_counts(known: Manifest, selection: Selection, difference: str):
    with pytest.raises(
        CheckpointError, match=f"^mine:0123456789ab is imported with {difference} is asked"
    ):
        mine(selection=selection)._check_same(known)


@pytest.mark.parametrize(
    "changes",
    [
        {"origin": replace(ORIGIN, source="demo")},
        {"origin": replace(ORIGIN, file="b")},
        {"origin": replace(ORIGIN, notes=AuthorNotes("x"))},
        {"created": "later"},
    ],
    ids=["source", "file", "title", "time"],
)
def test_what_is_no_choice_does_not(changes: dict[str, object]):
    MINE._check_same(_known(**changes))


LEFT_OUT = {"CLIP's position numbers": 1, f"{UNKNOWN}the UNet": 2}


def test_unknown_tensors_that_were_left_out_are_a_choice():
    known = _known(ignored=LEFT_OUT)
    with pytest.raises(CheckpointError) as refused:
        MINE._check_same(known)
    assert str(refused.value) == (
        "mine:0123456789ab is imported with --ignore-unknown, and no tensor left out by "
        "--ignore-unknown is asked for; --force replaces it, and --name gives the new one another "
        "name."
    )
    mine(selection=Selection(ignore_unknown=True))._check_same(known)


def test_leave_to_leave_out_nothing_is_no_choice():
    """The same file has no unknown tensors with the option either."""
    importer = mine(selection=Selection(ignore_unknown=True))
    importer._check_same(_known(ignored={"CLIP's position numbers": 1}))
    importer._check_same(_known(ignored={}))


def test_an_import_that_left_out_unknown_tensors_is_known_again(
    entry, tiny_tensors, save, store_home: Path
):
    path = save(tiny_tensors | {"model.diffusion_model.more": torch.zeros(1)})
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    importer = mine(selection=Selection(ignore_unknown=True))
    first = import_file(path, importer)
    assert import_file(path, importer, progress=fail_at_once) == replace(first, was_known=True)
    assert find_known(importer, {SHA256: sha256}).was_known
    with pytest.raises(CheckpointError, match="is imported with --ignore-unknown, and no tensor"):
        find_known(MINE, {SHA256: sha256})
    path = entries.find(first.tag).path
    assert "--ignore-unknown --force" in str(Manifest.unusable(path, "x", read_manifest(path)))


def test_the_same_vae_under_another_name_is_the_same(tmp_path: Path):
    vae = tmp_path / "b.safetensors"
    vae.write_bytes(b"vae")
    sha256 = hashlib.sha256(b"vae").hexdigest()
    mine(selection=Selection(vae=vae))._check_same(_known(vae=f"a.safetensors, SHA-256 {sha256}"))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "no manifest": lambda path: (path / "manifest.json").unlink(),
    "no configuration": lambda path: (path / "unet" / "config.json").unlink(),
    "no model.yaml": lambda path: (path / "model.yaml").unlink(),
    "odd model.yaml": lambda path: (path / "model.yaml").write_text("{{{"),
    "one file more": lambda path: (path / "unet" / "more.bin").write_text(""),
    "truncated weights": lambda path: os.truncate(
        path / "vae" / "diffusion_pytorch_model.safetensors", 1000
    ),
    "manifest of another version": lambda path: (path / "manifest.json").write_text(
        '{"format_version": 1}'
    ),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_entry_is_not_known(entry: entries.StoreEntry, damage: Callable[[Path], object]):
    manifest = read_manifest(entry.path)
    notes = {SHA256: manifest.origin.sha256}
    assert find_whole(read_manifest, lambda name: name == "mine", notes) == manifest
    damage(entry.path)
    assert find_whole(read_manifest, lambda name: name == "mine", notes) is None


@pytest.mark.parametrize("damage", ["no manifest", "no configuration", "odd model.yaml"])
def test_a_damaged_entry_is_made_whole_by_importing_again(
    entry: entries.StoreEntry, tiny_checkpoint: Path, damage: str
):
    DAMAGES[damage](entry.path)
    assert not import_file(tiny_checkpoint).was_known
    verify_files(entry.path, read_manifest(entry.path))
    assert entries.find("mine").tag == entry.tag


def test_the_right_sha256_needs_no_reading(entry, tiny_checkpoint: Path):
    sha256 = hashlib.sha256(tiny_checkpoint.read_bytes()).hexdigest()
    importer = mine(sha256=sha256)
    assert import_file(tiny_checkpoint, importer, progress=fail_at_once).was_known


def test_a_wrong_sha256_is_refused_even_of_a_known_file(
    entry, store_home: Path, tiny_checkpoint: Path
):
    before = snapshot(store_home)
    with pytest.raises(CheckpointError, match=f"{'0' * 64} was asked for"):
        import_file(tiny_checkpoint, mine(sha256="0" * 64))
    assert snapshot(store_home) == before


def test_an_import_is_found_by_its_sha256(entry, tiny_checkpoint: Path):
    """As a download's is, whose SHA-256 is stated before it begins."""
    notes = {SHA256: hashlib.sha256(tiny_checkpoint.read_bytes()).hexdigest()}
    assert find_known(MINE, notes) == ImportResult(entry.tag, was_known=True)
    assert find_known(mine(name="other"), notes) is None
    assert find_known(mine(force=True), notes) is None
    assert find_known(MINE, {SHA256: "0" * 64}) is None
    (entry.path / "manifest.json").unlink()
    assert find_known(MINE, notes) is None


@pytest.mark.parametrize(
    ("importer", "difference"),
    [
        *OTHER_OPTIONS.values(),
        (mine(selection=Selection(use_ema=True)), "EMA weights is asked for"),
    ],
    ids=[*OTHER_OPTIONS, "ema"],
)
def test_an_import_found_by_its_sha256_must_have_the_same_options(
    entry, tiny_checkpoint: Path, importer, difference: str
):
    sha256 = hashlib.sha256(tiny_checkpoint.read_bytes()).hexdigest()
    with pytest.raises(CheckpointError, match=difference):
        find_known(importer, {SHA256: sha256})


def test_another_file_whose_sha256_begins_alike_is_not_known(entry, tiny_checkpoint: Path):
    sha256 = hashlib.sha256(tiny_checkpoint.read_bytes()).hexdigest()
    assert find_known(MINE, {SHA256: sha256[:12] + "0" * 52}) is None


def test_a_prediction_that_is_not_given_is_the_imports_own(store_home: Path, tiny_checkpoint: Path):
    import_file(tiny_checkpoint, V_PREDICTION)
    assert import_file(tiny_checkpoint).was_known
    sha256 = hashlib.sha256(tiny_checkpoint.read_bytes()).hexdigest()
    assert find_known(MINE, {SHA256: sha256}).was_known


def test_a_schedule_type_that_is_not_given_is_the_imports_own(
    store_home: Path, tiny_checkpoint: Path
):
    import_file(tiny_checkpoint, LINSPACE)
    assert import_file(tiny_checkpoint).was_known
    assert import_file(tiny_checkpoint, LINSPACE).was_known


@pytest.mark.parametrize("asked", [None, ScheduleType.LEADING])
def test_an_entry_of_before_schedule_types_is_the_same(
    entry, tiny_checkpoint: Path, asked: ScheduleType | None
):
    path = entry.path / "manifest.json"
    content = json.loads(path.read_text())
    assert content.pop("schedule_type") == "leading"
    path.write_text(json.dumps(content))
    assert import_file(tiny_checkpoint, mine(selection=Selection(schedule_type=asked))).was_known
    with pytest.raises(CheckpointError, match="schedule type leading, and schedule type linspace"):
        import_file(tiny_checkpoint, LINSPACE)


@pytest.fixture
def no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10**6))


@pytest.mark.usefixtures("no_room")
def test_a_known_copy_needs_no_room(entry, copied: Path):
    assert import_file(copied).was_known


@pytest.mark.usefixtures("no_room", "no_torch_work")
def test_without_room_a_file_that_can_not_be_known_is_not_hashed(entry, copied, second_checkpoint):
    assert copied.stat().st_size != second_checkpoint.stat().st_size
    for path, importer in ((second_checkpoint, MINE), (copied, mine(force=True))):
        with pytest.raises(CheckpointError, match=r"^This import needs 0\.09 GB for the entry"):
            import_file(path, importer, progress=fail_at_once)


@pytest.mark.usefixtures("no_room")
def test_without_room_another_file_of_a_known_size_is_hashed_and_refused(
    entry, copied: Path, store_home: Path
):
    content = bytearray(copied.read_bytes())
    content[-1] ^= 1
    copied.write_bytes(content)
    before = snapshot(store_home)
    with pytest.raises(CheckpointError, match=r"^This import needs 0\.09 GB for the entry"):
        import_file(copied)
    assert snapshot(store_home) == before

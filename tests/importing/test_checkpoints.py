"""The import: a verified entry or none, whatever happens, and what is noted of it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import bentoml
import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from safetensors.torch import load_file

from lpw_sdxl import __version__
from lpw_sdxl.checkpoint.inspect import PREDICTIONS
from lpw_sdxl.checkpoint.selection import Selection, open_checkpoint
from lpw_sdxl.errors import CheckpointError, ModelError
from lpw_sdxl.importing.entry import import_entry
from lpw_sdxl.store import entries, publication
from lpw_sdxl.store.manifest import read_manifest
from lpw_sdxl.store.origin import AuthorNotes
from lpw_sdxl.store.verification import verify_files
from lpw_sdxl.weights.dtypes import CheckpointDtype
from stores import snapshot
from tests.checkpoint.conftest import BF16, Save, Tensors, same_bits, silent
from tests.checkpoint.test_plan import UNDER_A_NETWORK
from tests.forge.extra_tensors import draw_extra_tensors
from tests.forge.raw import safetensors_bytes

from .conftest import MINE, fail_at_once, import_file, mine

pytestmark = pytest.mark.thorough

_TYPES = {
    "U8": "uint8",
    "I8": "int8",
    "I16": "int16",
    "I32": "int32",
    "I64": "int64",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
}
"""torch's dtypes by safetensors' codes."""
UNET, VAE = "model.diffusion_model.", "first_stage_model."
AUTHOR = AuthorNotes("A model v1", "Illustrious", ("one", "two words"))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_an_import_ends_in_a_verified_entry(entry: entries.StoreEntry, tiny_checkpoint: Path):
    sha256 = _sha256(tiny_checkpoint)
    assert entry.tag == f"mine:{sha256[:12]}"
    manifest = read_manifest(entry.path)
    verify_files(entry.path, manifest)
    assert (manifest.name, manifest.origin.sha256, manifest.dtype) == ("mine", sha256, "float16")
    assert str(manifest.native_size) == "128x96"
    model = bentoml.models.get("mine:latest")
    assert (str(model.tag), model.info.labels) == (entry.tag, entries.LABELS)
    assert [listed.tag for listed in entries.list_entries()] == [entry.tag]


def test_every_stage_tells_its_progress_to_the_end(store_home: Path, tiny_checkpoint: Path):
    last: dict[str, tuple[int, int]] = {}
    import_file(tiny_checkpoint, progress=lambda stage, *numbers: last.update({stage: numbers}))
    assert list(last) == ["hash", "convert", "verify", "generate"]
    assert all(done == total > 0 for done, total in last.values())
    assert last["hash"][1] == tiny_checkpoint.stat().st_size


@pytest.fixture(scope="module")
def noted(
    tiny_checkpoint: Path,
    second_checkpoint: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[entries.StoreEntry, Path, Path]]:
    """An import with every note that there is; its entry, its checkpoint, its store."""
    from safetensors.torch import save_file

    from stores import store_at

    folder = tmp_path_factory.mktemp("noted")
    tensors = load_file(tiny_checkpoint)
    tensors |= {
        f"model_ema.{name.removeprefix('model.').replace('.', '')}": tensor * 0.5
        for name, tensor in tensors.items()
        if name.startswith(UNET)
    }
    path = folder / "my model.safetensors"
    save_file(tensors | {"v_pred": torch.zeros(0), "denoiser.sigmas": torch.zeros(9)}, path)
    selection = Selection(True, second_checkpoint, PREDICTIONS["v_prediction_ztsnr"])
    with store_at(folder / "bentoml") as home:
        importer = mine(name="noted", dtype=BF16, selection=selection)
        opened = importer.open(path)
        tag = import_entry(importer, opened, "civitai:128078", AUTHOR, silent).tag
        yield entries.find(tag), path, home


def test_all_that_is_known_is_in_the_stores_metadata(noted, second_checkpoint: Path):
    entry, path, _ = noted
    found = dict(entry.metadata)
    created = datetime.fromisoformat(found.pop("created"))
    assert abs(datetime.now(UTC) - created) < timedelta(minutes=5)
    assert created.utcoffset() == timedelta(0)
    del found["source_identity"]
    sha256 = _sha256(path)
    assert found == {
        "name": "noted",
        "source": "civitai:128078",
        "source_file": "my model.safetensors",
        "source_size": path.stat().st_size,
        "source_sha256": sha256,
        "source_autov2": sha256[:10].upper(),
        "title": "A model v1",
        "base_model": "Illustrious",
        "trained_words": ["one", "two words"],
        "native_size": "1024x1024",
        "dtype": "bfloat16",
        "prediction_type": "v_prediction",
        "zero_terminal_snr": True,
        "schedule_type": "trailing",
        "ema": True,
        "inpainting": False,
        "vae": f"second.safetensors, SHA-256 {_sha256(second_checkpoint)}",
        "ignored": {
            "CLIP's position numbers": 1,
            "the noise schedule of the training": 1,
            "markers of what the UNet predicts": 1,
        },
        "importer_version": __version__,
    }


def test_a_family_that_nobody_names_is_sdxls(entry: entries.StoreEntry):
    assert read_manifest(entry.path).origin.notes.base_model == "SDXL 1.0"


def test_the_manifest_says_the_same(noted):
    entry, _, _ = noted
    described = read_manifest(entry.path).describe()
    assert described.pop("defaults") == {}  # they may change, and the store's note never does
    assert described == {k: v for k, v in entry.metadata.items() if k != "source_identity"}
    assert bentoml.models.get  # the store's own reader gave the metadata


def test_no_path_of_this_machine_is_in_any_file_of_the_entry(noted):
    entry, path, home = noted
    paths = [str(path.parent), str(home), str(Path.home()), tempfile.gettempdir()]
    for file in entry.path.rglob("*"):
        content = file.read_bytes() if file.is_file() else b""
        assert not [path for path in paths if path.encode() + b"/" in content], file


def _picture(directory: Path) -> np.ndarray:
    """A picture of a model of the store, by Diffusers."""
    pipeline = StableDiffusionXLPipeline.from_pretrained(
        directory, local_files_only=True, use_safetensors=True
    )
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    options = {"num_inference_steps": 2, "width": 64, "height": 64, "output_type": "np"}
    return pipeline("a cat", generator=generator, **options).images[0]


def test_extra_tensors_change_nothing_but_the_list_of_what_is_left_out(
    store_home: Path, tiny_tensors: Tensors, save: Save
):
    """Junk, a trainer's left-overs and misspelt names, scalars and empty ones, in odd dtypes."""
    extras = {
        name: torch.ones(shape).to(getattr(torch, _TYPES.get(dtype, "bool")))
        for name, dtype, shape in draw_extra_tensors(0, [*tiny_tensors])
        if not name.startswith(UNDER_A_NETWORK)
    }
    assert len(extras) > 80
    assert len({tensor.dtype for tensor in extras.values()}) > 8
    fp32 = {"dtype": CheckpointDtype.FLOAT32}
    plain = import_file(save(tiny_tensors, "plain.safetensors"), mine(name="plain", **fp32))
    importer = mine(name="extra", **fp32)
    path = save(tiny_tensors | extras, "extra.safetensors")
    extra = import_file(path, importer)
    manifests = [read_manifest(entries.find(result.tag).path) for result in (plain, extra)]
    assert manifests[0].files == manifests[1].files
    assert sum(manifests[1].ignored.values()) == len(extras) + 1  # CLIP's position numbers
    assert not manifests[1].ignores_unknown
    pictures = [_picture(entries.find(result.tag).path) for result in (plain, extra)]
    assert np.array_equal(*pictures)
    rows = dict(importer.rows(importer.open(path)))
    assert "left-overs of the training (" in rows["left out"]
    assert "optimizer.state.0.exp_avg" in rows["tensors of no part of SDXL"]


@pytest.mark.parametrize("length", [0x0280, 0x0480, 0x3C20, 0x8B1F])
def test_a_header_that_begins_like_another_format_is_imported(
    entry: entries.StoreEntry, tiny_checkpoint: Path, tmp_path: Path, length: int
):
    content = tiny_checkpoint.read_bytes()
    own = int.from_bytes(content[:8], "little")
    padded = length + (own // 0x10000 + 1) * 0x10000
    path = tmp_path / "padded.safetensors"
    path.write_bytes(safetensors_bytes(content[8 : 8 + own].ljust(padded), content[8 + own :]))
    assert path.read_bytes()[:2] == length.to_bytes(2, "little")
    result = import_file(path)
    assert not result.was_known
    files = read_manifest(entries.find(result.tag).path).files
    assert files == read_manifest(entry.path).files


def test_the_scheduler_follows_the_users_word(noted):
    entry, _, _ = noted
    config = json.loads((entry.path / "scheduler" / "scheduler_config.json").read_text())
    assert config["prediction_type"] == "v_prediction"
    assert config["rescale_betas_zero_snr"] is True
    assert config["timestep_spacing"] == "trailing"


def test_the_weights_are_the_ones_chosen(noted):
    entry, path, _ = noted
    source = load_file(path)
    unet = load_file(entry.path / "unet" / "diffusion_pytorch_model.safetensors")
    average = source["model_ema.diffusion_modelout2bias"]
    assert same_bits({"x": unet["conv_out.bias"]}, {"x": average.bfloat16()})


def test_force_replaces(entry: entries.StoreEntry, store_home: Path, tiny_checkpoint: Path):
    before = snapshot(store_home)
    options = mine(dtype=BF16, force=True)
    assert not import_file(tiny_checkpoint, options).was_known
    assert snapshot(store_home).keys() == before.keys()
    manifest = read_manifest(entry.path)
    assert manifest.dtype == "bfloat16"
    verify_files(entry.path, manifest)


def test_a_failed_import_leaves_the_store_as_it_was(
    entry: entries.StoreEntry, store_home: Path, change_tensor: Callable[..., Path]
):
    before = snapshot(store_home)
    path = change_tensor(VAE + "quant_conv.bias", lambda t: t.fill_(float("nan")))
    with pytest.raises(CheckpointError, match=r"quant_conv\.bias holds NaN"):
        import_file(path)
    assert snapshot(store_home) == before
    assert entries.find("mine").tag == entry.tag


def test_a_model_that_does_not_run_leaves_the_store_as_it_was(
    entry, store_home: Path, tiny_tensors: Tensors, save: Save
):
    before = snapshot(store_home)
    name = UNET + "out.2.weight"
    path = save({**tiny_tensors, name: torch.full_like(tiny_tensors[name], 60000.0)})
    with pytest.raises(CheckpointError, match="first step gave NaN or infinity"):
        import_file(path)
    assert snapshot(store_home) == before


STAGES = {
    "convert": "lpw_sdxl.checkpoint.convert.convert",
    "verify": "lpw_sdxl.checkpoint.verify.verify_directory",
    "manifest": "lpw_sdxl.importing.entry.write_manifest",
    "publish": "lpw_sdxl.store.publication.Publication.publish",
}


@pytest.mark.parametrize(
    ("stage", "failure"),
    [
        *((stage, KeyboardInterrupt()) for stage in STAGES.values()),
        (STAGES["convert"], SystemExit(143)),
        (STAGES["convert"], OSError(5, "Input/output error")),
        (STAGES["publish"], OSError(5, "Input/output error")),
    ],
)
def test_an_interrupt_at_any_stage_leaves_nothing(
    store_home: Path, tiny_checkpoint: Path, monkeypatch, stage: str, failure: BaseException
):
    def fail(*args: object, **options: object) -> None:
        raise failure

    monkeypatch.setattr(stage, fail)
    with pytest.raises(type(failure)):
        import_file(tiny_checkpoint)
    assert snapshot(store_home) == {}
    with pytest.raises(ModelError, match="No model mine is in the store; import one with"):
        entries.find("mine")


@pytest.mark.parametrize("stage", [STAGES["convert"], STAGES["publish"]])
def test_a_disk_that_is_full_after_all_is_one_sentence(
    store_home: Path, tiny_checkpoint: Path, monkeypatch, stage: str
):
    def fail(*args: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stage, fail)
    with pytest.raises(CheckpointError, match=rf"^The disk of {store_home}/models is full;"):
        import_file(tiny_checkpoint)
    assert snapshot(store_home) == {}


@pytest.mark.parametrize("stage", ["hash", "convert", "verify", "generate"])
def test_an_interrupt_within_a_stage_leaves_nothing(
    store_home: Path, tiny_checkpoint: Path, stage: str
):
    def interrupt(name: str, done: int, total: int) -> None:
        if name == stage and 2 * done >= total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_file(tiny_checkpoint, progress=interrupt)
    assert snapshot(store_home) == {}


def test_a_replacement_that_fails_keeps_the_old_entry(
    entry: entries.StoreEntry, store_home: Path, tiny_checkpoint: Path, monkeypatch
):
    before = snapshot(store_home)

    def interrupted(*_: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(publication, "exchange", interrupted)
    with pytest.raises(KeyboardInterrupt):
        import_file(tiny_checkpoint, mine(force=True))
    assert snapshot(store_home).keys() == before.keys()
    verify_files(entries.find(entry.tag).path, read_manifest(entry.path))


# ---- Files that change while they are imported ----------------------------------------------


def _append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\0")


def _replace(path: Path) -> None:
    """Put a copy, the same to the last byte, in its place."""
    copy = path.with_name("copy")
    shutil.copy2(path, copy)
    copy.replace(path)


def _rewrite(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("stage", "change"),
    [
        ("hash", _replace),
        ("convert", _rewrite),
        ("verify", _replace),
        *((stage, _append) for stage in ("hash", "convert", "verify", "generate")),
    ],
)
def test_a_file_that_changes_is_refused(
    entry, store_home: Path, second_checkpoint: Path, tmp_path: Path, change, stage: str
):
    path = shutil.copy2(second_checkpoint, tmp_path / "mine.safetensors")
    before = snapshot(store_home)
    changes = [change]

    def report(name: str, done: int, total: int) -> None:
        if name == stage and changes:
            changes.pop()(path)

    with pytest.raises(CheckpointError, match=r"^mine\.safetensors changed while it was imported"):
        import_file(path, progress=report)
    assert snapshot(store_home) == before


def test_a_file_that_changes_before_its_import_is_not_read_by_the_old_header(
    store_home: Path, tiny_tensors: Tensors, save: Save, tmp_path: Path
):
    """Two tensors of one size change places in the file: the old header would swap them."""
    one, other = (f"{UNET}output_blocks.{i}.0.in_layers.2.bias" for i in (1, 2))
    path = save(tiny_tensors)
    expected = load_file(path)
    checkpoint = open_checkpoint(path, Selection())
    (tmp_path / "new").write_bytes(_with_two_in_each_others_place(path.read_bytes(), one, other))
    os.replace(tmp_path / "new", path)
    assert same_bits(load_file(path), expected)
    try:
        tag = import_entry(MINE, checkpoint, "civitai:128078", AUTHOR, silent).tag
    except CheckpointError:
        return
    # It may as well be imported as what it now is.
    unet = load_file(entries.find(tag).path / "unet" / "diffusion_pytorch_model.safetensors")
    for index, name in ((1, one), (2, other)):
        assert torch.equal(unet[f"up_blocks.0.resnets.{index}.conv1.bias"], expected[name])


def _with_two_in_each_others_place(content: bytes, one: str, other: str) -> bytes:
    """Swap the bytes of two tensors of one size, and their offsets in the header as well."""
    length = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + length]), bytearray(content[8 + length :])
    (a, b), (c, d) = (header[name]["data_offsets"] for name in (one, other))
    data[a:b], data[c:d] = data[c:d], data[a:b]
    header[one]["data_offsets"], header[other]["data_offsets"] = [c, d], [a, b]
    text = json.dumps(header, separators=(",", ":")).encode().ljust(length)
    return len(text).to_bytes(8, "little") + text + data


def test_a_vae_that_changes_is_refused(
    store_home: Path, tiny_checkpoint: Path, second_checkpoint: Path, tmp_path: Path
):
    path = tmp_path / "vae.safetensors"
    shutil.copy2(second_checkpoint, path)
    content = bytearray(path.read_bytes())
    info = open_checkpoint(path, Selection()).header.tensors[VAE + "quant_conv.bias"]

    def change(name: str, done: int, total: int) -> None:
        if name == "hash":
            content[info.start : info.end] = bytes(info.end - info.start)
            path.write_bytes(content)

    with pytest.raises(CheckpointError, match=r"vae\.safetensors changed"):
        import_file(tiny_checkpoint, mine(selection=Selection(vae=path)), progress=change)


# ---- Refused before anything is read --------------------------------------------------------


def test_a_wrong_sha256_is_refused(store_home: Path, tiny_checkpoint: Path):
    options = mine(sha256="0" * 64)
    with pytest.raises(CheckpointError, match=f"{'0' * 64} was asked for"):
        import_file(tiny_checkpoint, options)
    assert snapshot(store_home) == {}


def test_a_full_disk_is_told_before_the_first_byte(
    store_home: Path, tiny_checkpoint: Path, monkeypatch
):
    usage = shutil.disk_usage(store_home)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10**6))
    with pytest.raises(CheckpointError) as refused:
        import_file(tiny_checkpoint, progress=fail_at_once)
    assert str(refused.value) == (
        f"This import needs 0.09 GB for the entry in {store_home}/models, and 1.00 MB are free "
        "there; make room, or set BENTOML_HOME to a folder on a larger disk."
    )
    assert snapshot(store_home) == {}


def test_a_bad_name_is_refused_before_anything_is_read(store_home: Path, tiny_checkpoint: Path):
    with pytest.raises(CheckpointError, match=r"^The name 'a/b' can't be used"):
        import_file(tiny_checkpoint, mine(name="a/b"), progress=fail_at_once)


def test_two_imports_at_once_are_refused(store_home: Path, tiny_checkpoint: Path):
    with (
        publication.exclusive_import(),
        pytest.raises(CheckpointError, match="Another import is at work"),
    ):
        import_file(tiny_checkpoint, progress=fail_at_once)


def test_a_store_on_another_disk_is_refused_before_the_hash(
    store_home: Path, tiny_checkpoint: Path
):
    elsewhere = Path(tempfile.mkdtemp(dir="/dev/shm"))
    try:
        shutil.rmtree(store_home / "models", ignore_errors=True)
        (store_home / "models").symlink_to(elsewhere)
        with pytest.raises(CheckpointError, match="different disks"):
            import_file(tiny_checkpoint, progress=fail_at_once)
    finally:
        shutil.rmtree(elsewhere)

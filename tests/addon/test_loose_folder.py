"""A folder of LoRAs' or embeddings' own files, as they come, change and go."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lpw_sdxl.addon import loose, loose_file, loose_folder
from lpw_sdxl.addon.loose_folder import LooseFolder
from lpw_sdxl.addon.registry import Finding, Found, Registry
from lpw_sdxl.errors import AddonNotReadError, InvalidRequestError
from lpw_sdxl.lora.targets import TargetModules, encoder_widths, read_targets
from lpw_sdxl.store.kind import AddonKind
from tests.forge.lora import LoraOptions, write_lora
from tests.forge.lora_names import SyntheticNaming

FIELD = "loras.0.name"
PATIENCE_S = 20.0


@pytest.fixture(scope="module")
def targets(model_directory: Path) -> TargetModules:
    return read_targets(model_directory)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loose_file, "STILL_S", 0.1)
    monkeypatch.setattr(loose_file, "STILL_AT_FIRST_S", 10_000.0)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (folder := tmp_path / "loras").mkdir()
    return folder


@pytest.fixture
def folder(root: Path, targets: TargetModules) -> Iterator[LooseFolder]:
    folder = LooseFolder(AddonKind.LORA, root, targets)
    folder.start()
    yield folder
    folder.close()


@pytest.fixture
def write(root: Path, targets: TargetModules) -> Callable[..., Path]:
    """Write a LoRA beside the folder and move it in, in one step."""

    def write(name: str, seed: int = 1, **options: object) -> Path:
        path = root / f"{name}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = root.parent / "partial.safetensors"
        write_lora(partial, targets, LoraOptions(seed=seed, rank=1, **options))
        partial.replace(path)
        return path

    return write


def look(folder: LooseFolder) -> Registry:
    return Registry.of([folder.look()])


def look_until(folder: LooseFolder, is_so: Callable[[Registry], bool]) -> Finding:
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        finding = folder.look()
        if is_so(Registry.of([finding])):
            return finding
        time.sleep(0.02)
    raise AssertionError(folder.look())


def settled(folder: LooseFolder) -> Registry:
    return Registry.of([look_until(folder, lambda registry: not registry.pending)])


def names(registry: Registry) -> list[str]:
    return sorted(lora.manifest.name for lora in registry.loras.values())


def test_files_are_known_by_their_names_in_sub_folders_too(folder: LooseFolder, write) -> None:
    path = write("Add Detail")
    write("styles/deep/ink", seed=2)
    (path.parent / "note.txt").write_text("no LoRA")
    (path.parent / ".hidden.safetensors").write_bytes(b"x")
    shutil.copy(write("hidden/x"), path.parent / "UPPER.SafeTensors")
    shutil.move(path.parent / "hidden", path.parent / ".cache")
    registry = settled(folder)
    assert names(registry) == ["Add Detail", "UPPER", "ink"]
    addon = registry.lora("add-detail", FIELD)
    assert addon.file == path
    assert addon.manifest.origin.file == "Add Detail.safetensors"
    assert addon.manifest.details.kinds == ("LoRA",)
    assert registry.lora("styles/deep/ink", FIELD) is registry.lora("INK", FIELD)
    assert not registry.unusable


def test_its_tensors_are_those_of_an_import(folder: LooseFolder, write, tmp_path: Path) -> None:
    path = write("x", naming=SyntheticNaming.PEFT, metadata={"ss_network_alpha": "4"})
    addon = settled(folder).lora("x", FIELD)
    tensors = addon.load(addon.file)
    opened = loose.open_for(AddonKind.LORA, loose.read_header(path), addon.targets)
    opened.write(tmp_path / "imported.safetensors", lambda *_: None)
    imported = load_file(tmp_path / "imported.safetensors")
    assert tensors.keys() == imported.keys()
    assert all(torch.equal(tensors[name], imported[name]) for name in imported)


def test_two_of_one_name_are_known_with_their_folders(folder: LooseFolder, write) -> None:
    write("faces/detail")
    assert names(settled(folder)) == ["detail"]
    write("places/Detail", seed=2)
    write("other", seed=3)
    registry = settled(folder)
    assert names(registry) == ["faces/detail", "other", "places/Detail"]
    with pytest.raises(InvalidRequestError) as caught:
        registry.lora("detail", FIELD)
    assert str(caught.value) == (
        "Several LoRAs are named 'detail'; written as they are, names mean one: "
        "'faces/detail', 'places/Detail'."
    )
    assert registry.lora("places/detail", FIELD).file.parent.name == "places"
    one, other = (registry.lora(name, FIELD) for name in ("faces/detail", "places/detail"))
    assert one.key != other.key


@pytest.mark.parametrize(
    ("one", "other", "asked"),
    [
        ("my lora", "my-lora", "my_lora!"),
        ("Case", "case", "CASE"),
        ("a-x", "a/x", "A x"),
        ("c d/z", "c-d/z", "c.d/z"),
    ],
)
def test_a_name_that_differs_in_signs_alone_never_means_another_file(
    folder: LooseFolder, write, one: str, other: str, asked: str
) -> None:
    paths = {one: write(one, seed=1), other: write(other, seed=2)}
    registry = settled(folder)
    for name, path in paths.items():
        assert registry.lora(name, FIELD).file == path
    with pytest.raises(InvalidRequestError) as caught:
        registry.lora(asked, FIELD)
    assert str(paths) not in str(caught.value)


def test_an_imported_lora_has_its_name_and_a_file_in_a_sub_folder_its_own(
    folder: LooseFolder, write
) -> None:
    path = write("sub/copied")
    write("copied", seed=2)
    settled(folder)
    [loose_one] = [one for one in folder.look() if one.full_name == "copied"]
    entry = loose_one.content
    registry = Registry.of([(Found(AddonKind.LORA, "Copied", "Copied", entry),), folder.look()])
    assert registry.lora("copied", FIELD) is entry
    assert registry.lora("sub/copied", FIELD).file == path


def test_what_does_not_fit_keeps_no_name_from_a_file_that_does(folder: LooseFolder, write) -> None:
    write("copied")
    settled(folder)
    for keeps_name in (False, True):
        bad = Found(AddonKind.LORA, "copied", "copied", "for another model", keeps_name)
        registry = Registry.of([(bad,), folder.look()])
        assert names(registry) == ([] if keeps_name else ["copied"])


def test_what_is_being_read_is_told_apart_from_what_is_unknown(folder: LooseFolder, write) -> None:
    write("x")
    with pytest.raises(AddonNotReadError, match="The LoRA 'X' is still being read") as caught:
        look(folder).lora("X", FIELD)
    assert (caught.value.status, caught.value.field) == (400, FIELD)
    reading = caught.value.pending.when_read()
    assert not reading.done()
    settled(folder)
    assert reading.result(PATIENCE_S) is None


def test_a_file_that_grows_is_not_read_and_a_truncated_one_only_by_its_header(
    folder: LooseFolder, write, root: Path, caplog, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed = []
    hash_file = loose.hash_file
    monkeypatch.setattr(
        loose, "hash_file", lambda path, *rest: hashed.append(path) or hash_file(path, *rest)
    )
    whole = write("whole").read_bytes()
    (root / "whole.safetensors").unlink()
    path = root / "slow.safetensors"
    for end in range(len(whole) // 6, len(whole), len(whole) // 6):
        path.write_bytes(whole[:end])
        assert "lora-slow" in look(folder).pending
    assert not hashed
    assert not caplog.records
    look_until(folder, lambda finding: "lora-slow" in finding.unusable)  # it stopped growing
    assert "LoRA slow.safetensors is left out: slow.safetensors is damaged: it is trunc" in (
        caplog.text
    )
    path.write_bytes(whole)
    assert names(settled(folder)) == ["slow"]
    assert hashed == [path]


def test_a_file_that_changes_while_it_is_read_is_read_anew(
    folder: LooseFolder, write, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    """Also when it is as large as before, as one that is copied over is."""
    monkeypatch.setattr(loose_folder, "LOOK_EVERY_BYTES", 0)
    begun, go_on = threading.Event(), threading.Event()
    counted = []
    hash_file = loose.hash_file

    def hash_slowly(path: Path, note: Callable[[int], None]) -> str:
        begun.set()
        assert go_on.wait(PATIENCE_S)
        digest = hash_file(path, note)
        counted.append(digest)
        return digest

    monkeypatch.setattr(loose, "hash_file", hash_slowly)
    path = write("x", seed=1)
    first = path.read_bytes()
    look_until(folder, lambda _: begun.is_set())
    write("x", seed=2)
    waiting = look(folder).pending["lora-x"].when_read()
    go_on.set()
    registry = settled(folder)
    assert path.read_bytes() != first
    assert counted == [registry.lora("x", FIELD).manifest.origin.sha256]  # the first was given up
    assert waiting.result(PATIENCE_S) is None
    assert not caplog.records


def test_what_is_asked_for_is_read_first(
    folder: LooseFolder, write, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on, order = threading.Event(), threading.Event(), []
    hash_file = loose.hash_file

    def hash_slowly(path: Path, note: Callable[[int], None]) -> str:
        order.append(path.stem)
        begun.set()
        assert go_on.wait(PATIENCE_S)
        return hash_file(path, note)

    monkeypatch.setattr(loose, "hash_file", hash_slowly)
    for index in range(6):
        write(f"lora-{index}", seed=index)
    look_until(folder, lambda _: begun.is_set())
    look(folder).pending["lora-lora-4"].when_read()
    go_on.set()
    settled(folder)
    assert order[1] == "lora-4"
    assert len(order) == 6


def test_a_replaced_file_is_another_one_and_a_removed_one_is_unknown(
    folder: LooseFolder, write
) -> None:
    path = write("x", seed=1)
    before = settled(folder).lora("x", FIELD)
    assert before.is_current()
    write("x", seed=2)
    assert not before.is_current()
    assert "lora-x" in look(folder).pending
    after = settled(folder).lora("x", FIELD)
    assert after.key != before.key
    path.unlink()
    with pytest.raises(InvalidRequestError, match="No LoRA is named 'x'; this server has none"):
        look(folder).lora("x", FIELD)


def test_the_same_bytes_under_another_name_are_another_lora_of_one_hash(
    folder: LooseFolder, write
) -> None:
    path = write("x")
    shutil.copy(path, path.with_name("y.safetensors"))
    registry = settled(folder)
    x, y = registry.lora("x", FIELD), registry.lora("y", FIELD)
    assert x.manifest.origin.sha256 == y.manifest.origin.sha256
    assert x.key != y.key


def test_a_peft_configuration_beside_counts_and_so_does_its_change(
    folder: LooseFolder, write
) -> None:
    path = write("peft/adapter_model", naming=SyntheticNaming.PEFT)
    config = path.with_name("adapter_config.json")
    keys = set()
    for alpha in (1, 4):
        config.write_text(json.dumps({"peft_type": "LORA", "r": 1, "lora_alpha": alpha}))
        addon = settled(folder).lora("adapter_model", FIELD)
        assert addon.manifest.details.alphas == (alpha,)
        keys.add(addon.key)
    assert len(keys) == 2


REFUSED = {
    "no safetensors": (lambda path: path.write_bytes(b"<html>not found</html>"), "is a web page"),
    "another kind": (
        lambda path: save_file({"model.diffusion_model.x": torch.zeros(2)}, path),
        "a LoRA for SDXL is needed",
    ),
    "another base": (
        lambda path: save_file(
            {
                f"lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.{one}": (
                    torch.zeros(shape)
                )
                for one, shape in (("lora_down.weight", (1, 768)), ("lora_up.weight", (320, 1)))
            },
            path,
        ),
        "",
    ),
}


@pytest.mark.parametrize(("spoil", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_can_not_be_used_is_named_in_the_log_once_and_never_loaded(
    folder: LooseFolder, root: Path, write, caplog, spoil, reason: str
) -> None:
    spoil(root / "bad.safetensors")
    registry = settled(folder)
    for _ in range(3):
        folder.look()
    [record] = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith("LoRA bad.safetensors is left out: bad.safetensors ")
    assert reason in record.getMessage()
    with pytest.raises(InvalidRequestError, match="'bad' is there but can't be used") as caught:
        registry.lora("bad", FIELD)
    assert str(root) not in str(caught.value)
    write("bad")
    assert names(settled(folder)) == ["bad"]


def test_numbers_that_are_not_finite_are_refused_before_any_request(
    folder: LooseFolder, root: Path, write, caplog
) -> None:
    path = write("bad")
    tensors = load_file(path)
    name = next(name for name in tensors if name.endswith("lora_up.weight"))
    tensors[name].view(-1)[-1] = torch.nan
    path.unlink()
    save_file(tensors, root / "bad.safetensors")
    assert "lora-bad" in settled(folder).unusable
    assert "holds NaN or infinity" in caplog.text


def test_a_folder_that_can_not_be_read_keeps_what_it_held(
    folder: LooseFolder, root: Path, write, caplog
) -> None:
    write("x")
    settled(folder)
    away = root.rename(root.with_name("away"))
    root.symlink_to(root)  # a loop: neither there nor missing
    for _ in range(3):
        assert names(look(folder)) == ["x"]
    assert len([record for record in caplog.records if "can't be read" in record.message]) == 1
    root.unlink()
    away.rename(root)
    assert names(settled(folder)) == ["x"]


def test_a_folder_that_is_gone_holds_nothing(folder: LooseFolder, root: Path, write) -> None:
    write("x")
    settled(folder)
    shutil.rmtree(root)
    assert folder.look() == ()


def test_links_are_followed_and_a_ring_of_them_ends(
    folder: LooseFolder, root: Path, write, tmp_path: Path
) -> None:
    path = write("a/x")
    (root / "a" / "ring").symlink_to(root)
    shutil.move(path, tmp_path / "elsewhere.safetensors")
    (root / "y.safetensors").symlink_to(tmp_path / "elsewhere.safetensors")
    (root / "z.safetensors").symlink_to(tmp_path / "nowhere")
    assert names(settled(folder)) == ["y"]


def test_a_file_that_a_downloader_still_fills_is_not_read(
    folder: LooseFolder, write, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A preallocated file has its full size from the first moment on."""
    (root / "x.safetensors.aria2").touch()
    write("x")
    time.sleep(0.3)
    assert "lora-x" in look(folder).pending
    (root / "x.safetensors.aria2").unlink()
    assert names(settled(folder)) == ["x"]


def test_a_file_that_changes_in_its_place_after_it_was_read_has_to_keep_still_for_longer(
    folder: LooseFolder, write
) -> None:
    path = write("x")
    settled(folder)
    [before] = folder._files.values()
    content = bytearray(path.read_bytes())
    for times in (2, 4):
        content[-1] ^= 1
        path.write_bytes(content)
        look(folder)
        [file] = folder._files.values()
        assert file.still_s == pytest.approx(times * before.still_s)
        settled(folder)
    write("x", seed=2)  # moved in: whole from the first moment on
    look(folder)
    [file] = folder._files.values()
    assert file.still_s == before.still_s


def test_a_name_that_is_no_text_is_left_out(folder: LooseFolder, write, root: Path) -> None:
    path = write("x")
    os.rename(os.fsencode(path), os.fsencode(root) + b"/bad\xff.safetensors")
    write("good", seed=2)
    registry = settled(folder)
    assert names(registry) == ["good"]
    with pytest.raises(InvalidRequestError, match="is there but can't be used"):
        registry.lora("bad\udcff", FIELD)


def test_a_disk_that_fails_once_is_asked_again(
    folder: LooseFolder, write, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    monkeypatch.setattr(loose_folder, "AGAIN_S", 0.2)
    failures = [OSError(5, "Input/output error")]
    hash_file = loose.hash_file

    def fail_once(*arguments: object) -> str:
        if failures:
            raise failures.pop()
        return hash_file(*arguments)

    monkeypatch.setattr(loose, "hash_file", fail_once)
    write("x")
    assert names(settled(folder)) == ["x"]
    assert "can't be read now" in caplog.text


def test_what_can_not_be_offered_ends_no_reading(folder: LooseFolder, write, caplog) -> None:
    def fail() -> None:
        raise RuntimeError("injected")

    folder.has_read = fail
    write("x")
    settled(folder)
    write("y", seed=2)
    assert names(settled(folder)) == ["x", "y"]
    assert "could not be offered" in caplog.text


def test_closing_lets_nobody_wait(folder: LooseFolder, write) -> None:
    write("x")
    waiting = look(folder).pending["lora-x"].when_read()
    folder.close()
    assert waiting.result(PATIENCE_S) is None


@pytest.fixture
def embeddings(root: Path, targets: TargetModules) -> Iterator[LooseFolder]:
    folder = LooseFolder(AddonKind.EMBEDDING, root, targets)
    folder.start()
    yield folder
    folder.close()


def write_embedding(path: Path, targets: TargetModules, vectors: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    widths = zip(("clip_l", "clip_g"), encoder_widths(targets), strict=True)
    save_file({name: torch.ones(vectors, width) for name, width in widths}, path)


def test_a_replaced_embedding_serves_until_the_new_one_is_read(
    embeddings: LooseFolder, root: Path, targets: TargetModules
) -> None:
    path = root / "glow.safetensors"
    write_embedding(path, targets, 2)
    before = settled(embeddings).embeddings["glow"]
    path.write_bytes(path.read_bytes()[:-8])
    assert not look(embeddings).pending
    assert look(embeddings).embeddings["glow"] == before
    write_embedding(path, targets, 3)
    assert look(embeddings).embeddings["glow"] == before
    finding = look_until(embeddings, lambda now: now.embeddings.get("glow") not in (before, None))
    assert Registry.of([finding]).embeddings["glow"].manifest.details.vectors == 3
    path.unlink()
    assert not look(embeddings).embeddings


def test_embeddings_have_names_that_a_prompt_can_hold(
    embeddings: LooseFolder, root: Path, targets: TargetModules, caplog
) -> None:
    for name in ("glow", "a/hand", "b/hand", "two words", "c d/glow"):
        write_embedding(root / f"{name}.safetensors", targets, 1)
    registry = settled(embeddings)
    found = sorted(one.manifest.name for one in registry.embeddings.values())
    assert found == ["a/hand", "b/hand", "glow"]
    assert "two words.safetensors has a name that no prompt can hold as a word" in caplog.text
    assert {"embedding-two-words", "embedding-c-d-glow"} <= registry.unusable.keys()


def test_an_embedding_for_another_model_is_refused(
    embeddings: LooseFolder, root: Path, caplog
) -> None:
    save_file({"clip_l": torch.ones(1, 768), "clip_g": torch.ones(1, 1280)}, root / "x.safetensors")
    assert "embedding-x" in settled(embeddings).unusable
    assert "for text encoders of the widths 768 and 1280; the model that is served has" in (
        caplog.text
    )


def test_looking_at_what_stays_opens_no_file(folder: LooseFolder, write, root: Path) -> None:
    write("x")
    settled(folder)
    before = os.stat(root / "x.safetensors").st_atime_ns
    findings = [folder.look() for _ in range(5)]
    assert findings[1:] == findings[:-1]
    assert os.stat(root / "x.safetensors").st_atime_ns == before

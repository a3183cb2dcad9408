"""The model store: an entry is there whole or not at all, whenever the process ends."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import bentoml
import pytest

from lpw_sdxl.errors import CheckpointError, ModelError
from lpw_sdxl.store import entries, publication
from lpw_sdxl.store import exchange as exchange_module
from lpw_sdxl.store.manifest import read_manifest, write_manifest
from lpw_sdxl.store.verification import list_files, verify_files
from lpw_sdxl.weights.files import record_file
from stores import snapshot

from .test_manifest import make_manifest

OLD, NEW, THIRD = "mine:aaaaaaaaaaaa", "mine:bbbbbbbbbbbb", "mine:cccccccccccc"


def _publish(tag: str, content: str = "weights") -> entries.StoreEntry:
    """Publish a small entry as the import does a model."""
    with publication.exclusive_import() as workshop:
        entry = publication.prepare_publication(tag, {"title": content}, workshop)
        (entry.directory / "w.bin").write_text(content)
        files = {name: record_file(path) for name, path in list_files(entry.directory).items()}
        write_manifest(entry.directory, make_manifest(files, name="mine"))
        return entry.publish()


def _content(tag: str) -> str:
    """Read an entry as the service does: found, checked against its manifest."""
    path = entries.find(tag).path
    verify_files(path, read_manifest(path))
    return (path / "w.bin").read_text()


def _check_all_whole() -> None:
    """Check every listed entry as `list` and the service do; BentoML must read them, too."""
    for entry in entries.list_entries():
        verify_files(entry.path, read_manifest(entry.path))
    bentoml.models.list()


def _latest(home: Path) -> str:
    return (home / "models" / "mine" / "latest").read_text()


@pytest.fixture
def old(store_home: Path) -> Path:
    """A store with one entry; its home."""
    _publish(OLD, "old")
    return store_home


def test_a_published_entry_is_found_listed_and_latest(store_home: Path):
    entry = _publish(OLD, "old")
    assert (entry.tag, entry.path.name) == (OLD, OLD.split(":")[1])
    assert [listed.tag for listed in entries.list_entries()] == [OLD]
    assert (
        entries.find("mine").tag == entries.find("mine:latest").tag == entries.find(OLD).tag == OLD
    )
    model = bentoml.models.get("mine:latest")
    assert (str(model.tag), model.info.labels) == (OLD, entries.LABELS)
    assert model.info.metadata["title"] == "old"
    assert _content("mine") == "old"


def test_nothing_is_left_beside_the_entry(old: Path):
    assert [path.name for path in (old / "tmp").iterdir()] == ["lpw-sdxl-import.lock"]


def test_what_is_not_published_is_removed(old: Path):
    before = snapshot(old)
    with publication.exclusive_import() as workshop:
        entry = publication.prepare_publication(NEW, {}, workshop)
        (entry.directory / "w.bin").write_text("half")
    assert snapshot(old) == before


def test_a_new_entry_is_latest_and_the_old_one_stays(old: Path):
    _publish(NEW, "new")
    assert (entries.find("mine").tag, _content(OLD), _content(NEW)) == (NEW, "old", "new")


def test_an_entry_is_replaced_and_becomes_latest(old: Path):
    _publish(NEW, "new")
    _publish(OLD, "replaced")
    assert (entries.find("mine").tag, _content("mine")) == (OLD, "replaced")
    assert entries.find(OLD).metadata["title"] == "replaced"
    assert _content(NEW) == "new"


# ---- Ends at every step ---------------------------------------------------------------------

Hook = Callable[[pytest.MonkeyPatch, Callable[[], None]], None]


def _around(owner: object, name: str, *, before: bool) -> Hook:
    """End the process at a call of this function, before or after it has done its work."""

    def hook(patch: pytest.MonkeyPatch, end: Callable[[], None]) -> None:
        original = getattr(owner, name)

        def ending(*arguments: object) -> object:
            if before:
                end()
            result = original(*arguments)
            end()
            return result

        patch.setattr(owner, name, ending)

    return hook


STEPS: dict[str, Hook] = {
    "before latest": _around(publication.Publication, "_write_latest", before=True),
    "after latest": _around(publication.Publication, "_write_latest", before=False),
    "before rename": _around(Path, "rename", before=True),
    "after rename": _around(Path, "rename", before=False),
    "before exchange": _around(publication, "exchange", before=True),
    "after exchange": _around(publication, "exchange", before=False),
}
OF_A_NEW_ENTRY = [step for step in STEPS if "exchange" not in step]
OF_A_REPLACEMENT = [step for step in STEPS if "rename" not in step]


def _killed(step: str, work: Callable[[], object]) -> None:
    """Do some work in a child of this process, which is killed (-9) at a step."""

    def kill() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        try:
            STEPS[step](pytest.MonkeyPatch(), kill)
            work()
        finally:
            os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL, "the step was never reached"


def _interrupted(step: str, work: Callable[[], object]) -> None:
    """Do some work, which is interrupted at a step."""

    def interrupt() -> None:
        patch.undo()  # once: what cleans up must not be interrupted
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        STEPS[step](patch, interrupt)
        with pytest.raises(KeyboardInterrupt):
            work()


each_end = pytest.mark.parametrize(
    "end",
    [
        pytest.param(_killed, id="killed", marks=pytest.mark.processes),
        pytest.param(_interrupted, id="interrupted"),
    ],
)


@each_end
@pytest.mark.parametrize("step", OF_A_NEW_ENTRY)
def test_an_end_at_any_step_keeps_the_entry_before(old: Path, end, step: str):
    end(step, lambda: _publish(NEW, "new"))
    _check_all_whole()
    assert _content(OLD) == "old"
    is_in = (step, end) == ("after rename", _killed)
    assert _content("mine") == _content("mine:latest") == ("new" if is_in else "old")
    _publish(THIRD, "third")
    assert _content("mine:latest") == "third"
    _publish(NEW, "newer")
    assert (_content("mine:latest"), _content(OLD)) == ("newer", "old")
    assert [path.name for path in (old / "tmp").iterdir()] == ["lpw-sdxl-import.lock"]


@each_end
@pytest.mark.parametrize("step", OF_A_NEW_ENTRY)
def test_an_end_at_any_step_of_the_first_import_leaves_none_or_a_whole_one(
    store_home: Path, end, step: str
):
    end(step, lambda: _publish(NEW, "new"))
    _check_all_whole()
    if step == "after rename":
        assert _content("mine:latest") == "new"
    else:
        assert entries.list_entries() == []
        with pytest.raises(ModelError, match="No model mine:latest is in the store"):
            entries.find("mine:latest")
    _publish(NEW, "again")
    assert _content("mine:latest") == "again"


@each_end
@pytest.mark.parametrize("step", OF_A_REPLACEMENT)
def test_an_end_at_any_step_of_a_replacement_keeps_one_of_both(old: Path, end, step: str):
    end(step, lambda: _publish(OLD, "replaced"))
    _check_all_whole()
    assert [entry.tag for entry in entries.list_entries()] == [OLD]
    expected = "replaced" if step == "after exchange" else "old"
    assert _content(OLD) == _content("mine:latest") == expected
    _publish(OLD, "again")
    assert _content("mine:latest") == "again"
    assert [path.name for path in (old / "tmp").iterdir()] == ["lpw-sdxl-import.lock"]


@each_end
@pytest.mark.parametrize("step", ["before latest", "after latest", "before exchange"])
def test_a_replacement_of_an_older_entry_that_ends_early_leaves_it(old: Path, end, step: str):
    _publish(NEW, "new")
    end(step, lambda: _publish(OLD, "replaced"))
    assert (_content(OLD), _content(NEW)) == ("old", "new")
    # A kill may leave either one latest, both of which are whole.
    assert _content("mine:latest") in (("new",) if end is _interrupted else ("new", "old"))


def test_an_interrupted_first_import_leaves_no_folder(store_home: Path):
    _interrupted("after latest", lambda: _publish(NEW, "new"))
    assert list((store_home / "models").iterdir()) == []


@pytest.mark.processes
@pytest.mark.parametrize("step", ["after latest", "before rename"])
def test_a_kill_beside_a_damaged_entry_keeps_the_entry_before(old: Path, step: str):
    _publish(THIRD, "third")
    (entries.find(THIRD).path / "model.yaml").unlink()
    _publish(OLD, "old")
    assert _content("mine") == "old"
    _killed(step, lambda: _publish(NEW, "new"))
    assert _content("mine") == "old"


@pytest.mark.processes
def test_a_kill_between_the_renames_of_an_exchange_loses_nothing(
    old: Path, monkeypatch: pytest.MonkeyPatch
):
    """Where the system has no exchange: macOS, some network file systems."""

    def not_offered(*_: Path) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(exchange_module, "_exchange_at_once", not_offered)
    _killed("after rename", lambda: _publish(OLD, "replaced"))
    with publication.exclusive_import():
        pass
    assert _content(OLD) in ("old", "replaced")


# ---- One import at a time -------------------------------------------------------------------


def test_two_imports_at_once_are_refused(store_home: Path):
    with (
        publication.exclusive_import(),
        pytest.raises(CheckpointError, match="Another import is at work"),
    ):
        _publish(NEW)
    _publish(NEW)


def test_the_leftovers_of_a_killed_import_are_removed_and_nothing_else(store_home: Path):
    leftover = store_home / "tmp" / "lpw-sdxl-import-killed" / "mine" / "abc"
    leftover.mkdir(parents=True)
    (leftover / "weights").write_bytes(b"half")
    foreign = store_home / "tmp" / "another-tool"
    foreign.mkdir()
    with publication.exclusive_import():
        assert not leftover.exists()
        assert foreign.exists()


def test_all_temporary_files_are_within_the_imports_own_folder(
    store_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(elsewhere))
    seen: list[str] = []
    mkdtemp = tempfile.mkdtemp

    def noted(*arguments: object, **options: object) -> str:
        seen.append(mkdtemp(*arguments, **options))
        return seen[-1]

    monkeypatch.setattr(tempfile, "mkdtemp", noted)
    _publish(NEW)
    assert seen
    assert all(path.startswith(f"{store_home}/tmp/lpw-sdxl-import-") for path in seen)
    assert tempfile.tempdir == str(elsewhere)


@pytest.fixture
def store_on_another_disk(store_home: Path) -> Iterator[None]:
    elsewhere = Path(tempfile.mkdtemp(dir="/dev/shm"))
    shutil.rmtree(store_home / "models")
    (store_home / "models").symlink_to(elsewhere)
    yield
    shutil.rmtree(elsewhere)


@pytest.mark.usefixtures("store_on_another_disk")
def test_a_store_on_another_disk_is_refused():
    with pytest.raises(CheckpointError, match=r"different disks.*at BENTOML_HOME itself"):
        _publish(NEW)


@pytest.mark.parametrize("name", ["", "-a", "a-", "Upper", "a b", "a/b", "../a", "a:b", "x" * 64])
def test_a_name_that_the_store_cannot_keep_is_refused(name: str):
    with pytest.raises(CheckpointError, match=r"^The name .* can't be used"):
        entries.check_name(name)


@pytest.mark.parametrize("name", ["a", "sdxl", "my-model_v1.0", "x" * 63])
def test_a_name_that_the_store_can_keep_is_taken(store_home: Path, name: str):
    entries.check_name(name)
    assert _publish(f"{name}:abc").tag == f"{name}:abc"


# ---- Found, listed, removed -----------------------------------------------------------------


@pytest.mark.parametrize("tag", ["", "../x", "a/b", "a:b/c", "a:..", "A", "a:b:c"])
def test_a_tag_that_is_none_is_refused(store_home: Path, tag: str):
    with pytest.raises(ModelError, match="is no model tag"):
        entries.find(tag)


def test_a_version_is_not_completed(old: Path):
    with pytest.raises(ModelError, match=f"No model {OLD[:-2]} is in the store, which has {OLD};"):
        entries.find(OLD[:-2])


@pytest.mark.parametrize("content", [None, "{{{", "[]"])
def test_a_foreign_entry_that_cannot_be_read_hides_nothing(old: Path, content: str | None):
    foreign = old / "models" / "foreign" / "abc"
    foreign.mkdir(parents=True)
    if content is not None:
        (foreign / "model.yaml").write_text(content)
    assert [found.tag for found in entries.list_entries()] == [OLD]
    with pytest.raises(ModelError):
        entries.find("foreign:abc")


def test_an_entry_of_ours_that_cannot_be_read_is_listed(old: Path):
    (entries.find(OLD).path / "model.yaml").write_text("{{{")
    assert [found.tag for found in entries.list_entries()] == [OLD]
    with pytest.raises(ModelError, match="--force"):
        entries.find(OLD)


def test_latest_falls_back_when_it_is_removed(old: Path):
    _publish(NEW, "new")
    assert publication.remove(NEW) == NEW
    assert (entries.find("mine").tag, _content("mine:latest")) == (OLD, "old")
    assert _latest(old) == OLD.split(":")[1]  # BentoML wrote it


def test_latest_falls_back_to_the_newest_of_several(old: Path):
    _publish(THIRD, "third")
    _publish(NEW, "new")
    publication.remove("mine")
    assert _content("mine") == "third"


def test_latest_stays_when_an_older_one_is_removed(old: Path):
    _publish(NEW, "new")
    assert publication.remove(OLD) == OLD
    assert (entries.find("mine").tag, _latest(old)) == (NEW, NEW.split(":")[1])
    with pytest.raises(ModelError, match="No model mine:a"):
        entries.find(OLD)


def test_nothing_is_left_of_the_last_one(old: Path):
    assert publication.remove("mine") == OLD
    assert entries.list_entries() == []
    assert list((old / "models").iterdir()) == []
    with pytest.raises(ModelError, match="No model mine is in the store; import one with"):
        publication.remove("mine")


DAMAGES: dict[str, Callable[[Path], object]] = {
    "no manifest": lambda path: (path / "manifest.json").unlink(),
    "no model.yaml": lambda path: (path / "model.yaml").unlink(),
    "odd model.yaml": lambda path: (path / "model.yaml").write_text("{{{"),
    "empty model.yaml": lambda path: (path / "model.yaml").write_text(""),
    "no weights": lambda path: (path / "w.bin").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_entry_is_removed(old: Path, damage: Callable[[Path], object]):
    _publish(NEW, "new")
    damage(old / "models" / NEW.replace(":", "/"))
    assert publication.remove(NEW) == NEW
    assert not (old / "models" / NEW.replace(":", "/")).exists()
    assert _content("mine:latest") == "old"


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_entry_is_replaced(old: Path, damage: Callable[[Path], object]):
    damage(entries.find(OLD).path)
    _publish(OLD, "again")
    assert _content("mine:latest") == "again"


@pytest.mark.processes
@pytest.mark.parametrize("step", ["before rename", "after rename"])
def test_a_kill_in_a_removal_leaves_no_half(old: Path, step: str):
    _publish(NEW, "new")
    _killed(step, lambda: publication.remove(NEW))
    _check_all_whole()
    assert _content("mine:latest") == ("new" if step == "before rename" else "old")
    with publication.exclusive_import():
        pass
    assert [path.name for path in (old / "tmp").iterdir()] == ["lpw-sdxl-import.lock"]


def test_a_model_of_another_project_is_not_removed(store_home: Path):
    with bentoml.models.create("foreign:1", labels={"project": "another"}):
        pass
    with pytest.raises(ModelError):
        publication.remove("foreign:1")
    assert bentoml.models.get("foreign:1")


def test_a_removal_during_an_import_is_refused(old: Path):
    with publication.exclusive_import(), pytest.raises(CheckpointError, match="Another import"):
        publication.remove(OLD)

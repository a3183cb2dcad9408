"""Room on the disks: needs on one disk are added up, and the sentence names what and where."""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lpw_sdxl.errors import CheckpointError
from lpw_sdxl.store.space import Need, check_space, full_disk_named, gigabytes

GB = 10**9


@pytest.fixture
def other_disk(tmp_path: Path) -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(dir="/dev/shm"))
    if path.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("/dev/shm is on the disk of the temporary files")
    yield path
    shutil.rmtree(path)


@pytest.fixture
def ten_gb_free(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10 * GB))


def _download(folder: Path, size: int) -> Need:
    return Need("the download", folder, size, "LPW_SDXL_DOWNLOADS")


def _model(folder: Path, size: int) -> Need:
    return Need("the entry", folder, size, "BENTOML_HOME")


@pytest.mark.usefixtures("ten_gb_free")
def test_needs_on_one_disk_are_added_up(tmp_path: Path):
    check_space([_download(tmp_path, 6 * GB)])
    check_space([_model(tmp_path, 6 * GB)])
    with pytest.raises(CheckpointError) as refused:
        check_space([_download(tmp_path, 6 * GB), _model(tmp_path, 5 * GB)])
    assert str(refused.value) == (
        f"This import needs 6.00 GB for the download in {tmp_path} and 5.00 GB for the entry in "
        f"{tmp_path}, and 10.00 GB are free there; make room, or set LPW_SDXL_DOWNLOADS or "
        "BENTOML_HOME to a folder on a larger disk."
    )


@pytest.mark.usefixtures("ten_gb_free")
def test_needs_on_two_disks_are_not(tmp_path: Path, other_disk: Path):
    check_space([_download(tmp_path, 6 * GB), _model(other_disk, 6 * GB)])
    with pytest.raises(CheckpointError) as refused:
        check_space([_download(tmp_path, 6 * GB), _model(other_disk, 11 * GB)])
    assert str(refused.value) == (
        f"This import needs 11.00 GB for the entry in {other_disk}, and 10.00 GB are free there; "
        "make room, or set BENTOML_HOME to a folder on a larger disk."
    )


@pytest.mark.usefixtures("ten_gb_free")
def test_exactly_enough_is_enough(tmp_path: Path):
    check_space([_download(tmp_path, 4 * GB), _model(tmp_path, 6 * GB)])
    check_space([])
    with pytest.raises(CheckpointError):
        check_space([_download(tmp_path, 4 * GB), _model(tmp_path, 6 * GB + 1)])


def test_the_disk_itself_is_asked(tmp_path: Path):
    free = shutil.disk_usage(tmp_path).free
    check_space([_model(tmp_path, free // 2)])
    with pytest.raises(CheckpointError, match=r"GB are free there"):
        check_space([_model(tmp_path, 2 * free)])


@pytest.mark.parametrize(
    ("size", "text"),
    [(6_938_041_110, "6.94 GB"), (10_000_000, "0.01 GB"), (9_999_999, "10.00 MB"), (0, "0.00 MB")],
)
def test_sizes_are_written_for_a_reader(size: int, text: str):
    assert gigabytes(size) == text


@pytest.mark.parametrize(
    "failure",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        shutil.Error([("a", "b", "[Errno 28] No space left on device: 'b'")]),
    ],
    ids=["full", "quota", "full while a folder is copied"],
)
def test_a_disk_that_fills_all_the_same_is_one_sentence(tmp_path: Path, failure: OSError):
    with pytest.raises(CheckpointError) as refused, full_disk_named(tmp_path, "TMPDIR"):
        raise failure
    assert str(refused.value).startswith(f"The disk of {tmp_path} is full; ")
    assert "set TMPDIR to a folder" in str(refused.value)
    assert refused.value.__cause__ is failure


@pytest.mark.parametrize(
    "failure", [OSError(errno.EIO, "I/O"), shutil.Error([]), KeyboardInterrupt()], ids=repr
)
def test_another_failure_is_left_as_it_is(tmp_path: Path, failure: BaseException):
    with pytest.raises(type(failure)) as left, full_disk_named(tmp_path):
        raise failure
    assert left.value is failure

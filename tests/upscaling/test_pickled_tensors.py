"""A pickle gives its tensors and nothing else, and nothing in it is run."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import nn

from lpw_sdxl.errors import AddonError
from lpw_sdxl.upscaling.convert import load
from lpw_sdxl.upscaling.pickled_tensors import read_pickle_header, read_tensors
from lpw_sdxl.upscaling.pickles import is_pickle_file
from lpw_sdxl.upscaling.preflight import examine
from tests.forge.upscalers import CompactRecipe, EsrganRecipe

TENSORS = EsrganRecipe("first").tensors()


class Malice:
    """What would make a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> object:
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "4x.pth"


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "before 1.6"])
@pytest.mark.parametrize(
    "content",
    [
        TENSORS,
        OrderedDict(TENSORS),
        {name: nn.Parameter(tensor) for name, tensor in TENSORS.items()},
        {"params_ema": TENSORS, "params": CompactRecipe().tensors()},
        {"params": TENSORS, "iter": 5},
        {"state_dict": TENSORS, "epoch": 3, "note": "x"},
        {"state_dict": {"params": TENSORS}},
        TENSORS | {"step": 7},
    ],
)
def test_its_tensors_are_those_that_were_saved(path: Path, content: object, is_zip: bool):
    torch.save(content, path, _use_new_zipfile_serialization=is_zip)
    assert is_pickle_file(path)
    plan = examine(read_pickle_header(path))
    assert plan.header.file_size == path.stat().st_size
    right = EsrganRecipe("basic").tensors()
    loaded = load(plan, is_pickle=True)
    assert loaded.keys() == right.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in right.items())


def test_tensors_that_share_numbers_are_read_apart(path: Path):
    both = torch.stack([TENSORS["model.6.weight"], TENSORS["model.3.weight"]])
    torch.save(TENSORS | {"model.6.weight": both[0], "model.3.weight": both[1]}, path)
    loaded = load(examine(read_pickle_header(path)), is_pickle=True)
    assert torch.equal(loaded["conv_up2.weight"], TENSORS["model.6.weight"])


@pytest.mark.parametrize("is_zip", [True, False])
def test_code_is_not_run(path: Path, tmp_path: Path, is_zip: bool):
    mark = tmp_path / "was here"
    content = {"params": TENSORS, "x": Malice(mark)}
    torch.save(content, path, _use_new_zipfile_serialization=is_zip)
    with pytest.raises(AddonError) as raised:
        read_tensors(path)
    assert str(raised.value) == (
        "4x.pth is a pickle that holds more than tensors, or is damaged, and nothing of a pickle "
        "is run; its .safetensors version would be right."
    )
    assert not mark.exists()
    with path.open("wb") as file:
        pickle.dump(Malice(mark), file)
    with pytest.raises(AddonError, match=r"4x\.pth is no file that torch can read"):
        read_tensors(path)
    assert not mark.exists()


@pytest.mark.parametrize(
    "content", [None, 5, "text", [torch.ones(3)], {}, {"params": {}}, {1: torch.ones(1)}]
)
def test_a_pickle_without_named_tensors_is_refused(path: Path, content: object):
    torch.save(content, path)
    with pytest.raises(AddonError, match=r"4x.pth is a pickle without tensors; its .safetensors"):
        read_tensors(path)


def test_a_model_of_a_class_is_refused(path: Path):
    torch.save(nn.Conv2d(3, 3, 3), path)
    with pytest.raises(AddonError, match="holds more than tensors"):
        read_tensors(path)


@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
@pytest.mark.parametrize("is_zip", [True, False])
def test_what_is_cut_off_is_refused(path: Path, share: float, is_zip: bool):
    torch.save(TENSORS, path, _use_new_zipfile_serialization=is_zip)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(AddonError, match=r"4x\.pth is "):
        read_tensors(path)


def test_views_that_pass_for_huge_tensors_are_refused(path: Path):
    torch.save({"conv_first.weight": torch.zeros(1).expand(1 << 40)}, path)
    with pytest.raises(AddonError, match="has tensors that are larger than the file"):
        read_pickle_header(path)


def test_an_archive_that_unpacks_to_too_much_is_not_unpacked(
    path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("lpw_sdxl.upscaling.pickled_tensors.MAX_PICKLE_BYTES", 100_000)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"x")
        archive.writestr("archive/data/0", bytes(100_000))
    assert path.stat().st_size < 1000
    with pytest.raises(AddonError, match="is a pickle of over 100,000 bytes"):
        read_tensors(path)


def test_a_dtype_of_no_network_is_named(path: Path):
    torch.save({"conv_first.weight": torch.ones(3, dtype=torch.complex64)}, path)
    with pytest.raises(AddonError, match=r"conv_first\.weight has the dtype torch\.complex64"):
        read_pickle_header(path)


@pytest.mark.parametrize("content", [b"", b"PK", b"\x80\x02", b"{}", b"GGUF" * 8])
def test_only_what_begins_as_torchs_files_do_is_a_pickle(path: Path, content: bytes):
    path.write_bytes(content)
    assert is_pickle_file(path) == content.startswith(b"\x80")

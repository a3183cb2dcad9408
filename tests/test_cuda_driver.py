"""Why a GPU can't be used, by what NVIDIA's driver and torch's own file say."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import pytest
import torch

from lpw_sdxl import cuda_driver
from lpw_sdxl.cuda_driver import (
    LIBRARY,
    Driver,
    TorchBuild,
    find_cuda_obstacle,
    find_gpu_obstacle,
    predict_cuda,
    read_driver,
    read_torch_build,
    refuse_silent_cpu,
)
from lpw_sdxl.errors import SettingsError

CUDA_13 = TorchBuild("2.13.0+cu130", (13, 0))


class Library:
    """The driver's library, answering as the driver API is documented."""

    def __init__(self, cuda: int, devices: int, failure: int = 0) -> None:
        self._cuda, self._devices, self._failure = cuda, devices, failure

    def cuInit(self, flags: int) -> int:
        assert flags == 0
        return self._failure

    def cuDriverGetVersion(self, number: Any) -> int:
        number._obj.value = self._cuda
        return 0

    def cuDeviceGetCount(self, number: Any) -> int:
        assert not self._failure
        number._obj.value = self._devices
        return 0


def test_the_driver_is_asked(tmp_path: Path) -> None:
    file = tmp_path / "version"
    file.write_text("580.159.04\n")
    names: list[str] = []

    def load(name: str) -> Library:
        names.append(name)
        return Library(13000, 2)

    assert read_driver(load, file) == Driver((13, 0), 2, "580.159.04")
    assert names == [LIBRARY]
    assert read_driver(lambda _: Library(12040, 0, 100), tmp_path / "none") == Driver(
        (12, 4), 0, None, 100
    )


def test_a_machine_without_a_driver_has_none(tmp_path: Path) -> None:
    def load(_: str) -> object:
        raise OSError("libcuda.so.1: cannot open shared object file")

    assert read_driver(load, tmp_path) is None
    if not torch.cuda.is_available():
        assert read_driver() is None or read_driver(ctypes.CDLL) is not None


def test_the_installed_torch_is_read_without_importing_it() -> None:
    build = read_torch_build()
    assert build.version == torch.__version__
    expected = torch.version.cuda
    assert build.cuda == (expected and tuple(map(int, expected.split("."))))


@pytest.mark.parametrize(
    ("text", "build"),
    [
        ("__version__ = '2.13.0+cu130'\ncuda: Optional[str] = '13.0'\n", CUDA_13),
        ("__version__ = '2.4.1'\ncuda = '12.4'\n", TorchBuild("2.4.1", (12, 4))),
        (
            "__version__ = '2.13.0+cpu'\ncuda: Optional[str] = None\n",
            TorchBuild("2.13.0+cpu", None),
        ),
        ("", TorchBuild("of an unknown version", None)),
    ],
)
def test_torchs_file_of_its_version(tmp_path: Path, text: str, build: TorchBuild) -> None:
    (tmp_path / "version.py").write_text(text)
    assert read_torch_build(tmp_path / "version.py") == build


@pytest.mark.parametrize(
    ("driver", "build", "visible", "expected"),
    [
        (Driver((13, 0), 1, "580.159.04"), CUDA_13, None, None),
        (Driver((13, 2), 8), TorchBuild("2.6.0", (12, 4)), None, None),
        (Driver((12, 2), 1), TorchBuild("2.6.0", (12, 4)), None, None),
        (
            Driver((13, 0), 1),
            TorchBuild("2.13.0+cpu", None),
            None,
            "the installed torch (2.13.0+cpu) was built without CUDA",
        ),
        (None, CUDA_13, None, "this machine shows no NVIDIA driver (a container needs `--gpus`"),
        (
            Driver((12, 4), 1, "550.54.15"),
            CUDA_13,
            None,
            "the NVIDIA driver 550.54.15 serves CUDA 12.4 and is too old for the installed torch"
            " (2.13.0+cu130), whose CUDA 13.0 needs driver 580 or newer",
        ),
        (Driver((12, 4), 1), CUDA_13, None, "the NVIDIA driver serves CUDA 12.4 and is too old"),
        (Driver((13, 0), 0), CUDA_13, None, "the NVIDIA driver shows no GPU"),
        (
            Driver((13, 0), 0),
            CUDA_13,
            "",
            "the NVIDIA driver shows no GPU (CUDA_VISIBLE_DEVICES is '')",
        ),
        (
            Driver((13, 0), 0, failure=100),
            CUDA_13,
            None,
            "the NVIDIA driver, whose cuInit answers 100, shows no GPU",
        ),
    ],
)
def test_the_reason_is_a_part_of_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
    driver: Driver | None,
    build: TorchBuild,
    visible: str | None,
    expected: str | None,
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    obstacle = find_cuda_obstacle(driver, build)
    if expected is None:
        assert obstacle is None
    else:
        assert obstacle is not None
        assert obstacle.startswith(expected)


OBSTACLES = {
    "no driver": (None, CUDA_13),
    "no device": (Driver((13, 0), 0), CUDA_13),
    "a driver that is too old": (Driver((12, 4), 1, "550.54.15"), CUDA_13),
    "a torch without CUDA": (None, TorchBuild("2.13.0+cpu", None)),
}


@pytest.mark.parametrize("machine", OBSTACLES.values(), ids=OBSTACLES.keys())
def test_a_real_model_without_cuda_is_refused_in_one_sentence(
    machine: tuple[Driver | None, TorchBuild],
) -> None:
    obstacle = find_cuda_obstacle(*machine)
    assert obstacle is not None
    for wanted, size, right in (
        ("auto", 7 * 10**9, "LPW_SDXL_DEVICE=cpu serves on it anyway"),
        ("cuda", 7 * 10**9, "auto or cpu would be right"),
        ("cuda", 10**6, "auto or cpu would be right"),
    ):
        with pytest.raises(SettingsError) as refused:
            refuse_silent_cpu(wanted, size, obstacle)
        sentence = str(refused.value)
        assert obstacle in sentence
        assert right in sentence
        assert ". " not in sentence
        assert "\n" not in sentence


@pytest.mark.parametrize(
    ("wanted", "size", "obstacle"),
    [
        ("auto", 10**6, "this machine shows no NVIDIA driver"),
        ("auto", 10**9, "this machine shows no NVIDIA driver"),
        ("cpu", 7 * 10**9, "this machine shows no NVIDIA driver"),
        ("auto", 7 * 10**9, None),
        ("cuda", 7 * 10**9, None),
    ],
    ids=["the demo", "at the limit", "the CPU is wanted", "a GPU", "a GPU that is wanted"],
)
def test_what_is_small_wanted_or_has_a_gpu_is_served(
    wanted: str, size: int, obstacle: str | None
) -> None:
    refuse_silent_cpu(wanted, size, obstacle)


@pytest.mark.parametrize(
    ("capability", "built_for", "needed"),
    [
        ((9, 0), ["sm_75", "sm_80", "sm_90", "sm_120"], None),
        ((8, 9), ["sm_75", "sm_80", "sm_86", "sm_90a"], None),
        ((12, 0), ["sm_80", "compute_90"], None),
        ((6, 1), ["sm_75", "sm_80"], "7.5"),
        ((7, 0), ["sm_75", "compute_120"], "7.5"),
        ((9, 0), ["sm_100"], "10.0"),
        ((6, 1), [], None),
    ],
)
def test_a_gpu_older_than_all_that_torch_is_built_for_is_named(
    capability: tuple[int, int], built_for: list[str], needed: str | None
) -> None:
    told = find_gpu_obstacle(capability, built_for, "NVIDIA X")
    if needed is None:
        assert told is None
    else:
        own = ".".join(map(str, capability))
        assert told is not None
        assert f"NVIDIA X has compute capability {own}, and the installed torch" in told
        assert f"is built for {needed} or newer" in told


def test_each_worker_needs_a_device_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_driver, "read_driver", lambda: Driver((13, 0), 2))
    monkeypatch.setattr(cuda_driver, "read_torch_build", lambda: CUDA_13)
    assert predict_cuda("auto", 2, 10**10)
    assert not predict_cuda("cpu", 8, 10**10)
    with pytest.raises(SettingsError, match=r"LPW_SDXL_WORKERS is 3.*at most 2 would be right"):
        predict_cuda("auto", 3, 10**10)


def test_without_a_driver_only_a_small_model_is_expected_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cuda_driver, "read_driver", lambda: None)
    monkeypatch.setattr(cuda_driver, "read_torch_build", lambda: CUDA_13)
    assert not predict_cuda("auto", 3, 10**7)
    with pytest.raises(SettingsError, match="no NVIDIA driver"):
        predict_cuda("auto", 1, 10**10)
    with pytest.raises(SettingsError, match="LPW_SDXL_DEVICE is cuda"):
        predict_cuda("cuda", 1, 10**7)

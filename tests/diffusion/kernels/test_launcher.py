"""The built launcher of Triton, with a driver that has names only and without a compiler.

`make test-kernels` installs Triton, and runs this.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.kernels, pytest.mark.processes]
LOAD = """
import sys
from pathlib import Path
from lpw_sdxl.diffusion.kernels.launcher import offer_launcher
for folder in sys.argv[1:]:
    offer_launcher(Path(folder))
from triton.backends.nvidia.driver import CudaUtils
print(CudaUtils().launch.__name__)
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The launcher, built as the Dockerfile does."""
    from lpw_sdxl.diffusion.kernels import launcher

    folder = tmp_path_factory.mktemp("launcher") / "folder"
    done = subprocess.run(
        [sys.executable, launcher.__file__, folder], capture_output=True, text=True, check=True
    )
    return Path(done.stdout.strip())


@pytest.fixture(scope="module")
def driver(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a driver of CUDA whose functions do nothing."""
    folder = tmp_path_factory.mktemp("driver")
    shown = subprocess.run(
        ["nm", "-D", "--undefined-only", built], capture_output=True, text=True, check=True
    )
    names = [word for word in shown.stdout.split() if word.startswith("cu")]
    assert names
    source = folder / "driver.c"
    source.write_text("".join(f"int {name}(void) {{ return 0; }}\n" for name in names))
    library = folder / "libcuda.so.1"
    options = ["-shared", "-Wl,-soname,libcuda.so.1", "-o", library]
    subprocess.run(["gcc", *options, source], check=True)
    return folder


def load(driver: Path, cache: Path, *folders: Path) -> subprocess.CompletedProcess[str]:
    """Let Triton load its launcher where PATH has no compiler."""
    environment = {
        "PATH": "",
        "PYTHONPATH": os.environ["PYTHONPATH"],
        "LD_LIBRARY_PATH": str(driver),
        "TRITON_LIBCUDA_PATH": str(driver),
        "TRITON_CACHE_DIR": str(cache),
    }
    return subprocess.run(
        [sys.executable, "-c", LOAD, *folders],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_built_launcher_is_loaded_without_a_compiler(
    built: Path, driver: Path, tmp_path: Path
) -> None:
    done = load(driver, tmp_path, built.parent)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "launch\n"


def test_without_it_triton_asks_for_a_compiler(driver: Path, tmp_path: Path) -> None:
    done = load(driver, tmp_path)
    assert "Failed to find C compiler" in done.stderr


def test_one_of_another_triton_is_not_taken(built: Path, driver: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / built.name.replace("-", "-0")).write_bytes(built.read_bytes())
    done = load(driver, tmp_path, other)
    assert f"there is no C compiler, and no {built.name} in {other}" in done.stderr

"""Triton's launcher, built before it is needed, for machines without a C compiler.

Triton starts its kernels by a module in C, `cuda_utils`, which it compiles when it is first used.
Here it is compiled while an image is built, and found where the kernels are used. Kernels
themselves need no C compiler: Triton brings what they are compiled with.

Triton's own cache of compiled modules does not do: its key has the result of the program `file`,
so that a module from one stage of an image may not be found in the next.

    python src/lpw_sdxl/diffusion/kernels/launcher.py FOLDER

needs Triton, a C compiler and Python's headers, and neither a GPU nor its driver.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

FOLDER = Path(sys.prefix) / "lib" / "lpw-sdxl"
"""Where built launchers are looked for: in the environment whose Triton they were built for."""
MODULE = "cuda_utils"
DRIVER = "libcuda.so.1"
COMPILERS = ("gcc", "clang")
"""Those that Triton takes, unless the variable `CC` names one."""


def build_launcher(folder: Path) -> Path:
    """Compile the launcher of the installed Triton into a folder, and return the file.

    Raises:
        ImportError: Triton is not installed.
        RuntimeError: there is no C compiler.
        subprocess.CalledProcessError: it failed; its message is on standard error.
    """
    from triton.backends import nvidia  # noqa: PLC0415
    from triton.runtime.build import _build  # noqa: PLC0415

    [backend] = map(Path, nvidia.__path__)
    source = backend / "driver.c"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        # Linking asks for the driver by name only; what it has is looked for when it is loaded.
        compiler = os.environ.get("CC") or next(filter(shutil.which, COMPILERS), None)
        if compiler is None:
            raise RuntimeError(f"a C compiler is needed: {' or '.join(COMPILERS)}, or CC names one")
        subprocess.run(  # noqa: S603 - the user's own compiler
            [compiler, "-shared", f"-Wl,-soname,{DRIVER}", "-o", f"{work}/{DRIVER}", "-x", "c",
             os.devnull],
            check=True,
        )  # fmt: skip
        # Some linkers leave out a library whose functions nothing has asked for by then.
        flags = ["-Wl,--no-as-needed", f"-l:{DRIVER}"]
        built = _build(MODULE, str(source), work, [work], [str(backend / "include")], [], flags)
        target = folder / _file_name(source)
        shutil.copyfile(built, target)
    return target


def offer_launcher(folder: Path = FOLDER) -> None:
    """Offer Triton a built launcher from a folder, where it could not compile one."""
    if os.environ.get("CC") or any(map(shutil.which, COMPILERS)):
        return
    from triton import knobs  # noqa: PLC0415

    knobs.build.impl = partial(_take_built, folder)


def _take_built(folder: Path, _name: str, source: str, *_: object) -> str:
    """Return the file that was built from this source, in the place of Triton's compiling it.

    Raises:
        RuntimeError: there is none.
    """
    file = folder / _file_name(Path(source))
    if not file.exists():
        raise RuntimeError(f"there is no C compiler, and no {file.name} in {folder}")
    return str(file)


def _file_name(source: Path) -> str:
    """Return the name of the file that is built from a source, for this Python."""
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    return f"{MODULE}-{digest[:16]}.{sys.implementation.cache_tag}.so"


if __name__ == "__main__":
    if importlib.util.find_spec("triton") is None:
        sys.exit("Triton is not installed here. torch's builds for CUDA bring it.")
    print(build_launcher(Path(sys.argv[1])))  # noqa: T201

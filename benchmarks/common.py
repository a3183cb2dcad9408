"""Parts that the benchmarks share: the demo model, a result's surroundings, its file.

Torch is imported only where a device is asked, so that a load's own process stays light. Whatever
imports this finds the repository's own packages.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

HERE = Path(__file__).parent
ROOT = HERE.parent
# A script's path has its own folder only; `demo` and `tests.forge` are beside that.
sys.path.insert(1, str(ROOT))


def demo_model(home: Path) -> Path:
    """Import the demo model into a store of its own; yield its model directory."""
    environment = os.environ | {"BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "True"}
    done = subprocess.run(
        [sys.executable, "model_import.py", "demo"],
        cwd=ROOT,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    return home / "models" / Path(*done.stdout.split()[-1].split(":"))


def surroundings(device: torch.device) -> dict[str, str]:
    """Describe hardware, versions and commit of a measurement."""
    import torch  # noqa: PLC0415 - see the module's docstring

    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=HERE,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    is_cuda = device.type == "cuda"
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit,
        "hardware": torch.cuda.get_device_name(device)
        if is_cuda
        else f"{os.cpu_count()} CPU cores",
        "threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "diffusers": importlib.metadata.version("diffusers"),
    }


def service_surroundings(device: str, threads: int) -> dict[str, str]:
    """Describe the surroundings of a measured service, which is a process of its own.

    Args:
        device: as its `/info` reports it.
        threads: its OMP_NUM_THREADS.
    """
    import torch  # noqa: PLC0415 - see the module's docstring

    versions = {"bentoml": importlib.metadata.version("bentoml"), "threads": str(threads)}
    return surroundings(torch.device(device)) | versions


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that at least so many percent do not exceed; NaN for no values."""
    if not values:
        return math.nan
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def write_result(name: str, result: Mapping[str, object], *, keep: bool = True) -> None:
    """Print a result and write it to `results/NAME.json`."""
    text = json.dumps(result, indent=2)
    print(text)
    if not keep:
        return
    file = HERE / "results" / f"{name}.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"{text}\n", encoding="utf-8")

"""What does a checkpoint of SDXL's true size cost to import, beside the usual tools, and to serve?

Writes a random checkpoint (2,514 tensors, 6.94 GB in fp16). In every round, one after the other and
each as a process of its own with the network off: (a) `sha256sum` of it, (b) Diffusers' own
`from_single_file` and `save_pretrained`, (c) `model_import.py checkpoint`. Medians are kept, the
trial step of (c) apart. Then the entry is verified, imported again, and served by a real `bentoml
serve`, as is the demo model: their difference is what the size costs beyond the imports.

Needs 30 GB of disk in --folder and takes ten minutes; everything is removed at the end.

    python benchmarks/full_size.py [--rounds 3] [--folder DIRECTORY]
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from common import ROOT, surroundings, write_result

from tests.forge.checkpoint import SyntheticSize, write_checkpoint

READY_S = 300
DIFFUSERS = """
import sys
import torch
from diffusers import StableDiffusionXLPipeline
pipeline = StableDiffusionXLPipeline.from_single_file(
    sys.argv[1], config=sys.argv[2], local_files_only=True, dtype=torch.float16
)
pipeline.save_pretrained(sys.argv[3])
"""


@dataclass(frozen=True)
class Run:
    """One command: seconds, peak private memory and disk in GB, lines with their seconds."""

    seconds: float
    private_gb: float
    disk_gb: float
    lines: list[tuple[float, str]]

    @property
    def trial_seconds(self) -> float:
        """Return how long the import's trial step took."""
        begun, done = (
            next(at for at, line in self.lines if line == f"trying one step: {word}")
            for word in ("begun", "done")
        )
        return done - begun


def private_bytes(root: int) -> int:
    """Add up the memory of a process and its descendants, without mapped files."""
    return sum(
        int(status(process).get("RssAnon", "0 kB").split()[0]) * 1024 for process in family(root)
    )


def family(root: int) -> list[int]:
    """List a process and its descendants."""
    parents = {
        int(path.name): int(status(int(path.name)).get("PPid", "0"))
        for path in Path("/proc").iterdir()
        if path.name.isdigit()
    }
    members = [root]
    for member in members:
        members += [process for process, parent in parents.items() if parent == member]
    return members


def status(process: int) -> dict[str, str]:
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def disk_bytes(folder: Path) -> int:
    """Measure a folder's size on the disk."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            total += path.lstat().st_blocks * 512
    return total


def run(command: list[str], folder: Path, environment: dict[str, str]) -> Run:
    """Run a command to its end without network, and measure it."""
    offline = ["unshare", "--net"] if os.geteuid() == 0 else []
    started, private, disk = time.perf_counter(), 0, 0
    lines: list[tuple[float, str]] = []
    with subprocess.Popen(
        [*offline, *command],
        env=environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        output = process.stdout

        def read() -> None:
            lines.extend((time.perf_counter() - started, line.strip()) for line in output)

        reader = threading.Thread(target=read)
        reader.start()
        while process.poll() is None:
            private = max(private, private_bytes(process.pid))
            disk = max(disk, disk_bytes(folder))
            time.sleep(0.1)
        seconds = time.perf_counter() - started
        reader.join()
    if process.returncode:
        sys.exit(f"{command} ended with {process.returncode}")
    return Run(seconds, private / 1e9, disk / 1e9, lines)


def serve(environment: dict[str, str], tag: str) -> tuple[float, float]:
    """Measure the seconds until a real service is ready, and its private memory then, GB."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "bentoml", "serve", "service:LpwSdxl", "--port", str(port)]
    started = time.perf_counter()
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment | {"LPW_SDXL_MODEL": tag, "LPW_SDXL_DEVICE": "cpu"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            while not is_ready(port):
                if process.poll() is not None or time.perf_counter() - started > READY_S:
                    sys.exit(f"the service of {tag} did not become ready")
                time.sleep(0.05)
            return time.perf_counter() - started, private_bytes(process.pid) / 1e9
        finally:
            os.killpg(process.pid, signal.SIGTERM)


def is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def median(values: list[float]) -> float:
    return round(statistics.median(values), 2)


def medians_of(runs: list[Run], seconds: Callable[[Run], float]) -> dict[str, object]:
    values = [seconds(run) for run in runs]
    return {
        "seconds": median(values),
        "all": [round(value, 1) for value in values],
        "peak_private_gb": median([run.private_gb for run in runs]),
        "peak_disk_gb": median([run.disk_gb for run in runs]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="lpw-sdxl-full-", dir=arguments.folder))
    try:
        result = measure(folder, arguments.rounds)
    finally:
        shutil.rmtree(folder)
    write_result("full_size", result)


def measure(folder: Path, rounds: int) -> dict[str, object]:
    checkpoint, home, saved = folder / "full.safetensors", folder / "home", folder / "saved"
    print("writing 6.94 GB of random checkpoint ...", flush=True)
    write_checkpoint(checkpoint, SyntheticSize.FULL)
    environment = os.environ | {
        "BENTOML_HOME": str(home),
        "BENTOML_DO_NOT_TRACK": "True",
        "HF_HUB_OFFLINE": "1",
    }
    script = [sys.executable, "model_import.py"]
    imported = [*script, "checkpoint", str(checkpoint)]
    print("importing the demo model, and once to warm up ...", flush=True)
    demo = run([*script, "demo"], home, environment).lines[-1][1]
    tag = run(imported, home, environment).lines[-1][1]
    directory = home / "models" / Path(*tag.split(":"))
    config = folder / "config"
    shutil.copytree(directory, config, ignore=shutil.ignore_patterns("*.safetensors"))
    entry_gb = disk_bytes(directory) / 1e9
    hashes, diffusers, ours = [], [], []
    for number in range(rounds):
        print(f"round {number + 1} of {rounds} ...", flush=True)
        run([*script, "remove", tag], home, environment)
        hashes.append(run(["sha256sum", str(checkpoint)], home, environment))
        single_file = [sys.executable, "-c", DIFFUSERS, str(checkpoint), str(config), str(saved)]
        diffusers.append(run(single_file, saved, environment))
        shutil.rmtree(saved)
        ours.append(run(imported, home, environment))
    print("verifying, importing again, serving ...", flush=True)
    verify = run([*script, "verify", tag], home, environment)
    again = run(imported, home, environment)
    demo_starts, full_starts = [], []
    for _ in range(rounds):
        demo_starts.append(serve(environment, demo))
        full_starts.append(serve(environment, tag))
    beyond = [f[0] - d[0] for f, d in zip(full_starts, demo_starts, strict=True)]
    ratios = [
        (our.seconds - our.trial_seconds) / (sha.seconds + theirs.seconds)
        for our, sha, theirs in zip(ours, hashes, diffusers, strict=True)
    ]
    return surroundings(torch.device("cpu")) | {
        "checkpoint_gb": round(checkpoint.stat().st_size / 1e9, 2),
        "entry_gb": round(entry_gb, 2),
        "rounds": rounds,
        "sha256sum": medians_of(hashes, lambda run: run.seconds),
        "diffusers_from_single_file_save_pretrained": medians_of(
            diffusers, lambda run: run.seconds
        ),
        "import_without_trial_step": medians_of(ours, lambda run: run.seconds - run.trial_seconds),
        "import_over_diffusers_and_sha256sum": median(ratios),
        "trial_step_seconds": median([run.trial_seconds for run in ours]),
        "verify": medians_of([verify], lambda run: run.seconds),
        "import_again_seconds": round(again.seconds, 2),
        "service_ready_seconds_demo": median([start[0] for start in demo_starts]),
        "service_ready_seconds_full": median([start[0] for start in full_starts]),
        "service_ready_seconds_beyond_demo": median(beyond),
        "service_private_gb_demo": median([start[1] for start in demo_starts]),
        "service_private_gb_full": median([start[1] for start in full_starts]),
    }


if __name__ == "__main__":
    main()

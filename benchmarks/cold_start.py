"""How long from the command to the first picture, and where does the time go?

Starts the service again and again, as a plain process or as a container of an image, and reads the
times of its own log lines (LPW_SDXL_LOG_FORMAT=json). `--drop-caches` empties the kernel's cache of
files before each start, as on a machine that never ran it; needs root.

    python benchmarks/cold_start.py [--rounds 5] [--image IMAGE] [--drop-caches] [--quick]
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from uuid import uuid4

import httpx
from common import ROOT, demo_model, service_surroundings, write_result
from services import OtherWork

READY_S = 300
REQUEST = {"prompt": "a lighthouse", "num_inference_steps": 3, "seed": 1}
# The stages of a start, in their order, by words of the log line that ends each.
MARKS = {
    "supervisor: Python, BentoML, model found": " found: ",
    "worker: Python, BentoML, border; the port is open": " initialized",
    "worker: torch, Diffusers, Transformers imported": "packages imported in",
    "worker: model loaded, memory planned": "model loaded in",
    "worker: the rest of the verification": "after the port was open",
}
CONTAINER = [
    "podman", "--runtime", "runc", "run", "--rm", "--network", "host", "--read-only",
    "--tmpfs", "/tmp", "--env", "BENTOML_HOME=/tmp/bentoml",
    "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4000:4000",
]  # fmt: skip


@contextmanager
def started(
    command: list[str], environment: dict[str, str], log: Path, folder: Path = ROOT
) -> Iterator[int]:
    """Run a command until the block ends; yield its process id."""
    with log.open("w") as file:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=file, stderr=subprocess.STDOUT
        )
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait(60)


def once(make: Callable[[int, str], list[str]], environment: dict[str, str]) -> dict[str, float]:
    """Start, make two pictures, stop; return the seconds that each part took."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory(prefix="lpw-sdxl-cold-") as folder:
        log = Path(folder) / "log"
        begin = time.time()
        with started(make(port, folder), environment | {"LPW_SDXL_LOG_FORMAT": "json"}, log):
            wait_until_ready(url, log)
            ready = time.time()
            first = picture(url)
            second = picture(url)
        parts = parts_of(log.read_text(encoding="utf-8"), begin)
    parts["until /readyz says so"] = ready - begin - sum(parts.values())
    return parts | {
        "first picture": first,
        "all until the first picture": ready - begin + first,
        "a second picture, for comparison": second,
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def parts_of(log: str, begin: float) -> dict[str, float]:
    """Compute the seconds between the marks."""
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    supervisor = lines[0]["process"]
    parts: dict[str, float] = {}
    before = begin
    for name, words in MARKS.items():
        is_supervisors = name.startswith("supervisor")
        at = next(
            datetime.fromisoformat(line["time"]).timestamp()
            for line in lines
            if words in line["message"] and (line["process"] == supervisor) == is_supervisors
        )
        parts[name] = at - before
        before = at
    return parts


def wait_until_ready(url: str, log: Path) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        with suppress(httpx.TransportError):
            if httpx.get(f"{url}/readyz", timeout=READY_S).status_code == 200:
                return
        time.sleep(0.02)
    sys.exit(f"not ready in {READY_S} s:\n{log.read_text(encoding='utf-8')}")


def picture(url: str) -> float:
    begin = time.monotonic()
    httpx.post(f"{url}/generate", json=REQUEST, timeout=300).raise_for_status()
    return time.monotonic() - begin


def drop_caches() -> None:
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")


def plain(home: Path) -> Callable[[int, str], list[str]]:
    """Return a function that builds a process's command, with a store like that of `home`."""

    def make(port: int, folder: str) -> list[str]:
        (Path(folder) / "models").symlink_to(home / "models")
        serve = [sys.executable, "-m", "bentoml", "serve", "service:LpwSdxl"]
        return ["env", f"BENTOML_HOME={folder}", *serve, "--host", "127.0.0.1", "--port", str(port)]

    return make


def container(image: str) -> Callable[[int, str], list[str]]:
    """Return a function that builds the command of a container, which ends with its client."""

    def make(port: int, folder: str) -> list[str]:
        del folder
        name = f"lpw-sdxl-cold-{uuid4().hex[:8]}"
        variables = ["--env", "LPW_SDXL_LOG_FORMAT", "--env", "OMP_NUM_THREADS"]
        serve = ["serve", "--host", "127.0.0.1", "--port", str(port)]
        return [*CONTAINER, "--name", name, *variables, image, *serve]

    return make


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--image", help="of podman's; a plain process by default")
    parser.add_argument("--drop-caches", action="store_true", help="before each start")
    parser.add_argument("--threads", type=int, default=1, help="OMP_NUM_THREADS of the service")
    parser.add_argument("--quick", action="store_true", help="one round; no result is kept")
    options = parser.parse_args()
    rounds = 1 if options.quick else options.rounds
    environment = os.environ | {
        "BENTOML_DO_NOT_TRACK": "True",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": str(options.threads),
    }
    with tempfile.TemporaryDirectory(prefix="lpw-sdxl-demo-") as home:
        demo_model(Path(home))
        make = container(options.image) if options.image else plain(Path(home))
        results = []
        others = OtherWork()
        for _ in range(rounds):
            if options.drop_caches:
                drop_caches()
            results.append(once(make, environment))
    medians = {
        name: round(statistics.median(result[name] for result in results), 2) for name in results[0]
    }
    kind = "container" if options.image else "process"
    cache = "empty" if options.drop_caches else "warm"
    about = service_surroundings("cpu", options.threads)
    result = {"what": kind, "file_cache": cache, "rounds": rounds, "median_seconds": medians}
    if not options.image:
        result["others_share_of_cores"] = others.share()  # a container is not a child process
    write_result(f"cold_start_{kind}_{cache}", about | result, keep=not options.quick)


if __name__ == "__main__":
    main()

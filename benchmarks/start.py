"""What does a start cost, from the command until /readyz answers 200, here and in another checkout?

Starts the service of each checkout in turn, in rounds, on the demo model, on a random one of SDXL's
size or half its widths, or on any model directory; and imports service.py alone, which the
supervisor, every worker and `bentoml build` do. The parts of a start are read from the log. CPU
seconds are those of the command and all its processes: on a shared machine they vary less than the
clock. Both checkouts run in this Python's environment, each on a manifest that it can read;
`--drop-caches` (root) empties the kernel's cache of files before each start. `cold_start.py` has
containers and the first picture.

    python benchmarks/start.py [--against PATH] [--model demo|half|full|DIRECTORY] [--rounds 5]
        [--threads 1] [--drop-caches] [--folder DIRECTORY] [--quick]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import httpx
import psutil
from cold_start import READY_S, drop_caches, free_port, plain, started
from common import ROOT, demo_model, service_surroundings, write_result
from full_size import private_bytes
from services import OtherWork, cpu_seconds

from tests.forge.checkpoint import SyntheticSize, write_checkpoint

SIZES = {"half": SyntheticSize.HALF, "full": SyntheticSize.FULL}
LOADED = re.compile(r"model loaded in ([\d.]+) s")
READY = ("Service lpw_sdxl initialized", "after the port was open")
# In the supervisor, before a worker starts, up to f64966e; later beside the loading.
VERIFIED_FIRST = re.compile(r"found and verified: \d+ files in ([\d.]+) s")


@dataclass(frozen=True)
class Side:
    """A checkout, with a store of models whose manifests it reads."""

    checkout: Path
    home: Path


def once(side: Side, tag: str, threads: int, *, drops_caches: bool) -> dict[str, float]:
    """Start a checkout's service and import it; return the seconds that each took."""
    environment = os.environ | {
        "BENTOML_DO_NOT_TRACK": "True",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": str(threads),
        "PYTHONPATH": str(side.checkout / "src"),  # before the package installed here
        "LPW_SDXL_MODEL": tag,
        "LPW_SDXL_DEVICE": "cpu",
        "LPW_SDXL_LOG_FORMAT": "json",
    }
    if drops_caches:
        drop_caches()
    return start(side, environment) | import_service(side, environment)


def start(side: Side, environment: dict[str, str]) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="lpw-sdxl-start-") as folder:
        log = Path(folder) / "log"
        port = free_port()
        command = plain(side.home)(port, folder)
        begin = time.time()
        with started(command, environment, log, side.checkout) as pid:
            answered = wait_for(f"http://127.0.0.1:{port}/livez", log, range(200, 600))
            wait_for(f"http://127.0.0.1:{port}/readyz", log, [200])
            supervisor = psutil.Process(pid)
            own = supervisor.cpu_times()
            everyone = cpu_seconds(supervisor)
            private = private_bytes(pid)
        loading, ready, verifying = parts_of(log)
    return {
        "command to first answer": answered - begin,
        "command to ready": ready - begin,
        "packages imported to ready": ready - loading,
        "verified before any worker": verifying,
        "verified before, and packages imported to ready": verifying + ready - loading,
        "command to ready, CPU": everyone,
        "of that the supervisor, CPU": own.user + own.system,
        "private memory, GB": private / 1e9,
    }


def wait_for(url: str, log: Path, statuses: Iterable[int]) -> float:
    """Wait for an answer with one of these statuses; return when it came."""
    deadline = time.time() + READY_S
    while time.time() < deadline:
        try:
            if httpx.get(url, timeout=READY_S).status_code in statuses:
                return time.time()
        except httpx.TransportError:
            pass
        time.sleep(0.2)  # each answer takes time that the loading lacks
    sys.exit(f"no such answer of {url} in {READY_S} s:\n{log.read_text(encoding='utf-8')}")


def parts_of(log: Path) -> tuple[float, float, float]:
    """Read from a log when a worker began to load and was ready, and the verification before it."""
    loading = ready = verifying = 0.0
    for line in log.read_text(encoding="utf-8").splitlines():
        values = json.loads(line) if line.startswith("{") else {"message": ""}
        if found := LOADED.search(str(values["message"])):
            loading = datetime.fromisoformat(values["time"]).timestamp() - float(found[1])
        if any(words in str(values["message"]) for words in READY):  # the later one counts
            ready = datetime.fromisoformat(values["time"]).timestamp()
        if found := VERIFIED_FIRST.search(str(values["message"])):
            verifying = float(found[1])
    assert loading, "no line says how long the model was loaded"
    return loading, ready, verifying


def import_service(side: Side, environment: dict[str, str]) -> dict[str, float]:
    begin = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-c", "import service"],
        cwd=side.checkout,
        env=environment | {"BENTOML_HOME": str(side.home)},
    )
    _, status, usage = os.wait4(process.pid, 0)
    end = time.monotonic()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"service.py of {side.checkout} can't be imported")
    return {"import service": end - begin, "import service, CPU": usage.ru_utime + usage.ru_stime}


def model_of(name: str, folder: Path) -> Path:
    """Return the directory of a model, in a store below a folder if it has to be made."""
    if name == "demo":
        return demo_model(folder / "home")
    if name not in SIZES:
        return Path(name).resolve()
    checkpoint = folder / f"{name}.safetensors"
    write_checkpoint(checkpoint, SIZES[name])
    done = subprocess.run(
        [sys.executable, "model_import.py", "checkpoint", str(checkpoint)],
        cwd=ROOT,
        env=os.environ | {"BENTOML_HOME": str(folder / "home"), "BENTOML_DO_NOT_TRACK": "True"},
        check=True,
        capture_output=True,
        text=True,
    )
    checkpoint.unlink()
    return folder / "home" / "models" / Path(*done.stdout.split()[-1].split(":"))


def earlier_store(model: Path, home: Path) -> Path:
    """Make a store of a model's files, by hard links, with a manifest of an earlier version."""
    copy = home / "models" / model.parent.name / model.name
    shutil.copytree(model, copy, copy_function=os.link)
    manifest = copy / "manifest.json"
    values = json.loads(manifest.read_text(encoding="utf-8"))
    for record in values["files"].values():
        record.pop("blake3", None)
    manifest.unlink()  # else the other's would be written
    manifest.write_text(json.dumps(values), encoding="utf-8")
    return home


def commit_of(checkout: Path) -> str:
    command = ["git", "describe", "--always", "--dirty"]
    done = subprocess.run(command, cwd=checkout, check=False, capture_output=True, text=True)
    return done.stdout.strip()


def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(statistics.median(one[name] for one in rounds), 2) for name in rounds[0]}


def saved_percent(here: list[dict[str, float]], there: list[dict[str, float]]) -> dict[str, float]:
    """Compute medians over the rounds of what a start here saves beside its pair's."""
    pairs = list(zip(here, there, strict=True))
    return {
        name: round(statistics.median(100 * (1 - new[name] / old[name]) for new, old in pairs), 1)
        for name in here[0]
        if all(old[name] for old in there)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--against", type=Path, help="another checkout, to compare with")
    parser.add_argument("--model", default="demo", help="demo, half, full or a model directory")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="OMP_NUM_THREADS of the service")
    parser.add_argument("--drop-caches", action="store_true", help="before each start")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--quick", action="store_true", help="one round; no result is kept")
    options = parser.parse_args()
    rounds = 1 if options.quick else options.rounds
    with tempfile.TemporaryDirectory(prefix="lpw-sdxl-start-", dir=options.folder) as name:
        folder = Path(name)
        model = model_of(options.model, folder)
        sides = [Side(ROOT.resolve(), model.parents[2])]
        if options.against:
            home = earlier_store(model, folder / "earlier")
            sides.append(Side(options.against.resolve(), home))
        results, share = measure(sides, f"{model.parent.name}:{model.name}", rounds, options)
    about: dict[str, object] = {
        **service_surroundings("cpu", options.threads),
        "model": options.model,
        "file_cache": "empty" if options.drop_caches else "warm",
        "rounds": rounds,
        "others_share_of_cores": share,
        "median_seconds": medians(results[0]),
    }
    if options.against:
        about |= {
            "against": commit_of(options.against),
            "median_seconds_there": medians(results[1]),
            "saved_percent": saved_percent(*results),
        }
    kind = "" if options.model == "demo" else f"_{Path(options.model).name}"
    cold = "_empty_cache" if options.drop_caches else ""
    write_result(f"start{kind}{cold}", about, keep=not options.quick)


def measure(
    sides: list[Side], tag: str, rounds: int, options: argparse.Namespace
) -> tuple[list[list[dict[str, float]]], float]:
    """Start each side in turn; return the seconds of each, and what others had of the cores."""
    results: list[list[dict[str, float]]] = [[] for _ in sides]
    for side in sides:  # compiles Python's files and warms the kernel's cache
        once(side, tag, options.threads, drops_caches=False)
    others = OtherWork()
    for number in range(rounds):
        turns = list(zip(sides, results, strict=True))
        for side, result in reversed(turns) if number % 2 else turns:
            result.append(once(side, tag, options.threads, drops_caches=options.drop_caches))
    return results, others.share()


if __name__ == "__main__":
    main()

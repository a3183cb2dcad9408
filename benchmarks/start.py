"""What does a start cost, from the command until /readyz answers 200, here and in another checkout?

Starts the service of each checkout in turn, on the demo model, in rounds; and imports service.py
alone, which the supervisor, every worker and `bentoml build` do. CPU seconds are those of the
command and all its processes: on a shared machine they vary less than the clock. Both checkouts run
in this Python's environment; `cold_start.py` shows where one start's time goes.

    python benchmarks/start.py [--against PATH] [--rounds 5] [--threads 1] [--quick]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from cold_start import free_port, plain, started, wait_until_ready
from common import ROOT, demo_model, service_surroundings, write_result
from services import OtherWork, cpu_seconds


def once(checkout: Path, home: Path, threads: int) -> dict[str, float]:
    """Start a checkout's service and import it; return the seconds that each took."""
    environment = os.environ | {
        "BENTOML_DO_NOT_TRACK": "True",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": str(threads),
        "PYTHONPATH": str(checkout / "src"),  # before the package installed in this environment
    }
    return start(checkout, home, environment) | import_service(checkout, home, environment)


def start(checkout: Path, home: Path, environment: dict[str, str]) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="lpw-sdxl-start-") as folder:
        log = Path(folder) / "log"
        port = free_port()
        command = plain(home)(port, folder)
        begin = time.monotonic()
        with started(command, environment, log, checkout) as pid:
            wait_until_ready(f"http://127.0.0.1:{port}", log)
            ready = time.monotonic()
            supervisor = psutil.Process(pid)
            own = supervisor.cpu_times()
            everyone = cpu_seconds(supervisor)
    return {
        "command to ready": ready - begin,
        "command to ready, CPU": everyone,
        "of that the supervisor, CPU": own.user + own.system,
    }


def import_service(checkout: Path, home: Path, environment: dict[str, str]) -> dict[str, float]:
    begin = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-c", "import service"],
        cwd=checkout,
        env=environment | {"BENTOML_HOME": str(home)},
    )
    _, status, usage = os.wait4(process.pid, 0)
    end = time.monotonic()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"service.py of {checkout} can't be imported")
    return {"import service": end - begin, "import service, CPU": usage.ru_utime + usage.ru_stime}


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
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--against", type=Path, help="another checkout, to compare with")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="OMP_NUM_THREADS of the service")
    parser.add_argument("--quick", action="store_true", help="one round; no result is kept")
    options = parser.parse_args()
    rounds = 1 if options.quick else options.rounds
    checkouts = [ROOT.resolve()]
    if options.against:
        checkouts.append(options.against.resolve())
    results: list[list[dict[str, float]]] = [[] for _ in checkouts]
    with tempfile.TemporaryDirectory(prefix="lpw-sdxl-demo-") as home:
        demo_model(Path(home))
        for checkout in checkouts:  # compiles Python's files and warms the kernel's cache
            once(checkout, Path(home), options.threads)
        others = OtherWork()
        for number in range(rounds):
            turns = list(zip(checkouts, results, strict=True))
            for checkout, result in reversed(turns) if number % 2 else turns:
                result.append(once(checkout, Path(home), options.threads))
    about: dict[str, object] = {
        **service_surroundings("cpu", options.threads),
        "rounds": rounds,
        "others_share_of_cores": others.share(),
        "median_seconds": medians(results[0]),
    }
    if options.against:
        about |= {
            "against": commit_of(options.against),
            "median_seconds_there": medians(results[1]),
            "saved_percent": saved_percent(*results),
        }
    write_result("start", about, keep=not options.quick)


if __name__ == "__main__":
    main()

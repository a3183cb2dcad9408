"""Three replicas behind HAProxy, under load: is it balanced, what do a kill and a restart cost?

Each replica is a `bentoml serve` with a home of its own and the same models. Clients ask without a
pause; one that is answered with an error or not at all asks again. Counted are requests that failed
once, and requests that were never answered. Needs HAProxy (Debian's package haproxy).
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
from common import ROOT, demo_model, service_surroundings, write_result

REQUEST = {"prompt": "a fox in the snow", "num_inference_steps": 10, "width": 64, "height": 64}
NAMES = ("one", "two", "three")
RETRIES = 20
RETRY_SECONDS = 0.25
READY_SECONDS = 120
THREADS = 1


@dataclass
class Replica:
    """One `bentoml serve`."""

    name: str
    home: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it."""
        settings = {
            "LPW_SDXL_DRAIN_S": "3",
            "OMP_NUM_THREADS": str(THREADS),
            "BENTOML_DO_NOT_TRACK": "True",
        }
        with (self.home / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "bentoml", "serve", "service:LpwSdxl"),
                    *("--host", "127.0.0.1", "--port", str(self.port)),
                ],
                cwd=ROOT,
                env=os.environ | settings | {"BENTOML_HOME": str(self.home)},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    async def wait_until_ready(self, client: httpx.AsyncClient) -> None:
        """Wait until it accepts requests."""
        async with asyncio.timeout(READY_SECONDS):
            while True:
                try:
                    if (await client.get(f"{self.url}/readyz", timeout=5)).status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.1)

    async def inside(self, client: httpx.AsyncClient) -> int:
        """Count the requests that it has accepted and not answered."""
        info = (await client.post(f"{self.url}/info", json={})).json()
        return int(info["engine"]["queued_jobs"])

    def kill(self) -> None:
        """Kill all of its processes at once, as if its machine failed.

        The supervisor alone would not do: a worker has a session of its own, and serves on.
        """
        if self.process is None or self.process.poll() is not None:
            return
        supervisor = psutil.Process(self.process.pid)
        for one in (supervisor, *supervisor.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        self.process.wait()

    async def stop(self) -> float:
        """Terminate it; return how long it took, seconds."""
        assert self.process is not None
        started = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(self.process.wait, 120)
        return time.monotonic() - started

    @property
    def url(self) -> str:
        """Return the address on which it listens."""
        return f"http://127.0.0.1:{self.port}"


@dataclass
class Load:
    """Clients that send one request after another."""

    url: str
    clients: int
    answered: collections.Counter[str] = field(default_factory=collections.Counter)
    failures: collections.Counter[str] = field(default_factory=collections.Counter)
    failed_once: int = 0
    lost: int = 0
    _is_over: bool = False
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _seconds: float = 0

    async def __aenter__(self) -> Load:
        """Start the clients."""
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        self._client = httpx.AsyncClient(timeout=120, limits=limits)
        self._started = time.monotonic()
        self._tasks = [asyncio.create_task(self._ask_on(n)) for n in range(self.clients)]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop the clients after the answers to their last requests."""
        self._is_over = True
        await asyncio.gather(*self._tasks)
        self._seconds = time.monotonic() - self._started
        await self._client.aclose()

    async def _ask_on(self, number: int) -> None:
        while not self._is_over:
            await self._ask(number)

    async def _ask(self, number: int) -> None:
        for attempt in range(RETRIES):
            try:
                answer = await self._client.post(
                    f"{self.url}/generate", json=REQUEST | {"seed": number}
                )
                failure = None if answer.status_code == 200 else str(answer.status_code)
            except httpx.TransportError as error:
                failure = type(error).__name__
            if failure is None:
                self.answered[answer.headers["x-replica"]] += 1
                return
            self.failures[failure] += 1
            self.failed_once += attempt == 0
            await asyncio.sleep(RETRY_SECONDS)
        self.lost += 1

    def result(self) -> dict[str, Any]:
        """Return the counts."""
        return {
            "seconds": round(self._seconds, 1),
            "images_per_second": round(self.answered.total() / self._seconds, 1),
            "answered_by": dict(sorted(self.answered.items())),
            "failed_once": self.failed_once,
            "failures": dict(self.failures),
            "lost": self.lost,
        }


def make_replicas(folder: Path) -> list[Replica]:
    """Create the replicas, each with a home of its own and the same models."""
    shared = folder / "shared"
    shared.mkdir()
    demo_model(shared)
    replicas = []
    for name in NAMES:
        home = folder / name
        home.mkdir()
        (home / "models").symlink_to(shared / "models")
        replicas.append(Replica(name, home, free_port()))
    return replicas


def free_port() -> int:
    """Find a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_balancer(replicas: list[Replica], port: int) -> subprocess.Popen[bytes]:
    """Run HAProxy with deploy/haproxy.cfg until the block ends."""
    program = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
    if program is None:
        sys.exit("HAProxy is not here; Debian's package haproxy has it")
    addresses = {
        f"REPLICA_{n}": f"127.0.0.1:{replica.port}" for n, replica in enumerate(replicas, 1)
    }
    return subprocess.Popen(
        [program, "-q", "-f", str(ROOT / "deploy" / "haproxy.cfg")],
        env=os.environ | addresses | {"LISTEN": f"127.0.0.1:{port}"},
    )


async def measure(
    replicas: list[Replica], url: str, clients: int, seconds: float
) -> dict[str, Any]:
    """Run the three loads, one after another."""
    results: dict[str, Any] = {}
    async with httpx.AsyncClient(timeout=30) as client:
        for replica in replicas:
            replica.start()
        await asyncio.gather(*(replica.wait_until_ready(client) for replica in replicas))
        await asyncio.sleep(2)  # HAProxy notices

        async with Load(url, clients) as steady:
            await asyncio.sleep(seconds)
        results["steady"] = steady.result()
        print("steady:", results["steady"], flush=True)

        async with Load(url, clients) as killed:
            await asyncio.sleep(seconds / 4)
            inside = await replicas[1].inside(client)
            replicas[1].kill()
            await asyncio.sleep(seconds * 3 / 4)
        results["one killed"] = killed.result() | {"inside_when_killed": inside}
        print("one killed:", results["one killed"], flush=True)

        replicas[1].start()
        await replicas[1].wait_until_ready(client)
        await asyncio.sleep(2)
        ends = []
        async with Load(url, clients) as rolled:
            for replica in replicas:
                ends.append(round(await replica.stop(), 1))
                replica.start()
                await replica.wait_until_ready(client)
                await asyncio.sleep(2)
        results["all rolled"] = rolled.result() | {"seconds_to_end": ends}
        print("all rolled:", results["all rolled"], flush=True)
    return results


def main() -> None:
    """Read the command line, measure, write the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clients", type=int, default=24)
    parser.add_argument("--seconds", type=float, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        replicas = make_replicas(Path(name))
        port = free_port()
        balancer = start_balancer(replicas, port)
        try:
            results = asyncio.run(
                measure(replicas, f"http://127.0.0.1:{port}", options.clients, options.seconds)
            )
        finally:
            balancer.terminate()
            for replica in replicas:
                replica.kill()
    write_result(
        "replicas",
        {**service_surroundings("cpu", THREADS), "clients": options.clients, **results},
    )


if __name__ == "__main__":
    main()

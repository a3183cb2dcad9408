"""RunPod's side of a queue worker, on loopback: jobs, cancellations, results and heartbeats.

The addresses, and what goes over them, are those of RunPod's package 1.12.0.
"""

from __future__ import annotations

import contextlib
import json
import queue
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from web import QuietHandler

KEY = "key-of-the-platform"
HELD_S = 30.0  # a call for jobs, while there are none


class Platform:
    """A queue, and all that a worker has sent."""

    def __init__(self) -> None:
        self.jobs: queue.Queue[dict[str, Any]] = queue.Queue()
        self.stops: queue.Queue[str] = queue.Queue()
        self.results: dict[str, dict[str, Any]] = {}
        self.reports: list[tuple[str, dict[str, Any]]] = []
        self.pings = 0
        self.asked = 0
        self.is_closing = False
        self._changed = threading.Condition()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    @contextlib.contextmanager
    def serving(self) -> Iterator[Platform]:
        self._thread.start()
        try:
            yield self
        finally:
            self.is_closing = True
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()

    @property
    def environment(self) -> dict[str, str]:
        """What RunPod sets for a worker."""
        base = f"http://127.0.0.1:{self._server.server_address[1]}/v2/endpoint"
        return {
            "RUNPOD_ENDPOINT_ID": "endpoint",
            "RUNPOD_POD_ID": "worker-1",
            "RUNPOD_AI_API_KEY": KEY,
            "RUNPOD_WEBHOOK_GET_JOB": f"{base}/job-take/$ID?gpu=none",
            "RUNPOD_WEBHOOK_POST_OUTPUT": f"{base}/job-done/$RUNPOD_POD_ID/$ID?gpu=none",
            "RUNPOD_WEBHOOK_PING": f"{base}/ping/$RUNPOD_POD_ID",
            "RUNPOD_PING_INTERVAL": "1000",
            # It has no GPU, and may have no network.
            "RUNPOD_SKIP_GPU_CHECK": "true",
            "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
        }

    def submit(self, name: str, **fields: Any) -> None:
        self.jobs.put({"id": name, "input": fields})

    def result(self, name: str, seconds: float = 60.0) -> dict[str, Any]:
        """Wait for a job's result."""
        with self._changed:
            found = self._changed.wait_for(lambda: name in self.results, seconds)
        assert found, f"{name} has no result; there are {[*self.results]}"
        return self.results[name]

    def wait_for_state(self, name: str, state: str, seconds: float = 60.0) -> None:
        """Wait for a report on a job in a state."""

        def is_reported() -> bool:
            return any(
                image.get("state") == state
                for report in self.reports_of(name)
                for image in report["images"]
            )

        with self._changed:
            assert self._changed.wait_for(is_reported, seconds), self.reports_of(name)

    def reports_of(self, name: str) -> list[dict[str, Any]]:
        return [report for job, report in self.reports if job == name]

    def wait_until_asked(self, seconds: float = 60.0) -> None:
        """Wait for a worker that is ready for jobs."""
        deadline = time.monotonic() + seconds
        while not self.asked:
            assert time.monotonic() < deadline, "no worker has asked for jobs"
            time.sleep(0.02)

    # What the handlers call.

    def take(self, most: int) -> list[dict[str, Any]]:
        """Hold a call until there is a job, and give as many as it asks for."""
        self.asked += 1
        taken: list[dict[str, Any]] = []
        deadline = time.monotonic() + HELD_S
        while not taken and time.monotonic() < deadline and not self.is_closing:
            with contextlib.suppress(queue.Empty):
                taken.append(self.jobs.get(timeout=0.05))
        with contextlib.suppress(queue.Empty):
            while len(taken) < most:
                taken.append(self.jobs.get_nowait())
        return taken

    def take_stops(self) -> list[str]:
        deadline = time.monotonic() + HELD_S
        while time.monotonic() < deadline and not self.is_closing:
            with contextlib.suppress(queue.Empty):
                return [self.stops.get(timeout=0.05)]
        return []

    def receive(self, name: str, content: dict[str, Any]) -> None:
        with self._changed:
            if content.get("status") == "IN_PROGRESS":
                assert name not in self.results, "a report came after the result"
                self.reports.append((name, content["output"]))
            else:
                self.results[name] = content
            self._changed.notify_all()


def _handler_of(platform: Platform) -> type[BaseHTTPRequestHandler]:
    class Handler(QuietHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            address = urlsplit(self.path)
            if self.headers["authorization"] != KEY:
                self._answer(401, {})
            elif "/ping/" in address.path:
                platform.pings += 1
                self._answer(200, {})
            elif "/job-stop/" in address.path:
                self._answer(200, {"jobsToStop": platform.take_stops()})
            elif "/job-take-batch/" in address.path:
                most = int(parse_qs(address.query)["batch_size"][0])
                self._give(platform.take(most))
            elif "/job-take/" in address.path:
                jobs = platform.take(1)
                self._give(jobs[0] if jobs else None)
            else:
                self._answer(404, {})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            name = urlsplit(self.path).path.rpartition("/")[2]
            platform.receive(name, json.loads(body))
            self._answer(200, {})

        def _give(self, jobs: Any) -> None:
            if jobs:
                self._answer(200, jobs)
            else:
                self.send_response(204)
                self.end_headers()

        def _answer(self, status: int, content: Any) -> None:
            body = json.dumps(content).encode()
            with contextlib.suppress(ConnectionError):
                self.respond(status, body, "application/json")

    return Handler

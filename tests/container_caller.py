"""Calls a service, from the network namespace that this process was put in; prints JSON.

It runs on the machine's own Python and knows of the container nothing but its port.
"""

from __future__ import annotations

import hashlib
import json
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import bentoml
import httpx

from pinging import Pinging

URL = "http://127.0.0.1:3000"
READY_SECONDS = 120


def wait_until_ready() -> float:
    """Wait; return the seconds that it took."""
    started = time.monotonic()
    while time.monotonic() - started < READY_SECONDS:
        try:
            if httpx.get(f"{URL}/readyz", timeout=5).status_code == 200:
                return time.monotonic() - started
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise TimeoutError(f"not ready in {READY_SECONDS} s")


def generate(prompt: str, seed: int) -> dict[str, Any]:
    """Make a picture with BentoML's client."""
    with bentoml.SyncHTTPClient(URL, timeout=120) as client:
        image = client.generate(prompt=prompt, seed=seed, num_inference_steps=3)
    return {
        "size": image.size,
        "pixels": hashlib.sha256(image.tobytes()).hexdigest(),
        "parameters": image.info["parameters"],
    }


def info() -> dict[str, Any]:
    """Ask what is served."""
    return httpx.post(f"{URL}/info", json={}, timeout=60).json()


def metrics() -> str:
    """Return what Prometheus would read."""
    return httpx.get(f"{URL}/metrics", timeout=10).text


def pictures() -> float:
    """Return how many pictures were made."""
    lines = metrics().splitlines()
    return sum(
        float(line.split()[-1]) for line in lines if line.startswith("lpw_sdxl_images_total")
    )


def load(clients: int, steps: int) -> dict[str, int]:
    """Let clients ask again and again, on a new connection each time, until nobody listens."""
    answers: dict[str, int] = {}
    lock = threading.Lock()

    def ask_on(number: int) -> None:
        request = {"prompt": f"load {number}", "num_inference_steps": steps}
        outcome = ""
        while outcome != "ConnectError":
            try:
                response = httpx.post(f"{URL}/generate", json=request, timeout=300)
                outcome = str(response.status_code)
            except httpx.HTTPError as error:
                outcome = type(error).__name__
            with lock:
                answers[outcome] = answers.get(outcome, 0) + 1

    threads = [threading.Thread(target=ask_on, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def ping_to_the_end(port: int) -> list[tuple[float, float, int | str]]:
    """Ping until the service was ready and its port is closed; return each ping's fields."""
    with Pinging(f"http://127.0.0.1:{port}") as pinging:
        pinging.wait_for(200, READY_SECONDS)
        pinging.wait_for("ConnectionRefusedError", READY_SECONDS)
    return [(ping.at_s, ping.took_s, ping.outcome) for ping in pinging.pings]


def wait_for_ping(port: int) -> None:
    """Wait until a ping is answered with 200."""
    with Pinging(f"http://127.0.0.1:{port}") as pinging:
        pinging.wait_for(200, READY_SECONDS)


def break_engine(port: int, prompt: str) -> int:
    """Send a request that ends the engine; return its status."""
    request = {"prompt": prompt, "num_inference_steps": 2}
    return httpx.post(f"http://127.0.0.1:{port}/generate", json=request, timeout=60).status_code


def run_jobs(inputs: list[dict[str, Any]], port: int) -> list[dict[str, Any]]:
    """Send jobs at once to the local server of RunPod's package, as soon as it listens."""
    url = f"http://127.0.0.1:{port}"
    started = time.monotonic()
    while True:
        try:
            httpx.get(f"{url}/openapi.json", timeout=5)
            break
        except httpx.TransportError:
            if time.monotonic() - started > READY_SECONDS:
                raise
            time.sleep(0.1)
    with ThreadPoolExecutor(len(inputs)) as pool:
        answers = pool.map(
            lambda one: httpx.post(f"{url}/runsync", json={"input": one}, timeout=240), inputs
        )
        return [answer.json() for answer in answers]


CALLS: dict[str, Callable[..., object]] = {
    call.__name__: call
    for call in (
        *(wait_until_ready, generate, info, metrics, pictures, load, run_jobs),
        *(ping_to_the_end, wait_for_ping, break_engine),
    )
}

if __name__ == "__main__":
    sys.stdout.write(json.dumps(CALLS[sys.argv[1]](**json.loads(sys.argv[2]))))

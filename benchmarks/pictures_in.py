"""What do odd pictures become over HTTP, and what do bodies of 50 MB cost the other clients?

First 387 pictures of 43 kinds are sent, and files that are none: of other kinds, animated, bombs,
and pictures cut off at every 64th byte. Each picture must come back with its own pixels (only a
corner is painted over), all else is a 400 that names field and reason.

Then clients send bodies of two pictures of nearly the largest size as fast as they are answered,
while `GET /livez` comes every 20 ms, each from a process of its own; the same without bodies
before, and beside clients of ordinary images. Bars: p99 of /livez under 50 ms; memory grows by no
more than the bound on bodies and what one picture's decoder takes, and is back within 60 s at 1.1
times what it was; no 5xx; beyond the bound 429.

    python benchmarks/pictures_in.py [--seconds 30] [--only NAME ...] [--threads 1] [--quick]
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import functools
import io
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from itertools import chain

import httpx
import numpy as np
from common import percentile, service_surroundings, write_result
from hostile import flood, http, resident_mb, seconds_until_back, watch
from load import OwnProcess, own_process
from PIL import Image
from ping import Ping, ping
from services import OtherWork, Running, model_to_serve, our_service, running

from lpw_sdxl.api.border import LARGEST_BODIES
from lpw_sdxl.settings import Settings
from tests.forge.odd_pictures import (
    FEW,
    OddRequest,
    cut_pictures,
    refused_pictures,
    right_pictures,
)
from tests.forge.pictures import noise, smooth

CLIENTS = 4
MANY_CLIENTS = 24  # more than the bound on bodies lets in
MAX_P99_MS = 50
SETTLE_S = 3.0  # freed memory is back
LIVEZ = Ping("GET", "/livez", 0.02)
FILE_BYTES = Settings().max_image_bytes
DECODER_MB = 20 * 2**25 / 1e6  # of the largest picture: bytes a pixel, pixels
LARGEST_SIDE = 5792  # of a square of as many pixels as are read
LINE = 76  # characters of base64, as mail has it


def largest_png() -> bytes:
    """Make a PNG of noise, which deflates to its own size."""
    side = int((FILE_BYTES * 0.99 / 3) ** 0.5)
    return _save(noise(side, side, 3).astype(np.uint8), "PNG", compress_level=1)


def largest_jpeg() -> bytes:
    """Make a JPEG of as many pixels as are read; what phones append fills its bytes."""
    return _filled(_save(smooth(LARGEST_SIDE, LARGEST_SIDE), "JPEG", quality=95))


def largest_webp() -> bytes:
    """Make a WebP of as many pixels as are read; what follows its picture fills its bytes."""
    return _filled(_save(smooth(LARGEST_SIDE, LARGEST_SIDE), "WEBP", quality=90, method=0))


def no_picture() -> bytes:
    return _filled(b"")


FILES: Mapping[str, Callable[[], bytes]] = {
    "PNG of noise": largest_png,
    "JPEG of 33 megapixels": largest_jpeg,
    "WebP of 33 megapixels": largest_webp,
    "no picture": no_picture,
}
ORDINARY = "ordinary images"
FEW_TEXTS = {key: value for key, value in FEW.items() if key != "strength"}
ONLY_MASKED = {"only_masked": True, "masked_content": "fill", "invert_mask": True}


def body_of(name: str) -> bytes:
    """Make a body with a file as the picture and as its mask, in lines of base64."""
    text = base64.b64encode(FILES[name]()).decode()
    lines = "\r\n".join(text[start : start + LINE] for start in range(0, len(text), LINE))
    return json.dumps({**FEW, "image": lines, "mask_image": lines, **ONLY_MASKED}).encode()


@functools.cache
def request_of(name: str) -> bytes:
    return http("/generate", json.dumps(FEW_TEXTS).encode() if name == ORDINARY else body_of(name))


def send_bodies(url: str, name: str, clients: int, seconds: float) -> dict[str, int]:
    """Send a body again and again; count the answers by status. For a process of its own."""
    return asyncio.run(flood(url, request_of(name), seconds, clients))


def send_odd(url: str) -> dict[str, object]:
    """Send all odd pictures, one after the other; count them, and list what is wrong."""
    right = [*right_pictures()]
    wrong: Iterator[OddRequest] = chain(refused_pictures(), cut_pictures())
    statuses: Counter[str] = Counter()
    faults = []
    with httpx.Client(base_url=url, timeout=300) as client:
        for request in chain(right, wrong):
            answer = client.post("/generate", json=request.fields)
            error = None if answer.is_success else answer.json()["error"]
            statuses[str(answer.status_code)] += 1
            fault = request.fault(answer.status_code, answer.content, error)
            faults += [f"{request.name}: {fault}"] if fault else []
    return {"pictures": len(right), "statuses": dict(statuses), "faults": faults}


def measure(
    server: Running, processes: list[OwnProcess], name: str, clients: int, seconds: float
) -> dict[str, object]:
    """Ping without bodies, then beside them."""
    sender, pinger = processes
    sender.run(send_bodies, server.url, name, 1, 0.1)  # what is made once
    time.sleep(SETTLE_S)
    idle = pinger.run(ping, server.url, LIVEZ, seconds / 2)
    base_mb = resident_mb(server.worker)
    others = OtherWork()
    work = sender.begin(send_bodies, server.url, name, clients, seconds)
    took: list[float] = []
    largest_mb = base_mb
    while not work.done():
        pings = pinger.begin(ping, server.url, LIVEZ, 1.0)
        largest_mb = max(largest_mb, watch(server.worker, pings))
        took += pings.result()
    return {
        "clients": clients,
        "answers": work.result(),
        "livez_p50_ms": round(percentile(took, 50), 1),
        "livez_p99_ms": round(percentile(took, 99), 1),
        "livez_max_ms": round(max(took), 1),
        "idle_p99_ms": round(percentile(idle, 99), 1),
        "base_mb": round(base_mb),
        "growth_mb": round(largest_mb - base_mb),
        "back_after_s": seconds_until_back(server.worker, base_mb),
        "others_share_of_cores": others.share(),
    }


def is_met(result: Mapping[str, object], bound_mb: float) -> dict[str, bool]:
    answers = result["answers"]
    assert isinstance(answers, dict)
    return {
        "livez p99": float(str(result["livez_p99_ms"])) < MAX_P99_MS,
        "memory": float(str(result["growth_mb"])) <= bound_mb,
        "memory back": result["back_after_s"] is not None,
        "no 5xx": not any(status.startswith("5") for status in answers),
        "429 beyond the bound": result["clients"] != MANY_CLIENTS or "429" in answers,
    }


def _filled(content: bytes) -> bytes:
    return content + bytes(FILE_BYTES - len(content))


def _save(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], kind: str, **how: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **how)
    return buffer.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=30.0, help="of each kind of body")
    parser.add_argument(
        "--only", nargs="+", choices=["odd", ORDINARY, *FILES], help="parts to measure"
    )
    parser.add_argument("--threads", type=int, default=1, help="OMP_NUM_THREADS of the service")
    parser.add_argument("--quick", action="store_true", help="8 s each; no result is kept")
    options = parser.parse_args()
    seconds = 8.0 if options.quick else options.seconds
    only = options.only or ["odd", ORDINARY, *FILES]
    bodies: dict[str, dict[str, object]] = {}
    odd: dict[str, object] = {}
    with (
        model_to_serve(None) as model,
        running(our_service(model), model, options.threads) as server,
        ExitStack() as stack,
    ):
        processes = [stack.enter_context(own_process()) for _ in range(2)]
        device = str(server.ask("/info")["device"])
        if "odd" in only:
            odd = processes[0].run(send_odd, server.url)
            print(json.dumps(odd), flush=True)
        parts = [(name, CLIENTS) for name in (ORDINARY, *FILES) if name in only]
        parts += [(name, MANY_CLIENTS) for name, _ in parts[-1:]]
        for name, clients in parts:
            result = measure(server, processes, name, clients, seconds)
            bodies[f"{name}, {clients} clients"] = result
            print(f"{name}, {clients} clients: {json.dumps(result)}", flush=True)
    bound_mb = LARGEST_BODIES * Settings().max_body_bytes / 1e6 + DECODER_MB
    for result in bodies.values():
        result["missed"] = [bar for bar, is_good in is_met(result, bound_mb).items() if not is_good]
    are_met = not odd.get("faults") and not any(one["missed"] for one in bodies.values())
    measured = {
        "seconds": seconds,
        "odd_pictures": odd,
        "bound_mb": round(bound_mb),
        "bodies": bodies,
        "bars_met": are_met,
    }
    about = service_surroundings(device, options.threads)
    write_result("pictures_in", about | measured, keep=not options.quick and not options.only)
    sys.exit(0 if are_met else 1)


if __name__ == "__main__":
    main()

"""How much of the server's CPU does an image take through OpenAI's door, beside our own endpoint?

The same image by /generate and through the door, one at a time, the ways in turn: from a text, and
from a picture (base64 in JSON natively, a form through the door). Counted are the nanoseconds that
the worker's threads ran, but for the one that owns the device, whose work is the same: what is left
is the border, the translation and the file. The client has a process of its own.

Bar: at most 5 ms of CPU more an image through the door, at 1024 x 1024.

    python benchmarks/openai_door.py [--pairs 40] [--size 1024] [--steps 1] [--model DIRECTORY]
        [--threads 1] [--quick]
"""

from __future__ import annotations

import argparse
import base64
import http.client
import io
import json
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from common import percentile, service_surroundings, write_result
from load import own_process
from services import OtherWork, Running, model_to_serve, our_service, running

MAX_MS = 5.0
BOUNDARY = "a-boundary-of-a-benchmark"
JSON = "application/json"


@dataclass(frozen=True)
class Sent:
    """A request as it goes over the wire."""

    path: str
    content_type: str
    body: bytes


def ways(size: int, steps: int) -> Mapping[str, tuple[Sent, Sent]]:
    """Build the requests of one image, natively and through the door."""
    prompt = "a large red circle on a white background"
    native = {"prompt": prompt, "width": size, "height": size, "num_inference_steps": steps}
    native |= {"seed": 7, "guidance_scale": 1.0}
    door = {"prompt": prompt, "size": f"{size}x{size}", "steps": steps, "seed": 7}
    door |= {"guidance_scale": 1.0, "model": "sdxl", "n": 1, "response_format": "b64_json"}
    picture = picture_file(size)
    from_picture = native | {"image": base64.b64encode(picture).decode(), "strength": 1.0}
    return {
        "from a text": (
            Sent("/generate", JSON, json.dumps(native).encode()),
            Sent("/v1/images/generations", JSON, json.dumps(door).encode()),
        ),
        "from a picture": (
            Sent("/generate", JSON, json.dumps(from_picture).encode()),
            Sent(
                "/v1/images/edits",
                f"multipart/form-data; boundary={BOUNDARY}",
                form(door | {"strength": 1.0}, picture),
            ),
        ),
    }


def picture_file(size: int) -> bytes:
    """Draw a PNG of a usual weight: circles on a gradient."""
    from PIL import Image, ImageDraw  # noqa: PLC0415 - the client's process stays light

    picture = Image.linear_gradient("L").resize((size, size)).convert("RGB")
    draw = ImageDraw.Draw(picture)
    for index in range(60):
        x, y, r = index * 977 % size, index * 577 % size, 20 + index * 13 % 90
        draw.ellipse((x, y, x + r, y + r), fill=(index * 40 % 256, index * 70 % 256, 90))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def form(fields: Mapping[str, object], picture: bytes) -> bytes:
    """Write a form with a picture, as OpenAI's clients do."""
    head = f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="'
    texts = "".join(f'{head}{name}"\r\n\r\n{value}\r\n' for name, value in fields.items())
    file = f'{head}image"; filename="in.png"\r\ncontent-type: image/png\r\n\r\n'
    return f"{texts}{file}".encode() + picture + f"\r\n--{BOUNDARY}--\r\n".encode()


def post(url: str, sent: Sent) -> None:
    """Ask for an image and read it. For a process of its own.

    Raises:
        RuntimeError: if there was none.
    """
    address = urlsplit(url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=600)
    connection.request("POST", sent.path, sent.body, {"content-type": sent.content_type})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    if answer.status != http.client.OK:
        raise RuntimeError(content[:300].decode())


def thread_ms(worker: int) -> dict[int, float]:
    """Read how long each thread of a process has run, ms: the first number of its schedstat."""
    times = {}
    for folder in Path(f"/proc/{worker}/task").iterdir():
        try:
            times[int(folder.name)] = int((folder / "schedstat").read_text().split()[0]) / 1e6
        except FileNotFoundError:  # it has ended meanwhile
            continue
    return times


def border_ms(worker: int, work: Callable[[], None]) -> float:
    """Measure the CPU time of all threads but the one that ran longest, ms."""
    before = thread_ms(worker)
    work()
    after = thread_ms(worker)
    ran = sorted(time - before.get(thread, 0.0) for thread, time in after.items())
    return sum(ran[:-1])


def measure(server: Running, options: argparse.Namespace) -> dict[str, object]:
    """Ask in turn, in the other order each time."""
    result: dict[str, object] = {}
    worker = server.worker
    with own_process() as client:
        for name, pair in ways(options.size, options.steps).items():
            took: tuple[list[float], list[float]] = ([], [])
            for sent in pair * 2:
                client.run(post, server.url, sent)  # a warm-up
            for number in range(options.pairs):
                for index in (0, 1) if number % 2 else (1, 0):
                    asking = partial(client.run, post, server.url, pair[index])
                    took[index].append(border_ms(worker, asking))
            more = [door - native for native, door in zip(*took, strict=True)]
            median = statistics.median(more)
            result[name] = {
                "native_ms": round(statistics.median(took[0]), 2),
                "door_ms": round(statistics.median(took[1]), 2),
                "more_ms": round(median, 2),
                "more_ms_quartiles": [round(percentile(more, share), 2) for share in (25, 75)],
                "bar_met": median <= MAX_MS,
            }
            print(name, result[name], flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--size", type=int, default=1024, help="pixels, both sides")
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--model", type=Path, help="model directory; the demo model by default")
    parser.add_argument("--threads", type=int, default=1, help="OMP_NUM_THREADS of the service")
    parser.add_argument("--quick", action="store_true", help="a few pairs; no result is kept")
    options = parser.parse_args()
    if options.quick:
        options.pairs = 5
    with (
        model_to_serve(options.model) as model,
        running(our_service(model), model, options.threads) as server,
    ):
        device = str(server.ask("/info")["device"])
        others = OtherWork()
        result = {"ways": measure(server, options), "others_share_of_cores": others.share()}
    about = service_surroundings(device, options.threads)
    about |= {"size": options.size, "steps": options.steps, "pairs": options.pairs}
    write_result("openai_door", about | result, keep=not options.quick)


if __name__ == "__main__":
    main()

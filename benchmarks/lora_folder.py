"""What do LoRAs cost that come and go in a folder while clients ask for them?

A folder of LoRAs' files is changed twice a second, one file after another: put there by a rename or
copied in slowly, replaced by either, removed. Meanwhile clients draw with LoRAs named at random.
No request fails but those that name a removed one, each by that name; a picture is that of the file
whose hash it carries; memory stays. Last, with nobody asking, a large file grows with pauses that
make it look finished: what the service reads of it is counted.

    python benchmarks/lora_folder.py [--seconds 300] [--files 50] [--clients 8] [--large-mb 2000]
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import io
import random
import re
import shutil
import sys
import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import httpx
import numpy as np
import psutil
from common import percentile, service_surroundings, write_result
from PIL import Image
from services import OtherWork, Running, model_to_serve, our_service, running

from lpw_sdxl.lora.targets import TargetModules, read_targets
from tests.forge.lora import LoraOptions, write_lora

STEPS = 2
SIZE = 64
CHANGE_EVERY_S = 0.5
KEPT_BYTES = 64 * 1024**2  # less than all files need, so that what is kept is bounded at once
PAUSES = 10
PAUSE_S = 3.0  # longer than the service waits for a file to keep still
MEBIBYTE = 1024**2
KINDS_OF_CONTENT = 12  # of which each file has one: a picture's hash tells which


def main() -> None:
    """Measure, and write the result."""
    options = read_options()
    with TemporaryDirectory(prefix="lpw-sdxl-folder-") as scratch, model_to_serve(None) as model:
        place = Place(Path(scratch), read_targets(model), options.files)
        kept = dict.fromkeys(("lora_files_bytes", "lora_weights_bytes"), KEPT_BYTES)
        settings = {"device": "cpu", "lora_dir": str(place.folder), **kept}
        with running(our_service(model, **settings), model, threads=1) as service:
            surroundings = service_surroundings("cpu", 1)
            other = OtherWork()
            result: dict[str, Any] = {"all_known_after_s": round(fill(service, place), 2)}
            result |= asyncio.run(measure(service, place, options))
            result |= read_half_written(service, place, options.large_mb)
            log = service.log_file.read_text(encoding="utf-8")
            result["tracebacks"] = log.count("Traceback")
            result["other_work"] = other.share()
    write_result("lora_folder", surroundings | {"result": result})
    sys.exit(judge(result))


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--files", type=int, default=50)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--large-mb", type=int, default=2000)
    return parser.parse_args()


@dataclass
class Place:
    """The folder, its files' names, and what may be in them.

    Attributes:
        scratch: a folder on the same disk, to fill from.
        targets: the model's modules.
        count: of names.
        changed_at: every change of each name.
    """

    scratch: Path
    targets: TargetModules
    count: int
    changed_at: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        self.folder = self.scratch / "loras"
        self.folder.mkdir()
        self.contents = []
        for seed in range(KINDS_OF_CONTENT):
            path = self.scratch / f"content-{seed}.safetensors"
            write_lora(path, self.targets, LoraOptions(seed=seed, rank=4, strength=0.5))
            self.contents.append(path)
        self.hashes = {hashlib.sha256(path.read_bytes()).hexdigest()[:10] for path in self.contents}

    def path(self, name: str) -> Path:
        """Return where a name's file is; a third of them in a sub-folder."""
        folder = self.folder / "more" if int(name.removeprefix("lora")) % 3 == 0 else self.folder
        folder.mkdir(exist_ok=True)
        return folder / f"{name}.safetensors"


def fill(service: Running, place: Place) -> float:
    """Put every file there at once; return the seconds until all can be named."""
    for index in range(place.count):
        shutil.copy(place.contents[index % KINDS_OF_CONTENT], place.path(f"lora{index}"))
    started = time.monotonic()
    while len(cast("list[object]", service.ask("/info")["loras"])) < place.count:
        time.sleep(0.1)
    return time.monotonic() - started


def churn(place: Place, stop: threading.Event, done: Counter[str]) -> None:
    """Change the folder until told to stop."""
    draw = random.Random(1)
    names = [f"lora{index}" for index in range(place.count)]
    while not stop.wait(CHANGE_EVERY_S):
        name, content = draw.choice(names), draw.choice(place.contents)
        path = place.path(name)
        kind = draw.choice(("moved in", "copied over", "removed"))
        if kind == "removed":
            path.unlink(missing_ok=True)
        elif kind == "moved in":
            partial = place.scratch / "partial"
            shutil.copy(content, partial)
            partial.replace(path)
        else:
            copy_slowly(content, path)
        place.changed_at[name].append(time.monotonic())
        done[kind] += 1


def copy_slowly(source: Path, target: Path) -> None:
    """Copy a file over another in pieces, as over a network."""
    content = source.read_bytes()
    with target.open("wb", buffering=0) as file:
        for start in range(0, len(content), max(1, len(content) // 5)):
            file.write(content[start : start + max(1, len(content) // 5)])
            time.sleep(0.02)


@dataclass
class Answers:
    """What the clients were told."""

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    pictures: dict[str, list[np.ndarray]] = field(default_factory=dict)
    slow: list[tuple[float, int, int]] = field(default_factory=list)


async def measure(service: Running, place: Place, options: argparse.Namespace) -> dict[str, object]:
    """Ask while the folder changes."""
    done: Counter[str] = Counter()
    stop = threading.Event()
    churning = threading.Thread(target=churn, args=(place, stop, done))
    worker = psutil.Process(service.worker)
    answers = Answers()
    before, peak = 0, 0
    churning.start()
    until = time.monotonic() + options.seconds
    async with httpx.AsyncClient(base_url=service.url, timeout=120) as client:
        asking = [
            asyncio.create_task(ask(client, place, random.Random(seed), until, answers))
            for seed in range(options.clients)
        ]
        started = time.monotonic()
        while time.monotonic() < until:
            await asyncio.sleep(1)
            rss = worker.memory_info().rss
            if not before and time.monotonic() - started > options.seconds / 5:
                before = rss
            peak = max(peak, rss)
        await asyncio.gather(*asking)
    stop.set()
    churning.join()
    return {
        "changes": dict(done),
        "answers": {str(status): count for status, count in sorted(answers.statuses.items())},
        "p50_s": percentile(answers.seconds, 50),
        "p99_s": percentile(answers.seconds, 99),
        "slowest_s_status_changes": sorted(answers.slow)[-5:],
        "wrong": answers.wrong[:20],
        "wrong_count": len(answers.wrong),
        "contents_drawn": len(answers.pictures),
        **compare(answers.pictures),
        "rss_after_a_fifth_mib": before // MEBIBYTE,
        "rss_peak_mib": peak // MEBIBYTE,
        "rss_at_the_end_mib": worker.memory_info().rss // MEBIBYTE,
        "open_files": len([one for one in worker.open_files() if "loras" in one.path]),
    }


async def ask(
    client: httpx.AsyncClient, place: Place, draw: random.Random, until: float, answers: Answers
) -> None:
    """Send one request after the other, each with a LoRA named at random."""
    while time.monotonic() < until:
        name = f"lora{draw.randrange(place.count)}"
        body = {
            "prompt": f"a red circle <lora:{name}:1>",
            "seed": 1,
            "num_inference_steps": STEPS,
            "width": SIZE,
            "height": SIZE,
        }
        started = time.monotonic()
        answer = await client.post("/generate", json=body)
        seconds = time.monotonic() - started
        answers.seconds.append(seconds)
        changed = sum(started < at for at in place.changed_at[name])
        answers.slow.append((round(seconds, 2), answer.status_code, changed))
        answers.statuses[answer.status_code] += 1
        if answer.status_code == 200:
            note_picture(answer.content, place, answers)
        elif not is_of_removed(answer, name, place, started):
            answers.wrong.append(f"{name}: {answer.status_code} {answer.text[:300]}")


def is_of_removed(answer: httpx.Response, name: str, place: Place, started: float) -> bool:
    """Return whether a refusal names its LoRA, which was not there at some time meanwhile."""
    is_named = answer.status_code == 400 and f"'{name}'" in answer.json()["error"]["message"]
    is_gone = not place.path(name).exists()
    # What came is seen within two seconds, and what has gone may have come back meanwhile.
    is_gone |= any(at > started - 2.0 for at in place.changed_at[name])
    return is_named and is_gone


def note_picture(content: bytes, place: Place, answers: Answers) -> None:
    """Keep one picture of each hash; check that the hash is of a content that there is."""
    image = Image.open(io.BytesIO(content))
    found = re.search(r'Lora hashes: "?[^:"]+: ([0-9a-f]{10,12})', image.info["parameters"])
    if found is None or found[1][:10] not in place.hashes:
        answers.wrong.append(f"an unknown hash: {image.info['parameters'][-200:]}")
        return
    pictures = answers.pictures.setdefault(found[1], [])
    if len(pictures) < 200:
        pictures.append(np.asarray(image.convert("RGB")).astype(int))


def compare(pictures: dict[str, list[np.ndarray]]) -> dict[str, int]:
    """Compare the pictures of one hash with each other, and those of different ones."""
    firsts = [some[0] for some in pictures.values()]
    same = [int(np.abs(one - some[0]).max()) for some in pictures.values() for one in some]
    other = [
        int(np.abs(one - two).max())
        for index, one in enumerate(firsts)
        for two in firsts[index + 1 :]
    ]
    return {
        "largest_difference_of_one_hash": max(same, default=0),
        "smallest_difference_of_two": min(other, default=0),
    }


def read_half_written(service: Running, place: Place, large_mb: int) -> dict[str, object]:
    """Let a large file grow with pauses; count what the worker reads until it is whole."""
    source = place.scratch / "large.safetensors"
    rank = 64
    write_lora(source, place.targets, LoraOptions(seed=99, rank=rank))
    rank = max(rank, int(rank * large_mb * 1e6 / source.stat().st_size))
    write_lora(source, place.targets, LoraOptions(seed=99, rank=rank))
    size = source.stat().st_size
    worker = psutil.Process(service.worker)
    time.sleep(PAUSE_S)
    before = worker.io_counters().read_chars
    target = place.folder / "large.safetensors"
    piece = size // PAUSES + 1
    with source.open("rb") as reader, target.open("wb") as writer:
        for index in range(PAUSES):
            writer.write(reader.read(piece))
            writer.flush()
            if index < PAUSES - 1:
                time.sleep(PAUSE_S)
        half = worker.io_counters().read_chars - before
    started = time.monotonic()
    while "large.safetensors: " not in service.log_file.read_text(encoding="utf-8"):
        if time.monotonic() - started > 300:
            break
        time.sleep(0.1)
    return {
        "large_mb": round(size / 1e6),
        "large_mb_read_while_half_written": round(half / 1e6, 1),
        "large_mb_read_in_all": round((worker.io_counters().read_chars - before) / 1e6, 1),
        "large_usable_after_s": round(time.monotonic() - started, 1),
    }


def judge(result: dict[str, Any]) -> str | None:
    """Return what is beyond the bars; None for nothing."""
    bars = {
        "wrong answers": result["wrong_count"] == 0,
        "tracebacks": result["tracebacks"] == 0,
        "statuses": set(result["answers"]) <= {"200", "400"},
        "pictures of one file": result["largest_difference_of_one_hash"] <= 1,
        "half-written": result["large_mb_read_while_half_written"] < result["large_mb"] / 10,
    }
    beyond = [name for name, is_good in bars.items() if not is_good]
    return f"beyond the bars: {', '.join(beyond)}" if beyond else None


if __name__ == "__main__":
    main()

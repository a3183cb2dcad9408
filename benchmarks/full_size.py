"""What does a checkpoint of SDXL's true size cost to import and to load?

Writes a random checkpoint (2,514 tensors, 6.94 GB in fp16), imports it with `model_import.py` as a
process of its own with the network off, then loads it with the engine and makes one step of one
64 x 64 image. Needs 15 GB of disk in --folder and takes minutes; everything is removed at the end.

    python benchmarks/full_size.py [--folder DIRECTORY]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mixed_load import HERE, surroundings

from lpw_sdxl.checkpoint.synthetic import SyntheticSize, write_checkpoint
from lpw_sdxl.engine import Engine
from lpw_sdxl.schema import GenerationRequest
from lpw_sdxl.settings import Settings


def private_gigabytes(process: int | str) -> float:
    """Memory of a process that is no mapping of a file, GB."""
    lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return int(fields.get("RssAnon", "0 kB").split()[0]) * 1024 / 1e9


def watched(command: list[str], environment: dict[str, str]) -> tuple[float, float, str]:
    """Run a command; seconds it took, its peak of private memory in GB, its last line."""
    started, peak = time.perf_counter(), 0.0
    with subprocess.Popen(
        command, env=environment, cwd=HERE.parent, stdout=subprocess.PIPE, text=True
    ) as process:
        while process.poll() is None:
            try:
                peak = max(peak, private_gigabytes(process.pid))
            except FileNotFoundError:
                break
            time.sleep(0.05)
        seconds = time.perf_counter() - started
        assert process.stdout is not None
        output = process.stdout.read()
    if process.returncode:
        sys.exit(f"{command} ended with {process.returncode}")
    return seconds, peak, output.split()[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    folder = Path(tempfile.mkdtemp(prefix="lpw-sdxl-full-", dir=parser.parse_args().folder))
    try:
        measure(folder)
    finally:
        shutil.rmtree(folder)


def measure(folder: Path) -> None:
    checkpoint = folder / "full.safetensors"
    print("writing 6.94 GB of random checkpoint ...")
    write_checkpoint(checkpoint, SyntheticSize.FULL)
    environment = os.environ | {
        "BENTOML_HOME": str(folder / "home"),
        "BENTOML_DO_NOT_TRACK": "True",
        "HF_HUB_OFFLINE": "1",
    }
    offline = ["unshare", "--net"] if os.geteuid() == 0 else []
    print("importing ...")
    script = [*offline, sys.executable, "model_import.py"]
    import_s, import_gb, tag = watched([*script, "checkpoint", str(checkpoint)], environment)
    size = checkpoint.stat().st_size
    checkpoint.unlink()
    print("verifying ...")
    verify_s, verify_gb, _ = watched([*script, "verify", tag], environment)
    print("loading ...")
    before = private_gigabytes("self")
    started = time.perf_counter()
    engine = Engine.load(folder / "home" / "models" / Path(*tag.split(":")), Settings())
    load_s, load_gb = time.perf_counter() - started, private_gigabytes("self") - before
    print("drawing ...")
    request = GenerationRequest(prompt="a", num_inference_steps=1, width=64, height=64, seed=0)
    started = time.perf_counter()
    image = asyncio.run(engine.generate(request))
    draw_s = time.perf_counter() - started
    engine.close()
    result = surroundings(engine.pipeline.device) | {
        "checkpoint_gb": round(size / 1e9, 2),
        "import_seconds": round(import_s, 1),
        "import_peak_private_gb": round(import_gb, 2),
        "verify_seconds": round(verify_s, 1),
        "verify_peak_private_gb": round(verify_gb, 2),
        "load_seconds": round(load_s, 1),
        "load_private_gb": round(load_gb, 2),
        "first_image_one_step_64x64_seconds": round(draw_s, 1),
        "first_image_levels": [int(image.pixels.min()), int(image.pixels.max())],
    }
    file = HERE / "results" / "full_size.json"
    file.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()

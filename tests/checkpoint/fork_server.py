"""Run as a process of its own: starts imports quickly, each as a fork that has all modules loaded.

Reads lines of JSON `{"words": […], "environment": {…}, "log": PATH}` from standard input, runs
`model_import.py` with these words in a fork each time, and answers `started PID`, then
`ended STATUS` (a negative one is the signal that ended it).
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def main() -> None:
    spec = importlib.util.spec_from_file_location("model_import", ROOT / "model_import.py")
    command_line = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(command_line)

    # What an import loads on its way. BentoML is left out: it reads its home when it is imported.
    import diffusers
    import transformers

    assert diffusers.StableDiffusionXLPipeline, transformers.CLIPTextModel
    from lpw_sdxl.checkpoint import skeleton, synthetic, tensors

    assert skeleton, (synthetic, tensors)
    for line in sys.stdin:
        order = json.loads(line)
        process = os.fork()
        if process == 0:
            run(command_line, order)
        say(f"started {process}")
        say(f"ended {os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])}")


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def run(command_line: object, order: dict[str, object]) -> None:
    status = 70
    try:
        os.environ.update(order["environment"])
        with open(order["log"], "w") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            status = command_line.main(order["words"])
            sys.stdout.flush()
            sys.stderr.flush()
    finally:
        os._exit(status)


if __name__ == "__main__":
    main()

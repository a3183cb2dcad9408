"""Run as a process of its own: runs model_import.py quickly, each time in a fork with all modules.

Reads lines of JSON `{"words": […], "environment": {…}, "output": PATH, "errors": PATH}` from
standard input, runs the command with these words, in that environment and no other, in a fork each
time, and answers `started PID`, then `ended STATUS` (a negative one is the signal that ended it).
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
Command = Callable[[list[str]], int]


def main() -> None:
    serve(load_command())


def load_command() -> Command:
    """Load model_import.py, which is in no package, and give what it runs."""
    spec = importlib.util.spec_from_file_location("model_import", ROOT / "model_import.py")
    command_line = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(command_line)
    return command_line.main


def serve(command: Command) -> None:
    """Load what a command does on its way, then run it for each order."""
    # BentoML is left out: it reads its home when it is imported.
    import diffusers
    import transformers

    assert diffusers.StableDiffusionXLPipeline, transformers.CLIPTextModel
    from lpw_sdxl.checkpoint import configs, skeleton
    from lpw_sdxl.weights import tensors

    assert configs, (skeleton, tensors)
    for line in sys.stdin:
        order = json.loads(line)
        process = os.fork()
        if process == 0:
            run(command, order)
        say(f"started {process}")
        say(f"ended {os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])}")


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def run(command: Command, order: dict[str, object]) -> None:
    status = 70
    try:
        os.environ.clear()
        os.environ.update(order["environment"])
        for descriptor, path in ((1, order["output"]), (2, order["errors"])):
            with open(path, "a") as file:
                os.dup2(file.fileno(), descriptor)
        status = command(order["words"])
    except SystemExit as exit_:  # words that argparse can't understand
        status = exit_.code
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    main()

"""Run as a process of its own: starts scripts with `--help`, each in a fork with all modules.

Its arguments are the scripts. It writes a line of JSON `[FILE, STATUS, OUTPUT]` for each, with what
the script wrote to both streams.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import tempfile
import traceback
from pathlib import Path
from typing import BinaryIO, NoReturn


def main(files: list[str]) -> None:
    # What most of them import; it would take each of them seconds.
    import diffusers
    import httpx

    from lpw_sdxl import engine

    assert diffusers.StableDiffusionXLPipeline, (httpx, engine.Engine)
    for file in files:
        with tempfile.TemporaryFile() as output:
            process = os.fork()
            if process == 0:
                ask_for_help(file, output)
            _, status = os.waitpid(process, 0)
            output.seek(0)
            told = [file, os.waitstatus_to_exitcode(status), output.read().decode()]
        sys.stdout.write(f"{json.dumps(told)}\n")
        sys.stdout.flush()  # or the next fork would write it too


def ask_for_help(file: str, output: BinaryIO) -> NoReturn:
    """Become `python FILE --help`, and end with its status; Python's own end takes a second."""
    for descriptor in (1, 2):
        os.dup2(output.fileno(), descriptor)
    sys.path[0] = str(Path(file).parent)
    sys.argv = [file, "--help"]
    status = 1
    try:
        runpy.run_path(file, run_name="__main__")
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except Exception:  # noqa: BLE001 - told as Python tells it
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    main(sys.argv[1:])

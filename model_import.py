"""The command line of the import: checkpoints into BentoML's model store, and what is there.

Exit status 0 with the model's tag as the last line of standard output; 1 with one sentence on
standard error; 2 for a command that can't be understood.
"""

from __future__ import annotations

import argparse
import signal
import sys
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from lpw_sdxl.checkpoint.dtypes import CheckpointDtype
from lpw_sdxl.errors import CheckpointError, LpwSdxlError

NOISE_NOTE = (
    "The demo model is random: it shows that everything works, and its pictures are noise. "
    "Import a real one with: python model_import.py checkpoint FILE"
)


def main() -> int:
    """Run one command and return the exit status."""
    signal.signal(signal.SIGTERM, _interrupt)
    arguments = _parser().parse_args()
    try:
        print(COMMANDS[arguments.command](arguments))
    except LpwSdxlError as error:
        print(f"model_import: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"model_import: {error.strerror}: {error.filename}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("model_import: stopped; the store is as it was.", file=sys.stderr)
        return 1
    return 0

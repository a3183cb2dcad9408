"""The import's command line in a checkout; `python -m lpw_sdxl` is the same one anywhere."""

from lpw_sdxl.importing.command_line import main, run
from lpw_sdxl.store.command import SCRIPT

__all__ = ["main"]

if __name__ == "__main__":
    run(SCRIPT)

"""`python -m lpw_sdxl`: the import's command line, which images and bentos hold too."""

from __future__ import annotations

from lpw_sdxl.importing.command_line import run
from lpw_sdxl.store.command import MODULE


def main() -> None:
    """Run the command of the script `lpw-sdxl`."""
    run("lpw-sdxl")


if __name__ == "__main__":
    run(MODULE)

"""The import's command as it is written where this package is: a checkout, a bento, or an image.

An error that names the command names the one that is there.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from lpw_sdxl.settings import is_in_container

SCRIPT = "model_import.py"
MODULE = "python -m lpw_sdxl"


def import_command(words: str = "", package: Path = Path(__file__).parents[1]) -> str:
    """Return the import's command with these words behind it.

    Args:
        words: such as `checkpoint FILE`.
        package: the package's folder.
    """
    return f"{_command(package)} {words}".rstrip()


def serve_command(tag: str, package: Path = Path(__file__).parents[1]) -> str:
    """Return how a model is served here; the arguments are as in `import_command`."""
    if is_checkout(package):
        return f"make serve MODEL={tag}"
    return f"LPW_SDXL_MODEL={tag} in the service's environment"


def is_checkout(package: Path = Path(__file__).parents[1]) -> bool:
    """Return whether the package is part of a clone of the repository."""
    return (package.parents[1] / SCRIPT).is_file()


def _command(package: Path) -> str:
    if is_checkout(package):
        return f"python {SCRIPT}"
    sources = package.parent
    # An image has its bento's sources on Python's path; on a machine they are in a bento's folder.
    if (sources.parent / "bento.yaml").is_file() and not is_in_container():
        return f"PYTHONPATH={shlex.quote(str(sources))} {MODULE}"
    return MODULE

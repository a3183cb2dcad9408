"""The start of our image on RunPod: find the volume, import its model once, and serve.

    python -m deploy.runpod.start              what the place asks for: a queue worker, or HTTP
    python -m deploy.runpod.start queue ...    a queue worker; options of RunPod's package follow
    python -m deploy.runpod.start http         HTTP: a load-balancing endpoint, or a pod
    python -m deploy.runpod.start COMMAND ...  any other command, such as bash

An owner sets environment variables and nothing else. What is set stays; the rest is found.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from deploy.runpod.model import Places, Wish, choose_model
from deploy.runpod.volume import STORE, find_addon_folders, find_volume
from lpw_sdxl.doors.runpod.settings import HTTP, QUEUE, StartSettings
from lpw_sdxl.errors import LpwSdxlError
from lpw_sdxl.settings import Settings, read_settings

DEFAULT_PORT = 3000
LOG_LINE = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_OPTIONS = ("--rp_", "--test_input")  # of RunPod's package

logger = logging.getLogger("lpw_sdxl.runpod")


def main(words: Sequence[str]) -> None:
    """Find what is not set, and become the server."""
    logging.basicConfig(level=logging.INFO, format=LOG_LINE)
    # Without a handler the first process of a container ignores it, and an import would go on.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        settings = read_settings(StartSettings)
        command = choose_command(words, settings)
        found = find_variables(settings, read_settings(Settings), find_volume(), words=words)
    except LpwSdxlError as error:
        sys.exit(f"lpw-sdxl: {error}")
    for name, value in found.items():
        logger.info("%s=%s", name, value)
    os.execvpe(command[0], command, {**os.environ, **found})  # noqa: S606 - in its own place


def is_server(words: Sequence[str]) -> bool:
    """Return whether a command line is one of a server, and of no other command."""
    return not words or words[0] in (QUEUE, HTTP) or words[0].startswith(_OPTIONS)


def choose_command(words: Sequence[str], settings: StartSettings) -> list[str]:
    """Return the command to become.

    Args:
        words: of this program's own command line.
        settings: decide where there are none.
    """
    if not is_server(words):
        return [*words]
    kind, rest = (words[0], [*words[1:]]) if words else (settings.kind, [])
    if kind.startswith(_OPTIONS):
        kind, rest = QUEUE, [*words]
    if kind == QUEUE:
        return [sys.executable, "-m", "lpw_sdxl.doors.runpod", *rest]
    port = str(settings.port or DEFAULT_PORT)
    where = ["--host", "0.0.0.0", "--port", port]  # noqa: S104 - of a container
    return [sys.executable, "-m", "bentoml", "serve", "service:LpwSdxl", *where, *rest]


def find_variables(
    settings: StartSettings, service: Settings, volume: Path | None, *, words: Sequence[str]
) -> dict[str, str]:
    """Return the variables that are to be set; a server's model is imported first.

    Raises:
        LpwSdxlError: as `choose_model`.
    """
    found = _find_folders(service, volume)
    store = service.store or (volume / STORE if volume else None)
    tag = ""
    if is_server(words):
        places = Places(settings.bentoml_home, store, volume)
        tag = choose_model(Wish(service.model, settings.checkpoint), places)
    if store is not None and (store.is_dir() or not is_server(words)):
        found["LPW_SDXL_STORE"] = str(store)
    if tag:
        found["LPW_SDXL_MODEL"] = tag
    return found


def _find_folders(service: Settings, volume: Path | None) -> dict[str, str]:
    """Return the folders of add-ons that no setting names."""
    if volume is None:
        return {}
    named: Mapping[str, Path | None] = {
        "LPW_SDXL_LORA_DIR": service.lora_dir,
        "LPW_SDXL_EMBEDDING_DIR": service.embedding_dir,
        "LPW_SDXL_UPSCALER_DIR": service.upscaler_dir,
    }
    return {name: path for name, path in find_addon_folders(volume).items() if not named[name]}


if __name__ == "__main__":
    main(sys.argv[1:])

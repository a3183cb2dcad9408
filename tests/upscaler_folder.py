"""Engines whose requests can name imported upscalers, from a folder."""

from __future__ import annotations

import time
from pathlib import Path

from safetensors.torch import save_file

from lpw_sdxl.addon.installed import open_catalogue
from lpw_sdxl.addon.served import AddonPlaces
from lpw_sdxl.engine import Engine
from lpw_sdxl.second_pass import Upscaler
from lpw_sdxl.settings import Settings
from tests.forge.upscalers import EsrganRecipe

SCALES = {"two-times": EsrganRecipe(doublings=1), "four-times": EsrganRecipe(doublings=2)}
"""Imported upscalers by their names."""


def write_upscalers(folder: Path) -> None:
    """Write those upscalers, and a file that is none."""
    for name, recipe in SCALES.items():
        save_file(recipe.tensors(), folder / f"{name}.safetensors")
    (folder / "broken.safetensors").write_bytes(b"x")


def load_with_upscalers(model_directory: Path, folder: Path, **settings: object) -> Engine:
    """Load an engine with the upscalers of a folder, and wait until they are read."""
    addons = open_catalogue(model_directory, AddonPlaces(upscaler_folder=folder))
    chosen = Settings.model_validate({"device": "cpu"} | settings)
    loaded = Engine.load(model_directory, chosen, addons=addons)
    started = time.monotonic()
    while len(loaded.describe().upscalers) < len(Upscaler) + len(SCALES):
        assert time.monotonic() < started + 60
        time.sleep(0.02)
    return loaded

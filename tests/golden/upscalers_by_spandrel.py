"""What spandrel's networks make of the random upscalers of tests/forge/upscalers.py.

Run it from the repository in an environment with torch, safetensors, einops and spandrel, and no
LPW-SDXL: `PYTHONPATH=.:STUB python tests/golden/upscalers_by_spandrel.py`. spandrel imports
torchvision for networks that are not asked for; STUB is a folder with a module of that name whose
`transforms.functional` has InterpolationMode, normalize and rotate.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.forge.upscalers import CASES, picture

HEIGHT, WIDTH = 6, 5
"""Pixels; no multiples of four, so that pixels are unshuffled with a mirrored edge."""


def main() -> None:
    """Write `upscalers.safetensors` beside this file: `[3, scale * 6, scale * 5]` by case."""
    from spandrel import ModelLoader

    results = {}
    for name, recipe in CASES.items():
        model = ModelLoader().load_from_state_dict(recipe.tensors())
        with torch.inference_mode():
            # Not through the descriptor, which cuts what is below 0 or above 1.
            results[name] = model.model.eval()(picture(HEIGHT, WIDTH)[None])[0].contiguous()
        sys.stdout.write(f"{name}: {model.architecture.id}, scale {model.scale}\n")
    save_file(results, Path(__file__).with_name("upscalers.safetensors"))


if __name__ == "__main__":
    main()

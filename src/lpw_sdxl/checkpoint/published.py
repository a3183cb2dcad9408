"""The configuration files that were published with SDXL base 1.0, as `assets/configs` has them."""

from __future__ import annotations

import json
from importlib.resources import files

Config = dict[str, object]


def read_config(name: str) -> Config:
    """Read one of SDXL base 1.0's files.

    `_diffusers_version` is the version whose layout the files follow: Diffusers mends files that
    name an old one. The text encoders have CLIP's old token ids, as SDXL ships them: Transformers
    reads an `eos_token_id` of 2 as "pool at the highest id". The VAE has `force_upcast`, because it
    overflows in float16.
    """
    path = files("lpw_sdxl.checkpoint") / "assets" / "configs" / f"{name}.json"
    config: Config = json.loads(path.read_bytes())
    return config

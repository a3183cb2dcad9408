"""A case: a text, the request that it is read as, and what the request leaves out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lpw_sdxl.parameters import Offered
from lpw_sdxl.request_limits import RequestLimits
from lpw_sdxl.settings import Settings

OFFERED = Offered(
    "sdxl",
    "0a1b2c3d4e" + "5f" * 27,
    loras={"detail": "aabbccddee" + "00" * 27, "Ink Style": "1122334455" + "00" * 27},
    embeddings={"badhands": "ff" * 32},
    model_file="moonlightXL_v20.safetensors",
)
LIMITS = RequestLimits.from_settings(Settings())
MODEL = "Model hash: 0a1b2c3d4e, Model: moonlightXL_v20"
# What A1111 leaves unsaid: its family of samplers, an NVIDIA card's noise, its default emphasis.
A1111: Mapping[str, Any] = {
    "sampler_implementation": "k_diffusion",
    "noise_source": "nv",
    "prompt_style": "a1111-original",
}
FORGE: Mapping[str, Any] = {**A1111, "timestep_rounding": "nearest"}
# Of most texts here.
USUAL: Mapping[str, Any] = {
    "num_inference_steps": 20,
    "guidance_scale": 7.0,
    "seed": 1234,
    "width": 832,
    "height": 1216,
    "scheduler": "Euler a",
}
USUAL_PAIRS = "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1234, Size: 832x1216"


@dataclass(frozen=True)
class Case:
    """A text and what is right to read of it.

    Attributes:
        name: of what the text shows.
        text: as a program wrote it, or as a page shows it.
        fields: of the request: the prompt, and those that differ from their defaults.
        missed: names of what is not honoured, in order.
        values: of them; None where they are not compared.
    """

    name: str
    text: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    missed: Sequence[str] = ()
    values: Sequence[str] | None = None


def drawn(prompt: str, negative_prompt: str = "", **fields: object) -> dict[str, Any]:
    """Build the fields of a usual text of A1111; None takes one away."""
    prompts = {
        "prompt": prompt,
        **({"negative_prompt": negative_prompt} if negative_prompt else {}),
    }
    all_fields = {**A1111, **USUAL, **prompts, **fields}
    return {name: value for name, value in all_fields.items() if value is not None}

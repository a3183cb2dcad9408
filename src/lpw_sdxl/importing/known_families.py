"""Families of checkpoints that want other settings than SDXL's own, and what their makers ask for.

A suggestion alone: names are no proof. The values are of each family's own page, and where that has
a range, of its middle; they were not tried here, for want of the models.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Family:
    """A family of checkpoints.

    Attributes:
        name: as people write it.
        pattern: of words in the names of its members.
        defaults: fields of a request, and their values.
        source: where these are from.
    """

    name: str
    pattern: str
    defaults: Mapping[str, str | float]
    source: str


_FEW_STEPS: dict[str, str | float] = {"guidance_scale": 1.0, "schedule_type": "trailing"}
# A model is often of two families: a few-step one, whose settings count, and that of its pictures.
FAMILIES: tuple[Family, ...] = (
    Family(
        "DMD2",
        r"dmd ?2|\bdmd\b",
        {"num_inference_steps": 4, "scheduler": "LCM", **_FEW_STEPS},
        "the page of tianweiy/DMD2",
    ),
    Family(
        "Lightning",
        r"lightning",
        {"num_inference_steps": 4, "scheduler": "Euler", **_FEW_STEPS},
        "the page of ByteDance/SDXL-Lightning",
    ),
    Family(
        "Hyper-SD",
        r"\bhyper ?(sd|xl|\d|\b)",
        {"num_inference_steps": 8, "scheduler": "DDIM", **_FEW_STEPS},
        "the page of ByteDance/Hyper-SD",
    ),
    Family(
        "Turbo",
        r"turbo",
        {"num_inference_steps": 4, "scheduler": "Euler a", **_FEW_STEPS},
        "the page of stabilityai/sdxl-turbo",
    ),
    Family(
        "LCM",
        r"\blcm\b",
        {"num_inference_steps": 6, "scheduler": "LCM", "guidance_scale": 1.5},
        "the page of latent-consistency/lcm-lora-sdxl",
    ),
    Family(
        "NoobAI V-Pred",
        r"noob ?(ai)?.*\bv ?pred",
        {"num_inference_steps": 30, "guidance_scale": 4.5, "scheduler": "Euler"},
        "the page of Laxhar/noobai-XL-Vpred-1.0",
    ),
    Family(
        "NoobAI",
        r"noob ?ai|\bnoob\b",
        {
            "num_inference_steps": 30,
            "guidance_scale": 5.5,
            "scheduler": "Euler a",
            "negative_prompt": "worst quality, old, early, low quality, lowres",
        },
        "the page of Laxhar/noobai-XL-1.1",
    ),
    Family(
        "Illustrious",
        r"illustrious|\bilxl\b|\bil xl\b",
        {
            "num_inference_steps": 24,
            "guidance_scale": 6.0,
            "scheduler": "Euler a",
            "negative_prompt": "worst quality, bad quality, low quality, lowres",
        },
        "the page of OnomaAIResearch/Illustrious-xl-early-release-v0",
    ),
    Family(
        "Pony",
        r"pony|\bpdxl\b",
        {"num_inference_steps": 25, "scheduler": "Euler a"},
        "the page of Pony Diffusion V6 XL (its clip skip 2 is what SDXL always has here)",
    ),
)
V_PREDICTION = Family(
    "v-prediction",
    "",
    {"guidance_rescale": 0.7},
    "Lin et al., 2023, section 3.4",
)
_STEPS = re.compile(r"\b([1-9]\d?) ?steps?\b")
_SIGNS = re.compile(r"[\W_]+")


def find_family(texts: Iterable[str], prediction_type: str = "epsilon") -> Family | None:
    """Find the family that a model's names speak of, with the steps that they state, if any.

    Args:
        texts: names of the model and of its file, and its base model.
        prediction_type: Diffusers' name of what its UNet predicts.
    """
    words = " | ".join(_SIGNS.sub(" ", _split_case(text)).lower() for text in texts)
    for family in FAMILIES:
        if re.search(family.pattern, words):
            steps = _STEPS.search(words)
            if steps is None or "schedule_type" not in family.defaults:
                return family
            stated = {"num_inference_steps": int(steps.group(1))}
            return replace(family, defaults={**family.defaults, **stated})
    return V_PREDICTION if prediction_type == "v_prediction" else None


def _split_case(text: str) -> str:
    """Put a blank between words that only a capital letter divides."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text)

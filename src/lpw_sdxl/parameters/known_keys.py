"""The keys of A1111's layout: those that are read, and why others can't be honoured.

The keys of a second pass are in `hires.py` alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

READ = frozenset(
    {
        "steps", "sampler", "schedule type", "cfg scale", "seed", "size", "clip skip", "model hash",
        "model", "version", "app", "rng", "ensd", "eta", "eta ddim", "variation seed",
        "variation seed strength", "emphasis", "cfg rescale", "cfg interval", "prompt style",
        "sampler implementation", "timestep rounding", "lora hashes", "ti hashes", "ti", "hashes",
        "civitai resources", "sampler sigma", "seed resize from",
    }
)  # fmt: skip
"""Keys that a part of this folder reads."""

WITHOUT_EFFECT = frozenset(
    {
        "batch size", "batch pos", "user", "created date", "date", "date time", "civitai metadata",
        "backend", "pipeline", "operations", "operation", "index", "mask hash", "styles", "time",
        "template", "negative template", "upscaler", "cache fp16 weight for lora",
    }
)  # fmt: skip
"""Keys that don't change a picture made from a text, or only repeat what it has."""

OFF = frozenset({"", "0", "0.0", "false", "none", "off", "default", "disable", "disabled"})
"""Values, in lower case, that switch off what a key of `LOST` names."""


@dataclass(frozen=True)
class KeyGroup:
    """Keys of one feature, named together.

    Attributes:
        name: of the feature.
        beginnings: of its keys in their plain form.
        reason: why it is not honoured, and what would be right.
    """

    name: str
    beginnings: tuple[str, ...]
    reason: str


GROUPS: tuple[KeyGroup, ...] = (
    KeyGroup(
        "ADetailer",
        ("adetailer", "ddetailer"),
        "Faces and hands are not found and painted again here; /generate with image, mask_image and"
        " only_masked repaints one part.",
    ),
    KeyGroup(
        "ControlNet",
        ("controlnet", "control net", "control mode", "control model"),
        "ControlNet is not served; the picture will follow the prompt alone.",
    ),
    KeyGroup(
        "Refiner",
        ("refiner",),
        "One model makes all steps here, and no other takes over.",
    ),
    KeyGroup(
        "VAE",
        ("vae", "module "),
        "The VAE is the served model's own; an import with --vae FILE has another.",
    ),
    KeyGroup(
        "Hypernetwork", ("hypernet",), "Hypernetworks are not served; LoRAs are, as tags."
    ),
    KeyGroup(
        "Additional networks",
        ("addnet", "lora networks"),
        "LoRAs are named by tags of the prompt here, such as <lora:name:0.8>, or in loras.",
    ),
    KeyGroup(
        "Regional Prompter",
        ("rp ", "regional prompter"),
        "A prompt holds for the whole picture here.",
    ),
    KeyGroup(
        "Dynamic thresholding",
        (
            "dynamic thresholding", "dynthres", "mimic", "threshold percentile", "cfg mode",
            "cfg scale scheduler", "cfg scale minimum", "cfg scheduler", "interpolate phi",
            "separate feature channels", "scaling startpoint", "variability measure",
        ),
        "Guidance is not thresholded here; guidance_rescale restores contrast in another way.",
    ),
    KeyGroup("FreeU", ("freeu",), "The UNet's features are not weighed here."),
    KeyGroup("HyperTile", ("hypertile", "tiled ", "multidiffusion"), "Nothing is tiled here."),
    KeyGroup(
        "Other guidance",
        ("sag ", "pag ", "perturbed", "slg ", "seg ", "cads", "apg "),
        "Guidance by a second kind of prediction is not done here.",
    ),
    KeyGroup(
        "Upscaling",
        ("sd upscale", "ultimate sd upscale", "postprocess", "extras ", "kohya", "deepshrink"),
        "The picture was made larger by a step that is not done here.",
    ),
    KeyGroup(
        "Noise in a sampler",
        ("sigma churn", "sigma tmin", "sigma tmax", "sigma noise"),
        "The samplers are served with A1111's defaults: no churn, and a noise factor of 1.",
    ),
    KeyGroup(
        "Bounds of a schedule",
        ("schedule max sigma", "schedule min sigma", "schedule rho", "beta schedule"),
        "Schedules are served with A1111's defaults.",
    ),
    KeyGroup(
        "UniPC", ("unipc ",), "UniPC is served as A1111's default: bh1, time_uniform, order 3."
    ),
)  # fmt: skip

LOST: Mapping[str, str] = {
    "face restoration": "Faces are not restored here.",
    "tiling": "The picture's edges are not joined here.",
    "script": "Scripts are not run; each picture of a grid is a request of its own.",
    "skip early cfg": "Guidance is left out of a share of the steps by guidance_interval, whose"
    " bound differs by one step; [this value, 1] is near.",
    "ngms": "The negative prompt is left out by steps here (guidance_interval), not by sigma.",
    "ngms all steps": "The negative prompt is not left out below a sigma here.",
    "token merging ratio": "Tokens are not merged here.",
    "token merging ratio hr": "Tokens are not merged here.",
    "pad conds": "Prompt and negative prompt keep their own lengths here.",
    "pad conds v0": "Prompt and negative prompt keep their own lengths here.",
    "noise schedule": "A model's noise schedule is fixed by its import; /info has it as"
    " zero_terminal_snr.",
    "sgm noise multiplier": "The start is the noise times the first sigma here.",
    "discard penultimate sigma": "Only the samplers that A1111 does it for by default leave a sigma"
    " out.",
    "dpm++ 2m solver": "DPM++ 2M SDE is served with the midpoint; DPM++ 2M SDE Heun has the other.",
    "dpm++ sde r": "DPM++ SDE is served with r = 0.5.",
    "fp8 weight": "Weights are served in the precision of the import; roundings will differ.",
    "unet precision": "LPW_SDXL_PRECISION of the server decides it, for all requests; /info has it"
    " as memory.precision.",
    "downcast alphas cumprod": "The noise schedule is computed in full precision here.",
    "upcast sampler calculations": "Samplers compute in float32 here.",
    "old prompt editing timelines": "Steps of a prompt are counted as A1111 does since 1.6.",
    "use old karras scheduler sigmas": "Karras' sigmas span the model's own range here.",
    "distilled cfg scale": "It belongs to models such as Flux; SDXL has guidance_scale alone.",
    "image cfg scale": "It belongs to models that edit pictures.",
    "cfg end": "Guidance ends at a share of the steps; guidance_interval [0, this value] is near.",
    "parser": "A prompt is read as A1111 reads it; prompt_style has the other ways.",
    "restart scheduler": "It is not served.",
    "extra noise": "A picture to start from gets no other noise than the sampler's first here.",
    "conditional mask weight": "An inpainting model sees its mask in full here.",
    "inpainting conditioning mask strength": "An inpainting model sees its mask in full here.",
}
"""Keys that change a picture and are not honoured, by their plain form, and why."""

PICTURE_KEYS: Mapping[str, str] = {
    "denoising strength": "strength",
    "mask blur": "mask_blur",
    "inpaint area": "only_masked",
    "masked area padding": "only_masked_padding",
    "masked content": "masked_content",
    "mask mode": "invert_mask",
    "resize mode": "resize_mode",
    "noise multiplier": "",
    "init image hash": "",
    "init image size": "",
}
"""Keys about a picture that the text does not have, and the fields that would take them."""

HIRES_BEGINNINGS = ("hires ", "first pass size")  # the other one is of A1111 before its 1.0


def find_group(key: str) -> KeyGroup | None:
    """Find the group of a plain key."""
    return next((group for group in GROUPS if key.startswith(group.beginnings)), None)


def is_known(key: str) -> bool:
    """Return whether a plain key is one of the layout's."""
    return (
        key in READ
        or key in WITHOUT_EFFECT
        or key in LOST
        or key in PICTURE_KEYS
        or key.startswith(HIRES_BEGINNINGS)
        or find_group(key) is not None
    )

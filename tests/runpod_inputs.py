"""Inputs of jobs as clients of the first version sent them: what each means, or what is refused.

A meaning is the fields of our request beyond the prompt, of each image.
"""

from __future__ import annotations

from typing import Any, NamedTuple

Meaning = dict[str, Any]
K_DIFFUSION = "k_diffusion"


class OldInput(NamedTuple):
    """An input with `prompt` "a fox", if it has none of its own.

    Attributes:
        fields: beside the prompt.
        meaning: of its images; None where it is refused.
        field: that is refused, as the client named it.
        words: in the refusal.
    """

    fields: dict[str, Any]
    meaning: list[Meaning] | None = None
    field: str | None = None
    words: str = ""

    @property
    def input(self) -> dict[str, Any]:
        return {"prompt": "a fox", **self.fields}


def drawn(fields: dict[str, Any], *meaning: Meaning) -> OldInput:
    return OldInput(fields, [*meaning] or [{}])


def refused(fields: dict[str, Any], field: str, words: str) -> OldInput:
    return OldInput(fields, None, field, words)


OLD_INPUTS = {
    # Plain ones.
    "prompt alone": drawn({}),
    "negative prompt": drawn({"negative_prompt": "blurry"}, {"negative_prompt": "blurry"}),
    "empty negative prompt": drawn({"negative_prompt": ""}),
    "null is absent": drawn({"negative_prompt": None, "seed": None, "batch_size": None}),
    "steps": drawn({"steps": 4}, {"num_inference_steps": 4}),
    "our steps": drawn({"num_inference_steps": 4}, {"num_inference_steps": 4}),
    "steps twice and the same": drawn(
        {"steps": 4, "num_inference_steps": 4}, {"num_inference_steps": 4}
    ),
    "steps as a text": drawn({"steps": "4"}, {"num_inference_steps": 4}),
    "steps as a float": drawn({"steps": 4.0}, {"num_inference_steps": 4}),
    "cfg_scale": drawn({"cfg_scale": 7}, {"guidance_scale": 7.0}),
    "our guidance": drawn({"guidance_scale": 7.5}, {"guidance_scale": 7.5}),
    "size": drawn({"width": 64, "height": 96}, {"width": 64, "height": 96}),
    "seed": drawn({"seed": 42}, {"seed": 42}),
    "seed -1 is a random one": drawn({"seed": -1}),
    "a large seed": drawn({"seed": 2**63}, {"seed": 2**63}),
    # Samplers.
    "sampler_name": drawn({"sampler_name": "Euler a"}, {"scheduler": "Euler a"}),
    "scheduler": drawn({"scheduler": "DPM++ 2M Karras"}, {"scheduler": "DPM++ 2M Karras"}),
    "a class of Diffusers'": drawn(
        {"scheduler": "EulerAncestralDiscreteScheduler"}, {"scheduler": "Euler a"}
    ),
    "k_euler": drawn({"scheduler": "K_EULER"}, {"scheduler": "Euler"}),
    "small letters": drawn({"sampler_name": "dpmpp_2m_sde"}, {"scheduler": "DPM++ 2M SDE"}),
    "sampler and schedule type": drawn(
        {"sampler_name": "DPM++ 2M", "scheduler": "karras"}, {"scheduler": "DPM++ 2M Karras"}
    ),
    "one that A1111 alone has": drawn(
        {"sampler_name": "DPM2 a"}, {"scheduler": "DPM2 a", "sampler_implementation": K_DIFFUSION}
    ),
    "automatic": drawn({"sampler_name": "Automatic"}),
    # Several images.
    "batch_size": drawn(
        {"batch_size": 3, "seed": 5}, {"seed": 5}, {"seed": 6}, {"seed": 7}
    ),
    "num_images": drawn({"num_images": 2, "seed": 5}, {"seed": 5}, {"seed": 6}),
    "one image": drawn({"num_images": 1, "seed": 5}, {"seed": 5}),
    "several of random seeds": drawn({"batch_size": 2, "seed": -1}, {}, {}),
    # LoRAs.
    "lora by path": drawn(
        {"loras": [{"path": "/runpod-volume/loras/ink.safetensors", "scale": 0.5}]},
        {"loras": [{"name": "ink", "weight": 0.5}]},
    ),
    "lora by name and weight": drawn(
        {"loras": [{"name": "ink", "weight": 0.5}]}, {"loras": [{"name": "ink", "weight": 0.5}]}
    ),
    "lora by name and scale": drawn(
        {"loras": [{"name": "ink", "scale": -0.5}]}, {"loras": [{"name": "ink", "weight": -0.5}]}
    ),
    "loras by their names": drawn(
        {"loras": ["ink", "gold"]},
        {"loras": [{"name": "ink", "weight": 1.0}, {"name": "gold", "weight": 1.0}]},
    ),
    "a lora by a path with weight": drawn(
        {"loras": [{"path": "gold.safetensors", "weight": 0.8}]},
        {"loras": [{"name": "gold", "weight": 0.8}]},
    ),
    "no loras": drawn({"loras": []}),
    # All at once, as a whole client sends it.
    "everything": drawn(
        {
            "negative_prompt": "blurry", "steps": 3, "cfg_scale": 6.5, "width": 64, "height": 64,
            "seed": 9, "sampler_name": "DDIM", "batch_size": 2, "loras": ["ink"],
        },
        *(
            {
                "negative_prompt": "blurry", "num_inference_steps": 3, "guidance_scale": 6.5,
                "width": 64, "height": 64, "seed": seed, "scheduler": "DDIM",
                "loras": [{"name": "ink", "weight": 1.0}],
            }
            for seed in (9, 10)
        ),
    ),
    # Refused, each by the name that the client knows.
    "prompt is a number": refused({"prompt": 5}, "prompt", "a string would be right"),
    "no prompt": refused({"prompt": None}, "prompt", "prompt is missing"),
    "no steps": refused({"steps": 0}, "steps", "steps is 0; at least 1"),
    "too many steps": refused({"steps": 9999}, "steps", "steps is 9999"),
    "steps twice": refused(
        {"steps": 4, "num_inference_steps": 5}, "num_inference_steps", "one of them"
    ),
    "cfg_scale is no number": refused({"cfg_scale": "high"}, "cfg_scale", "cfg_scale"),
    "cfg_scale is not finite": refused({"cfg_scale": float("nan")}, "cfg_scale", "cfg_scale"),
    "an odd width": refused({"width": 100}, "width", "width is 100; a multiple of 8"),
    "too high": refused({"height": 65536}, "height", "height is 65536"),
    "an unknown sampler": refused({"sampler_name": "Eulerian"}, "sampler_name", "known are"),
    "an unknown scheduler": refused({"scheduler": "PNDM"}, "scheduler", "known are"),
    "a sampler that is no text": refused({"sampler_name": 3}, "sampler_name", "no text"),
    "an unknown schedule type": refused(
        {"sampler_name": "Euler", "scheduler": "quadratic"}, "scheduler", "scheduler"
    ),
    "a seed below -1": refused({"seed": -2}, "seed", "seed is -2"),
    "no images": refused({"batch_size": 0}, "batch_size", "batch_size is 0"),
    "too many images": refused({"num_images": 1000}, "num_images", "at most 64"),
    "a lora without a name": refused({"loras": [{"scale": 1}]}, "loras", "without a name"),
    "a lora that is a number": refused({"loras": [3]}, "loras", "no LoRA"),
    "a lora's weight": refused(
        {"loras": [{"name": "ink", "scale": 99}]}, "loras.0.weight", "at most 10"
    ),
    "an unknown field": refused({"refiner_steps": 5}, "refiner_steps", "is not a field of input"),
    "a misspelt field": refused({"negative_promt": "x"}, "negative_promt", "negative_prompt?"),
    "a picture by its address": refused(
        {"image": "https://example.org/a.png"}, "image", "is a URL"
    ),
    "a strength without a picture": refused(
        {"denoising_strength": 0.5}, "denoising_strength", "missing"
    ),
}  # fmt: skip

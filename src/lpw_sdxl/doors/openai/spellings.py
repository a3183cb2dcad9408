"""The fields of a request that are beyond OpenAI's, by all their spellings."""

from __future__ import annotations

from collections.abc import Mapping

from lpw_sdxl.schema import GenerationRequest

SPELLINGS: Mapping[str, tuple[str, ...]] = {
    "negative_prompt": ("negative_prompt", "negativePrompt"),
    "seed": ("seed",),
    "num_inference_steps": ("num_inference_steps", "steps", "step", "numInferenceSteps"),
    "guidance_scale": (
        *("guidance_scale", "guidance", "cfg_scale", "cfg", "guidanceScale"),
        *("cfgScale", "true_cfg_scale"),
    ),
    "width": ("width",),
    "height": ("height",),
    "sampler": ("sampler", "sampler_name", "samplerName", "sample_method"),
    "scheduler": ("scheduler",),
    "schedule_type": ("schedule_type",),
    "sampler_implementation": ("sampler_implementation",),
    "strength": ("strength", "denoising_strength", "image_strength", "denoise"),
    "loras": ("loras", "lora"),
}
"""Spellings of each field in their order: the first that is there counts."""

PASSED_ON = tuple(
    name
    for name in GenerationRequest.model_fields
    if name not in (*SPELLINGS, "prompt", "image", "mask_image", "image_format")
)
"""Fields of our own request that are taken by their own names."""

OPTION_SPELLINGS: Mapping[str, tuple[str, ...]] = {
    "n": ("n", "batch_size", "num_images", "num_images_per_prompt"),
    "size": ("size", "image_size"),
    "aspect_ratio": ("aspect_ratio", "aspectRatio"),
    "output_format": ("output_format", "image_format"),
}
"""Spellings of OpenAI's own fields, and of a size by its ratio, likewise."""

OPENAI_FIELDS = (
    *("prompt", "model", "n", "size", "quality", "output_format", "output_compression"),
    *("background", "response_format", "stream", "partial_images"),
    *("image", "images", "url", "mask"),
)
"""Fields of OpenAI's that have an effect here."""

WITHOUT_EFFECT = (
    *("user", "style", "moderation", "safety_identifier", "input_fidelity"),
    *("generator_device", "complexity", "frame_count", "frame_duration_ms"),
    *("vae_use_slicing", "vae_use_tiling", "enable_teacache", "output_quality"),
)
"""Fields that clients send by habit, and whose absence from the picture surprises no user."""

KNOWN = frozenset(
    (
        *OPENAI_FIELDS,
        *WITHOUT_EFFECT,
        *PASSED_ON,
        *(
            one
            for table in (SPELLINGS, OPTION_SPELLINGS)
            for group in table.values()
            for one in group
        ),
    )
)

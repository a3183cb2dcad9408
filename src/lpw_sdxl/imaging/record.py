"""How an image was made, and that as text in AUTOMATIC1111's layout; it knows no file format."""

from __future__ import annotations

import json
from dataclasses import dataclass

from lpw_sdxl import __version__
from lpw_sdxl.lora.request import LoraUse
from lpw_sdxl.schema import GenerationRequest, ImageSize, SchedulerName

AUTOV2_DIGITS = 10  # of a file's SHA-256: the short hash that Civitai and A1111 show


@dataclass(frozen=True)
class ImageRecord:
    """How an image was made.

    Attributes:
        request: what was asked.
        seed: of the image, drawn or asked for.
        size: pixels.
        scheduler: the one that was used.
        model_name: the model's name in the store.
        model_sha256: of the checkpoint's file, hex.
    """

    request: GenerationRequest
    seed: int
    size: ImageSize
    scheduler: SchedulerName
    model_name: str
    model_sha256: str
    loras: tuple[LoraUse, ...] = ()


def parameters_text(record: ImageRecord) -> str:
    """Write down how an image was made, in AUTOMATIC1111's layout, which many tools read.

    Prompt, negative prompt, and a last line of `key: value` pairs. A scheduler is one name, such as
    "DPM++ 2M Karras": that program wrote it so until its version 1.9, still reads it so, and tools
    that don't know its newer key "Schedule type" would lose the second half. The layout has no
    escapes for prompts: one with a line "Negative prompt: ..." is read back as two, there too.
    """
    request = record.request
    pairs = {
        "Steps": str(request.num_inference_steps),
        "Sampler": str(record.scheduler),
        "CFG scale": f"{request.guidance_scale:g}",
        "Seed": str(record.seed),
        "Size": str(record.size),
        "Model hash": record.model_sha256[:AUTOV2_DIGITS],
        "Model": record.model_name,
    }
    if request.guidance_rescale:
        pairs["CFG rescale"] = f"{request.guidance_rescale:g}"
    if request.clip_skip is not None:
        # That program counts layers from the end, starting at 1, where ours starts at SDXL's own.
        pairs["Clip skip"] = str(request.clip_skip + 2)
    pairs["Prompt style"] = str(request.prompt_style)
    pairs["Version"] = f"LPW-SDXL {__version__}"
    lines = [request.prompt]
    if request.negative_prompt:
        lines.append(f"Negative prompt: {request.negative_prompt}")
    lines.append(", ".join(f"{key}: {_quoted(value)}" for key, value in pairs.items()))
    return "\n".join(lines)


def _quoted(value: str) -> str:
    """Write a value that the layout's own punctuation would cut as a JSON string."""
    if any(mark in value for mark in ',:\n"'):
        return json.dumps(value, ensure_ascii=False)
    return value

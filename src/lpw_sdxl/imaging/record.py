"""The record of how an image was made, and its text in AUTOMATIC1111's layout.

It knows nothing of file formats.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from lpw_sdxl import __version__
from lpw_sdxl.lora.request import LoraUse
from lpw_sdxl.prompt import LoraTag, PromptLimits, PromptStyle, Steps, parse_schedule, write_tag
from lpw_sdxl.prompt.grammar import GRAMMARS
from lpw_sdxl.prompt.lora_tag import has_open_tag
from lpw_sdxl.sampler_table import SamplerName
from lpw_sdxl.sampling_options import (
    NoiseSource,
    SamplerImplementation,
    SigmaScheduleType,
    TimestepRounding,
)
from lpw_sdxl.schedule_types import ScheduleType
from lpw_sdxl.scheduler_table import SchedulerName
from lpw_sdxl.schema import GenerationRequest, ImageSize, MaskedContent
from lpw_sdxl.second_pass import DEFAULT_SCALE, UPSCALER_LABELS

AUTOV2_DIGITS = 10  # of a file's SHA-256: the short hash that Civitai and A1111 show
EMBEDDING_DIGITS = 12  # of a file's SHA-256: what A1111 writes of an embedding

_ETA_OF_DDIM = "Eta DDIM"  # an option of its own in A1111
# The prompt was checked against the server's limits when it was accepted.
_UNLIMITED = PromptLimits(max_characters=10**9, max_depth=10**9, max_weight=math.inf)
# What A1111 reads otherwise: a word in upper case, white space at the edge of a part.
_FOREIGN = re.compile(r"<(?!lora|lyco)|[:=]\s|\s[:=>]")


@dataclass(frozen=True)
class EmbeddingUse:
    """An embedding that a prompt names.

    Attributes:
        name: the registry's own.
        sha256: of the imported file, hex.
    """

    name: str
    sha256: str


class PictureUse(Enum):
    """The use of a picture that a request brings."""

    WHOLE = auto()
    MASKED = auto()


@dataclass(frozen=True)
class ImageRecord:
    """The record of how an image was made.

    Attributes:
        request: of the image.
        seed: drawn or requested.
        size: pixels.
        scheduler: that was used, or the sampler of k-diffusion's.
        model_name: the model's name in the store.
        model_sha256: of the checkpoint's file, hex.
        loras: all that were used, from `loras` and from the prompt, by name; of a first pass.
        embeddings: all that the two prompts name.
        schedule_type: that was used; None where the scheduler has timesteps of its own.
        picture: what the image was made from; None for a text alone.
        variation_seed: drawn or requested; None where there is no variation.
        second_loras: of a second pass, likewise.
        is_float8: whether the UNet's large products were computed in fp8.
    """

    request: GenerationRequest
    seed: int
    size: ImageSize
    scheduler: SchedulerName | SamplerName
    model_name: str
    model_sha256: str
    loras: tuple[LoraUse, ...] = ()
    embeddings: tuple[EmbeddingUse, ...] = ()
    schedule_type: ScheduleType | SigmaScheduleType | None = None
    picture: PictureUse | None = None
    variation_seed: int | None = None
    second_loras: tuple[LoraUse, ...] = ()
    is_float8: bool = False

    @property
    def all_loras(self) -> tuple[LoraUse, ...]:
        """Return the LoRAs of all passes, each file once."""
        return tuple({use.key: use for use in (*self.second_loras, *self.loras)}.values())


def parameters_text(record: ImageRecord) -> str:
    """Write a record as text in the layout of AUTOMATIC1111 (A1111), which many tools read.

    Prompt, negative prompt, and a last line of `key: value` pairs. A scheduler is one name, such as
    "DPM++ 2M Karras": A1111 wrote it so until its version 1.9 and still reads it so, and tools
    without its newer key "Schedule type" would lose the second half. That key has the schedule type
    by our own name with Diffusers' schedulers, of which A1111 has none: it takes an unknown one for
    "Automatic", as it takes a missing one. "SGM Uniform", which is near "trailing", has other
    timesteps there. With k-diffusion's samplers all names are A1111's. The layout has
    no escapes for prompts: a prompt with a line "Negative prompt: ..." is read back as two, in
    A1111 too.

    LoRAs are read back from the prompt's tags, so that those of the field `loras` are added to the
    prompt as tags. "Lora hashes" lists AutoV2 hashes, by which Civitai finds the files. A1111's own
    are 12 digits of a hash of the tensors alone, of a file that we did not keep; where A1111 finds
    no LoRA of a hash, it uses the name.
    """
    request = record.request
    lines = [_write_prompt(request.prompt, request.prompt_style, record.loras)]
    if request.negative_prompt:
        lines.append(f"Negative prompt: {request.negative_prompt}")
    pairs = parameters_pairs(record)
    lines.append(", ".join(f"{key}: {_quote(value)}" for key, value in pairs.items()))
    return "\n".join(lines)


def parameters_pairs(record: ImageRecord) -> dict[str, str]:
    """Return the pairs of a record's text, by their keys."""
    request = record.request
    pairs = {
        "Steps": str(request.num_inference_steps),
        "Sampler": str(record.scheduler),
        **({} if record.schedule_type is None else {"Schedule type": str(record.schedule_type)}),
        "CFG scale": f"{request.guidance_scale:g}",
        "Seed": str(record.seed),
        "Size": str(record.size),
        "Model hash": record.model_sha256[:AUTOV2_DIGITS],
        "Model": record.model_name,
    }
    pairs |= _picture_pairs(record)
    pairs |= _noise_pairs(record)
    pairs |= _second_pass_pairs(record)
    if request.guidance_rescale:
        pairs["CFG rescale"] = f"{request.guidance_rescale:g}"
    if request.guidance_interval is not None:
        pairs["CFG interval"] = "{:g}-{:g}".format(*request.guidance_interval)
    if request.clip_skip is not None:
        # A1111 counts layers from the last, which is 1; ours counts from SDXL's own, which is 0.
        pairs["Clip skip"] = str(request.clip_skip + 2)
    if record.all_loras:
        pairs["Lora hashes"] = _write_hashes(record.all_loras, AUTOV2_DIGITS)
    if record.embeddings:
        pairs["TI hashes"] = _write_hashes(record.embeddings, EMBEDDING_DIGITS)
    pairs["Prompt style"] = str(request.prompt_style)
    if request.sampler_implementation is SamplerImplementation.K_DIFFUSION:
        pairs["Sampler implementation"] = str(request.sampler_implementation)
        if request.timestep_rounding not in (None, TimestepRounding.INTERPOLATE):
            pairs["Timestep rounding"] = str(request.timestep_rounding)
    if record.is_float8:
        pairs["UNet precision"] = "fp8"
    pairs["Version"] = f"LPW-SDXL {__version__}"
    return pairs


def _noise_pairs(record: ImageRecord) -> dict[str, str]:
    """Return the noise of k-diffusion's samplers, in A1111's words."""
    request = record.request
    if request.sampler_implementation is not SamplerImplementation.K_DIFFUSION:
        return {}
    pairs = {"RNG": (request.noise_source or NoiseSource.CPU).upper()}
    if request.eta is not None:
        pairs[_ETA_OF_DDIM if record.scheduler == SamplerName.DDIM else "Eta"] = f"{request.eta:g}"
    if request.eta_noise_seed_delta:
        pairs["ENSD"] = str(request.eta_noise_seed_delta)
    if record.variation_seed is not None:
        pairs["Variation seed"] = str(record.variation_seed)
        pairs["Variation seed strength"] = f"{request.variation_strength:g}"
    return pairs


def _second_pass_pairs(record: ImageRecord) -> dict[str, str]:
    """Return a second pass in A1111's words, and its guidance in Forge's."""
    second = record.request.hires
    if second is None:
        return {}
    pairs = {"Denoising strength": f"{second.strength:g}"}
    if second.width is None and second.height is None:
        pairs["Hires upscale"] = f"{DEFAULT_SCALE if second.scale is None else second.scale:g}"
    else:
        pairs["Hires resize"] = f"{second.width or 0}x{second.height or 0}"
    if second.steps:
        pairs["Hires steps"] = str(second.steps)
    built_in = second.built_in
    pairs["Hires upscaler"] = second.upscaler if built_in is None else UPSCALER_LABELS[built_in]
    if second.prompt:
        style = record.request.prompt_style
        # Where tags are text, the LoRAs are those of the first pass.
        loras = record.second_loras if GRAMMARS[style].has_lora_tags else ()
        pairs["Hires prompt"] = _write_prompt(second.prompt, style, loras)
    if second.negative_prompt:
        pairs["Hires negative prompt"] = second.negative_prompt
    if second.scheduler is not None:
        pairs["Hires sampler"] = second.scheduler
    if second.schedule_type is not None:
        pairs["Hires schedule type"] = second.schedule_type
    if second.guidance_scale is not None:
        pairs["Hires CFG Scale"] = f"{second.guidance_scale:g}"
    return pairs


def _picture_pairs(record: ImageRecord) -> dict[str, str]:
    """Return how a picture was used, in A1111's words; what is A1111's default is left out there.

    Its "Masked content" has no word for the original.
    """
    request = record.request
    if record.picture is None:
        return {}
    pairs = {"Denoising strength": f"{request.strength:g}"}
    if record.picture is PictureUse.WHOLE:
        return pairs
    if request.masked_content is not MaskedContent.ORIGINAL:
        pairs["Masked content"] = request.masked_content.replace("_", " ")
    if request.mask_blur:
        pairs["Mask blur"] = f"{request.mask_blur:g}"
    if request.invert_mask:
        pairs["Mask mode"] = "Inpaint not masked"
    if request.only_masked:
        pairs["Inpaint area"] = "Only masked"
        pairs["Masked area padding"] = str(request.only_masked_padding)
    return pairs


def _write_prompt(prompt: str, style: PromptStyle, loras: Sequence[LoraUse]) -> str:
    """Return the prompt with tags that name exactly the LoRAs that were used, each once.

    Most prompts have such tags already and stay unchanged. Otherwise the tags are replaced in their
    places: of a LoRA that is named twice A1111 uses the last weight, where we use the sum, and it
    reads white space as a part of the name. Tags for which there is no place are appended. Where
    weights add up or cancel out, there are more places than LoRAs: the first ones get tags with
    weights of 0, because without a tag the text on its two sides could together be read as a tag, a
    weight or a BREAK. Behind a tag that never ends none is appended, since its `>` would end both;
    it is put before the prompt.
    """
    # Which tags there are does not depend on the steps.
    schedule = parse_schedule(prompt, Steps(1), _UNLIMITED, style=style)
    tags = schedule.lora_tags
    used = [LoraTag(lora.name, *lora.strength) for lora in loras]
    active = [tag for tag in tags if _is_active(tag)]
    idle_names = {tag.name for tag in tags if not _is_active(tag)}
    is_exact = sorted(active, key=_name) == used and idle_names.isdisjoint(map(_name, used))
    if is_exact and not any(_FOREIGN.search(prompt, tag.start, tag.end) for tag in tags):
        return prompt
    idle = [LoraTag(tag.name, 0.0, 0.0) for tag in tags[: max(0, len(tags) - len(used))]]
    text, end = "", 0
    for tag, written in zip(tags, (*idle, *used), strict=False):
        text += prompt[end : tag.start] + write_tag(written)
        end = tag.end
    text += prompt[end:]
    appended = [*map(write_tag, used[len(tags) :])]
    # In a comment none would be read.
    ends_in_comment = "#" in text.rpartition("\n")[2]
    parts = (*appended, text) if has_open_tag(text) or ends_in_comment else (text, *appended)
    return " ".join(filter(None, parts))


def _is_active(tag: LoraTag) -> bool:
    return tag.weight != 0 or tag.text_encoder_weight != 0


def _name(tag: LoraTag) -> str:
    return tag.name


def _write_hashes(used: Iterable[LoraUse | EmbeddingUse], digits: int) -> str:
    return ", ".join(f"{one.name}: {one.sha256[:digits]}" for one in used)


def _quote(value: str) -> str:
    """Return a value, as a JSON string if the layout's own punctuation or blanks would cut it."""
    if any(mark in value for mark in ',:\n"') or value != value.strip():
        return json.dumps(value, ensure_ascii=False)
    return value

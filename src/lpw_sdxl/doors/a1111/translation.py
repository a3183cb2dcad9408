"""The fields of a request to an order: what is drawn, and how it is answered. A pure function."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from lpw_sdxl.doors.a1111.counts import Counts, Seeds
from lpw_sdxl.doors.a1111.echo import echo_fields, list_unknown, write_notes
from lpw_sdxl.doors.a1111.hires import read_hires
from lpw_sdxl.doors.a1111.infotexts import read_infotext
from lpw_sdxl.doors.a1111.known_fields import DEFAULT_GUIDANCE, DEFAULT_STEPS
from lpw_sdxl.doors.a1111.loose_fields import LooseFields
from lpw_sdxl.doors.a1111.native_names import spell
from lpw_sdxl.doors.a1111.order import ImageOrder
from lpw_sdxl.doors.a1111.pictures import StartPictures, read_pictures
from lpw_sdxl.doors.a1111.sampling import defaults, read_noise, read_sampling
from lpw_sdxl.doors.a1111.scripts import check_scripts, check_unserved
from lpw_sdxl.doors.a1111.served_model import ServedHere
from lpw_sdxl.doors.a1111.settings_overrides import SettingsOverrides, clip_skip_of
from lpw_sdxl.doors.a1111.sizes import read_size
from lpw_sdxl.doors.a1111.task_names import name_job
from lpw_sdxl.doors.loras import read_loras
from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.prompt.grammar import PromptStyle
from lpw_sdxl.prompt.lora_tag import find_tags
from lpw_sdxl.refusal import explain_refusal
from lpw_sdxl.request_limits import RequestLimits, check_limits
from lpw_sdxl.sampler_table import SamplerName, find_sampler
from lpw_sdxl.sampling_options import NoiseSource, SamplerImplementation
from lpw_sdxl.schema import GenerationRequest, ImageSize

_NO_LESS_GUIDANCE = 1.0  # below it, A1111 turns away from the prompt


def translate(fields: LooseFields, server: ServedHere, *, is_picture: bool) -> ImageOrder:
    """Translate the fields of a request.

    Args:
        fields: by A1111's names.
        server: whose request it is.
        is_picture: whether it is img2img's.

    Raises:
        InvalidRequestError: a field is wrong, or asks for what is not done here; it is named as
            the client did.
    """
    check_scripts(fields)
    check_unserved(fields, server.model)
    settings = SettingsOverrides.read(fields, server.model)
    text = read_infotext(fields, server.model, server.limits, is_picture=is_picture)
    pictures: StartPictures | None = None
    if is_picture:
        used = LooseFields.of({**text.picture, **fields.values})
        pictures = read_pictures(used, server.limits.max_image_bytes)
    native = _defaults(server.limits) | text.native | settings.native()
    native |= _read_plain(fields)
    native |= _with_family(read_sampling(fields, native), native)
    size = _choose_size(fields, native, server.native_size)
    if is_picture:
        native |= size._asdict()
    else:
        native |= read_size(fields)
        native |= read_hires(fields, server.model, native, size)
    native |= read_noise(fields, settings.fields, native, _samplers_of(native))
    clip_skip = settings.clip_skip
    clip_skip = fields.whole("clip_skip") if clip_skip is None else clip_skip
    if clip_skip is not None:
        native["clip_skip"] = clip_skip_of(clip_skip)
    counts = Counts.read(
        fields, server.limits.max_batch_items, len(pictures.images) if pictures else 0
    )
    seeds = Seeds.read(fields, native)
    request = _make(native | (pictures.native if pictures else {}), seeds, pictures, server.limits)
    unknown = list_unknown(fields)
    task = fields.text("force_task_id")
    return ImageOrder(
        request,
        counts.batch_size,
        counts.n_iter,
        seeds.seed,
        seeds.subseed,
        pictures.images if pictures else (),
        pictures.mask if pictures else None,
        bool(pictures and pictures.is_rounded),
        fields.flag("send_images") is not False,
        bool(fields.flag("include_init_images")),
        settings.quality,
        1 if clip_skip is None else max(1, clip_skip),
        echo_fields(fields, size, is_picture=is_picture),
        write_notes(fields, text.not_honoured, unknown),
        len(unknown),
        None if task is None else name_job(task),
    )


def _defaults(limits: RequestLimits) -> dict[str, Any]:
    """Return what A1111 does where nothing is said, and its dialect of prompts.

    Of the model's own defaults only the size counts: A1111 has one of all else.
    """
    ours = GenerationRequest.model_fields
    said = {
        name: ours[name].default for name in limits.defaults.values.keys() - {"width", "height"}
    }
    return (
        said
        | defaults()
        | {
            "prompt": "",
            "prompt_style": PromptStyle.A1111_ORIGINAL,
            "num_inference_steps": min(DEFAULT_STEPS, limits.max_steps),
            "guidance_scale": DEFAULT_GUIDANCE,
        }
    )


def _read_plain(fields: LooseFields) -> dict[str, Any]:
    """Read the prompts, the number of steps and the guidance, as far as they are there."""
    found: dict[str, Any] = {
        "prompt": fields.text("prompt"),
        "negative_prompt": fields.text("negative_prompt"),
        "num_inference_steps": fields.whole("steps"),
        "guidance_scale": fields.number("cfg_scale"),
    }
    for name in ("cfg_scale", "hr_cfg"):
        guidance = fields.number(name) if name == "cfg_scale" or fields.flag("enable_hr") else None
        if guidance is not None and guidance < _NO_LESS_GUIDANCE:
            raise fields.refuse(name, f"is {guidance:g}; at least {_NO_LESS_GUIDANCE:g} is right")
    if "lora" in fields:
        found["loras"] = read_loras(fields.values["lora"], "lora")
    if fields.flag("disable_extra_networks"):
        found["prompt"] = _without_tags(found["prompt"] or "")
        found.pop("loras", None)
    return {name: one for name, one in found.items() if one is not None}


def _without_tags(prompt: str) -> str:
    for tag in [*find_tags(prompt)][::-1]:
        prompt = prompt[: tag.start()] + prompt[tag.end() :]
    return prompt


def _with_family(sampling: dict[str, Any], native: Mapping[str, Any]) -> dict[str, Any]:
    """Add the family that A1111's names are of, which a text may say otherwise."""
    if not sampling:
        return {}
    family = {"sampler_implementation": SamplerImplementation.K_DIFFUSION}
    return sampling | family | {"noise_source": native.get("noise_source") or NoiseSource.NV}


def _samplers_of(native: Mapping[str, Any]) -> list[SamplerName]:
    """List the samplers of the passes; none where they are Diffusers' schedulers."""
    if native["sampler_implementation"] is not SamplerImplementation.K_DIFFUSION:
        return []
    first = find_sampler(native.get("scheduler") or "")
    second = find_sampler((native.get("hires") or {}).get("scheduler") or "")
    return [] if first is None else [first] if second is None else [first, second]


def _choose_size(
    fields: LooseFields, native: Mapping[str, Any], native_size: ImageSize
) -> ImageSize:
    """Choose the size: the request's, its text's, or the model's own."""
    sides = {name: native.get(name) for name in ImageSize._fields} | read_size(fields)
    return ImageSize(
        *(
            own if side is None else side
            for own, side in zip(native_size, (sides["height"], sides["width"]), strict=True)
        )
    )


def _make(
    native: dict[str, Any],
    seeds: Seeds,
    pictures: StartPictures | None,
    limits: RequestLimits,
) -> GenerationRequest:
    """Make the request of the images, checked with the first one's seeds and pictures.

    Raises:
        InvalidRequestError: a field is wrong.
    """
    first: dict[str, Any] = {"seed": seeds.seed}
    if seeds.strength:
        first["variation_seed"] = seeds.subseed
    if pictures is not None:
        first |= {"image": pictures.images[0], "mask_image": pictures.mask}
    try:
        request = GenerationRequest.model_validate(
            native | {"variation_strength": seeds.strength} | first, strict=False
        )
        check_limits(request, limits)
    except ValidationError as error:
        raise spell(explain_refusal(error, GenerationRequest)) from None
    except InvalidRequestError as error:
        raise spell(error) from None
    left = {"seed": None, "variation_seed": None, "image": None, "mask_image": None}
    return request.model_copy(update=left)

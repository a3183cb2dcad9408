"""The keys of a second, larger pass, to `hires` of a request."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from pydantic_core import PydanticCustomError

from lpw_sdxl.parameters.draft import Draft
from lpw_sdxl.parameters.known_keys import HIRES_BEGINNINGS
from lpw_sdxl.parameters.lora_tags import TagCleaner
from lpw_sdxl.parameters.numbers import read_number, read_size, read_whole
from lpw_sdxl.parameters.offered import Offered, nearest_name
from lpw_sdxl.parameters.written import Pair, plain_key
from lpw_sdxl.prompt.grammar import GRAMMARS, PromptStyle
from lpw_sdxl.sampler_names import schedule_type_of, scheduler_of, split_label
from lpw_sdxl.sampling_options import SamplerImplementation
from lpw_sdxl.schema import LATENT_SCALE, ImageSize
from lpw_sdxl.second_pass import SecondPass, Upscaler, enlarge, find_upscaler, fits_second

STRENGTH = "denoising strength"
_SIZES = ("hires upscale", "hires resize")
_UPSCALER = "hires upscaler"
_PROMPTS: Mapping[str, str] = {
    "hires prompt": "prompt",
    "hires negative prompt": "negative_prompt",
}
_FALLBACK = Upscaler.LANCZOS
_SAME = "use same"  # as in the first pass: a sampler, a schedule type or a checkpoint of A1111


def put_second_pass(draft: Draft, offered: Offered | None) -> frozenset[str]:
    """Put the second pass that a text has, and note what of it is not made.

    Args:
        draft: of the request.
        offered: the server's names; None where there is no server.

    Returns:
        The plain keys that belong to it; none where there is no such pass.
    """
    pairs = [
        pair for pair in draft.written.pairs if plain_key(pair.key).startswith(HIRES_BEGINNINGS)
    ]
    if not pairs:
        return frozenset()
    strength = draft.pair(STRENGTH)
    pairs += [] if strength is None else [strength]
    if not any(plain_key(pair.key) in _SIZES for pair in pairs):
        draft.note(
            "Hires",
            ", ".join(f"{pair.key}: {pair.value}" for pair in pairs),
            "The text has no size of a second pass; the picture has the first one's.",
        )
        return frozenset(plain_key(pair.key) for pair in pairs)
    draft.fields["hires"] = SecondPass()
    for pair in pairs:
        put = _PUT.get(plain_key(pair.key), _note)
        if plain_key(pair.key) == _UPSCALER:
            put = partial(_put_upscaler, offered)
        if plain_key(pair.key) in _PROMPTS:
            put = partial(_put_prompt, offered)
        if pair.value and not pair.value.casefold().startswith(_SAME):
            put(draft, pair)
    _fit(draft)
    return frozenset(plain_key(pair.key) for pair in pairs)


def _fit(draft: Draft) -> None:
    """Lower a size that is over the server's limit, in the first pass's ratio."""
    second, first = draft.fields["hires"], [draft.fields.get(name) for name in ImageSize._fields]
    if draft.limits is None or None in first:
        return
    size = ImageSize(*(side for side in first if side is not None))
    most, asked = draft.limits.max_size, enlarge(size, second)
    if fits_second(asked, most):
        return
    fitting = math.sqrt(most.height * most.width / (size.height * size.width))
    scale = math.floor(fitting * 100) / 100
    if scale < 1:
        return  # the first pass's own size is over it, which is noted
    draft.fields["hires"] = second.model_copy(
        update={"scale": scale, "width": None, "height": None}
    )
    reason = f"At most the pixels of {most} are accepted here; a scale of {scale:g} is taken."
    draft.note("Hires", str(asked.size), reason)


def _put(draft: Draft, pair: Pair, **fields: Any) -> None:
    second = draft.fields["hires"]
    assert isinstance(second, SecondPass)
    draft.put(pair, hires=second.model_dump() | fields)


def _put_number(field: str, fallback: str, draft: Draft, pair: Pair) -> None:
    number = read_number(pair.value)
    if number is None:
        draft.note(*pair, f"It is no number; {fallback} is taken.")
    else:
        _put(draft, pair, **{field: number})


def _put_size(draft: Draft, pair: Pair) -> None:
    """Put one side or both; a side of 0 follows from the ratio."""
    size = read_size(pair.value)
    if size is None or not any(size):
        draft.note(*pair, "It is no size; a scale of 2 is taken.")
        return
    height, width = (side - side % LATENT_SCALE or None for side in size)
    if any(side % LATENT_SCALE for side in size):
        draft.note(*pair, f"Sides are multiples of {LATENT_SCALE} here; they are rounded down.")
    _put(draft, pair, scale=None, width=width, height=height)


def _put_steps(draft: Draft, pair: Pair) -> None:
    steps = read_whole(pair.value)
    if steps is None:
        draft.note(*pair, "It is no whole number; the first pass's is taken.")
    else:
        _put(draft, pair, steps=steps or None)


def _put_upscaler(offered: Offered | None, draft: Draft, pair: Pair) -> None:
    """Put the upscaler: one that every server has, an imported one, or else Lanczos."""
    name = find_upscaler(pair.value) or pair.value
    if find_upscaler(name) is None and offered is not None:
        imported = offered.find_upscaler(name)
        if imported is None:
            near = nearest_name(name, offered.upscalers)
            hint = "" if near is None else f" {near} is there."
            draft.note(*pair, f"This upscaler is not here; {_FALLBACK} is taken.{hint}")
        name = imported or _FALLBACK
    _put(draft, pair, upscaler=str(name))


def _put_sampler(draft: Draft, pair: Pair) -> None:
    family = draft.fields.get("sampler_implementation")
    label = split_label(pair.value)
    is_label = label is not None and family is SamplerImplementation.K_DIFFUSION
    name = str(label.sampler) if is_label and label is not None else pair.value
    try:
        scheduler_of(name, family)
    except PydanticCustomError:
        draft.note(*pair, "It is not served; the first pass's is taken.")
        return
    _put(draft, pair, scheduler=name)
    if is_label and label is not None and label.schedule_type is not None:
        _put(draft, pair, schedule_type=str(label.schedule_type))


def _put_schedule_type(draft: Draft, pair: Pair) -> None:
    try:
        schedule_type_of(pair.value, draft.fields.get("sampler_implementation"))
    except PydanticCustomError:
        draft.note(*pair, "It is not served; the sampler's own is taken.")
        return
    _put(draft, pair, schedule_type=pair.value)


def _put_prompt(offered: Offered | None, draft: Draft, pair: Pair) -> None:
    """Put a prompt, without the tags of LoRAs that can't be used."""
    field, text = _PROMPTS[plain_key(pair.key)], pair.value
    style = PromptStyle(draft.fields.get("prompt_style", PromptStyle.LPW))
    if GRAMMARS[style].has_lora_tags:
        is_negative = field == "negative_prompt"
        text = TagCleaner(draft, offered).clean(text, style, is_negative=is_negative)
    _put(draft, pair, **{field: text})


def _note(draft: Draft, pair: Pair) -> None:
    draft.note(*pair, "A second pass has the first one's model, and none of this.")


_PUT: Mapping[str, Callable[[Draft, Pair], None]] = {
    "hires upscale": partial(_put_number, "scale", "2"),
    "hires resize": _put_size,
    "hires steps": _put_steps,
    "hires sampler": _put_sampler,
    "hires schedule type": _put_schedule_type,
    "hires cfg scale": partial(_put_number, "guidance_scale", "the first pass's"),
    STRENGTH: partial(_put_number, "strength", "the default"),
}

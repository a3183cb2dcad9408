"""The size, and the keys about a picture that the text was made with and does not have."""

from __future__ import annotations

from lpw_sdxl.parameters.draft import Draft
from lpw_sdxl.parameters.known_keys import PICTURE_KEYS
from lpw_sdxl.parameters.numbers import read_size
from lpw_sdxl.parameters.written import Pair, plain_key
from lpw_sdxl.schema import LATENT_SCALE, MAX_IMAGE_PIXELS, MIN_IMAGE_PIXELS, ImageSize

STRENGTH = "denoising strength"


def put_size(draft: Draft) -> None:
    """Put the size, brought to multiples of 8 and to the server's largest."""
    pair = draft.pair("size")
    if pair is None:
        return
    size = read_size(pair.value)
    if size is None or not all(size):
        draft.note(*pair, "It is no size, such as 832x1216; the model's own is taken.")
        return
    fitting = _fit(size, _largest(draft))
    if min(fitting) < MIN_IMAGE_PIXELS:
        least = f"at least {MIN_IMAGE_PIXELS} pixels a side would be right"
        draft.note(*pair, f"A side is too short; {least}; the model's own is taken.")
        return
    if draft.put(pair, height=fitting.height, width=fitting.width) and fitting != size:
        draft.note(*pair, _explain_size(size, fitting, _largest(draft)))


def note_picture(draft: Draft, done: frozenset[str]) -> None:
    """Note a picture to start from, which no text holds.

    Args:
        draft: of the request.
        done: plain keys that belong to something else.
    """
    pairs = [
        pair
        for pair in draft.written.pairs
        if (key := plain_key(pair.key)) in PICTURE_KEYS and key not in done
    ]
    if not pairs:
        return
    fields = [PICTURE_KEYS[plain_key(pair.key)] for pair in pairs]
    named = ", ".join(dict.fromkeys(field for field in fields if field))
    has_mask = any(field.startswith(("mask", "only_masked", "invert")) for field in fields)
    needed = "image and mask_image" if has_mask else "image"
    first = next((pair for pair in pairs if plain_key(pair.key) == STRENGTH), pairs[0])
    draft.note(
        first.key,
        _write(first, pairs),
        "It was made from a picture, which is not in the text; the request draws from noise. With"
        f" {needed}{f', and these values in {named}' if named else ''}, it would be right.",
    )


def _write(first: Pair, pairs: list[Pair]) -> str:
    others = [f"{pair.key}: {pair.value}" for pair in pairs if pair is not first]
    return ", ".join([first.value, *others])


def _largest(draft: Draft) -> ImageSize:
    if draft.limits is None:
        return ImageSize(MAX_IMAGE_PIXELS, MAX_IMAGE_PIXELS)
    return draft.limits.max_size


def _fit(size: ImageSize, largest: ImageSize) -> ImageSize:
    """Shrink a size to the largest, in its ratio, and round it down to multiples of 8."""
    share = min(1.0, *(most / own for most, own in zip(largest, size, strict=True)))
    sides = (
        min(int(own * share), most) // LATENT_SCALE * LATENT_SCALE
        for most, own in zip(largest, size, strict=True)
    )
    return ImageSize(*sides)


def _explain_size(size: ImageSize, fitting: ImageSize, largest: ImageSize) -> str:
    is_large = any(own > most for own, most in zip(size, largest, strict=True))
    why = f"At most {largest} is accepted" if is_large else "Sides are multiples of 8"
    return f"{why} here; {fitting} is taken."

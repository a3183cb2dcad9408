"""The keys of a second, larger pass. It is not made yet: this is the one place that says so."""

from __future__ import annotations

from lpw_sdxl.parameters.draft import Draft
from lpw_sdxl.parameters.known_keys import HIRES_BEGINNINGS
from lpw_sdxl.parameters.written import plain_key

STRENGTH = "denoising strength"


def note_second_pass(draft: Draft) -> frozenset[str]:
    """Note the second pass that a text has.

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
    draft.note(
        "Hires",
        ", ".join(f"{pair.key}: {pair.value}" for pair in pairs),
        "A second, larger pass is not made; the picture has the first one's size.",
    )
    return frozenset(plain_key(pair.key) for pair in pairs)

"""The tags of a prompt: those that would be refused are taken out, and named with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lpw_sdxl.errors import InvalidPromptError
from lpw_sdxl.parameters.draft import Draft
from lpw_sdxl.parameters.hashes import AUTOV2_DIGITS, lora_hashes
from lpw_sdxl.parameters.offered import Offered, nearest_name
from lpw_sdxl.prompt import (
    DEFAULT_LIMITS,
    LoraTag,
    PromptStyle,
    RefusedTag,
    Steps,
    parse_schedule,
)
from lpw_sdxl.prompt.lora_tag import find_tags, read_tag

MOST_NEAR = 8  # names for which the nearest is looked for; of 5000 names it takes 0.1 s
NOTE = "LoRA"
# The length is checked with the other limits of the request.
_ANY_LENGTH = replace(DEFAULT_LIMITS, max_characters=10**9)


class TagCleaner:
    """A reader of prompts that takes out the tags that can't be used.

    Args:
        draft: of the request.
        offered: the server's names; None where names are not looked up.
    """

    def __init__(self, draft: Draft, offered: Offered | None) -> None:
        self._draft = draft
        self._offered = offered
        self._hashes = lora_hashes(draft.written)
        self._noted: set[str] = set()

    def clean(self, prompt: str, style: PromptStyle, *, is_negative: bool = False) -> str:
        """Return a prompt without the tags that can't be used, as A1111 leaves out all tags."""
        pieces, end = [], 0
        for tag in _tags(prompt, style):
            name = tag.name if isinstance(tag, LoraTag) else prompt[tag.start : tag.end]
            reason = _explain_negative() if is_negative else self._explain(tag)
            if reason is not None:
                self._note(name, f"{reason} The tag is left out.")
                pieces.append(prompt[end : tag.start])
                end = tag.end
            elif isinstance(tag, LoraTag):
                self._note_another_file(tag.name)
        return "".join((*pieces, prompt[end:]))

    def _note(self, name: str, reason: str) -> None:
        if name not in self._noted:
            self._noted.add(name)
            self._draft.note(NOTE, name, reason)

    def _explain(self, tag: LoraTag | RefusedTag) -> str | None:
        """Explain why a tag can't be used; None if it can."""
        if isinstance(tag, RefusedTag):
            return f"{tag.reason[:1].upper()}{tag.reason[1:]}."
        if self._offered is None or self._offered.find_lora(tag.name) is not None:
            return None
        return f"No LoRA of this name is here; {self._hint(tag.name, self._offered)}."

    def _hint(self, name: str, offered: Offered) -> str:
        """Name the LoRA that was probably meant."""
        if len(self._noted) >= MOST_NEAR:
            return "/info lists those that are"
        same = offered.find_lora_by_hash(self._hashes.get(name, ""))
        if same is not None:
            return f"the same file is here as {same!r}"
        near = nearest_name(name, offered.loras)
        return f"near is {near!r}" if near else "none is near it"

    def _note_another_file(self, name: str) -> None:
        """Note a LoRA of the same name that is another file, by its AutoV2 hash."""
        known = None if self._offered is None else self._offered.find_lora(name)
        if self._offered is None or known is None:
            return
        written, sha256 = self._hashes.get(name, ""), self._offered.loras[known]
        if len(written) == AUTOV2_DIGITS and sha256 and not sha256.startswith(written):
            own = sha256[:AUTOV2_DIGITS]
            self._note(name, f"The file of this name has the hash {own} here, and {written} there.")


def _tags(prompt: str, style: PromptStyle) -> Sequence[LoraTag | RefusedTag]:
    """Return the tags of a prompt in their order; those in comments are none.

    In a prompt that breaks a limit all that looks like one is taken: it is refused anyway.
    """
    try:
        schedule = parse_schedule(prompt, Steps(1), _ANY_LENGTH, style=style)
    except InvalidPromptError:
        return [read_tag(match[0], *match.span()) for match in find_tags(prompt)]
    return schedule.tags


def _explain_negative() -> str:
    return "A tag in a negative prompt is text to A1111, and refused here."

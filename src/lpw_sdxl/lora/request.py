"""The LoRAs of a request: those in its body and the tags of its prompt, merged into one set.

Pure: the caller supplies the look-up of names. It knows nothing of weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from lpw_sdxl.errors import InvalidPromptError, InvalidRequestError
from lpw_sdxl.field_types import MAX_STRENGTH
from lpw_sdxl.prompt.prompt_schedule import PromptSchedule
from lpw_sdxl.prompt.syntax import LoraTag, Prompt
from lpw_sdxl.schema import LoraReference
from lpw_sdxl.store.origin import Origin


class LoraStrength(NamedTuple):
    """The factors of a LoRA's changes, in the UNet and in both text encoders."""

    unet: float
    text_encoder: float


@dataclass(frozen=True)
class LoraUse:
    """One LoRA of a set, with its strengths.

    Attributes:
        name: in the registry.
        sha256: of the imported file, lower-case hexadecimal digits.
        strength: each -10 to 10, at least one not 0.
        key: by which the engine keeps its tensors: they are another's if it is another. One file
            becomes two LoRAs where the user stated two alphas.
    """

    name: str
    sha256: str
    strength: LoraStrength
    key: str


class LoraIdentity(Protocol):
    """The part of a LoRA's manifest that identifies it."""

    @property
    def name(self) -> str:
        """Return the name under which it was imported."""

    @property
    def origin(self) -> Origin:
        """Return the file that it is from."""


class ResolvedLora(Protocol):
    """A registry's entry, found by a name."""

    @property
    def manifest(self) -> LoraIdentity:
        """Return its manifest."""

    @property
    def key(self) -> str:
        """Return what its tensors are kept by; none else has it."""


Resolve = Callable[[str, str], ResolvedLora]
"""Finds a LoRA by a name and the request's field that holds it, or raises InvalidRequestError."""


def collect(
    references: Sequence[LoraReference],
    tags: Sequence[LoraTag],
    resolve: Resolve,
    limit: int,
) -> tuple[LoraUse, ...]:
    """Merge the LoRAs of the body and of the prompt into one set, ordered by name.

    The strengths of a LoRA that is named more than once are added; one whose strengths are both 0
    is left out. The result does not depend on the order in the request, so that the same LoRAs are
    always the same set.

    Args:
        references: in the body.
        tags: in the prompt.
        resolve: finds the entry of a name.
        limit: maximum number of different LoRAs.

    Raises:
        InvalidRequestError: a name is unknown (`resolve` raises it), a sum of strengths is beyond
            -10 to 10, or there are more than `limit`.
    """
    gathered: dict[str, _Gathered] = {}
    for mention in _mentions(references, tags):
        found = resolve(mention.name, mention.field)
        lora = gathered.setdefault(found.manifest.name, _Gathered(found, mention.field, []))
        lora.strengths.append(mention.strength)
    uses = tuple(lora.use() for _, lora in sorted(gathered.items()))
    used = tuple(use for use in uses if any(use.strength))
    if len(used) > limit:
        raise InvalidRequestError(
            f"the request uses {len(used)} different LoRAs; at most {limit} are accepted here",
            field="loras" if references else "prompt",
        )
    return used


def refuse_in_negative(prompt: Prompt | PromptSchedule) -> None:
    """Refuse LoRA tags in a negative prompt: a LoRA changes the model for both prompts.

    Raises:
        InvalidPromptError: there is one; the message gives its position.
    """
    refused = [tag.start for tag in prompt.refused_tags if tag.is_lora]
    for start in sorted([*refused, *(tag.start for tag in prompt.lora_tags)]):
        raise InvalidPromptError(
            f"the LoRA tag at character {start} has no place in the negative prompt, since a"
            " LoRA works on both; it belongs in the prompt or in the list loras, with a weight"
            " below 0 to work against it",
            field="negative_prompt",
        )


class _Mention(NamedTuple):
    """One mention of a LoRA in a request."""

    name: str
    field: str
    strength: LoraStrength


def _mentions(references: Sequence[LoraReference], tags: Sequence[LoraTag]) -> Iterator[_Mention]:
    for index, one in enumerate(references):
        own = one.text_encoder_weight
        strength = LoraStrength(one.weight, one.weight if own is None else own)
        yield _Mention(one.name, f"loras.{index}.name", strength)
    for tag in tags:
        yield _Mention(tag.name, "prompt", LoraStrength(tag.weight, tag.text_encoder_weight))


@dataclass
class _Gathered:
    """All mentions of one LoRA in a request."""

    found: ResolvedLora
    field: str
    strengths: list[LoraStrength]

    def use(self) -> LoraUse:
        # Rounded once, so that the order of the parts changes no bit of the sum.
        strength = LoraStrength(*map(math.fsum, zip(*self.strengths, strict=True)))
        manifest = self.found.manifest
        if max(map(abs, strength)) > MAX_STRENGTH:
            raise InvalidRequestError(
                f"the weights of the LoRA {manifest.name} add up to"
                f" {max(strength, key=abs):g}; -{MAX_STRENGTH:g} to {MAX_STRENGTH:g} would be"
                " right",
                field=self.field,
            )
        return LoraUse(manifest.name, manifest.origin.sha256, strength, self.found.key)

"""What LoRAs a request asks for: the body's and the prompt's tags, merged into one set.

Pure: how a name is looked up is told by the caller, and no weights are known here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from lpw_sdxl.errors import InvalidPromptError, InvalidRequestError
from lpw_sdxl.prompt.syntax import LoraTag, Prompt
from lpw_sdxl.schema import MAX_STRENGTH, LoraReference
from lpw_sdxl.store.origin import Origin


class LoraStrength(NamedTuple):
    """What a LoRA's changes are multiplied by, in the UNet and in both text encoders."""

    unet: float
    text_encoder: float


@dataclass(frozen=True)
class LoraUse:
    """One LoRA of a set, and how strong it is.

    Attributes:
        name: the registry's own.
        sha256: of the imported file, hex.
        strength: of which at least one is not 0, each within 10 of 0.
    """

    name: str
    sha256: str
    strength: LoraStrength


class NamedSource(Protocol):
    """What a manifest tells of a LoRA."""

    @property
    def name(self) -> str:
        """The name it was imported under."""

    @property
    def origin(self) -> Origin:
        """The imported file."""


class Resolved(Protocol):
    """An entry of the registry."""

    @property
    def manifest(self) -> NamedSource:
        """Its manifest."""


Resolve = Callable[[str, str], Resolved]
"""Finds a LoRA by a name and the request's field that holds it, or raises InvalidRequestError."""


def collect(
    references: Sequence[LoraReference],
    tags: Sequence[LoraTag],
    resolve: Resolve,
    limit: int,
) -> tuple[LoraUse, ...]:
    """Merge what the body and the prompt name into one set.

    A LoRA that is named more than once has the sum of its strengths, and one whose strengths are
    both 0 is left out. The sums and the order, which is that of the names, don't depend on the
    order that a request was written in, so that equal sets are equal.

    Args:
        references: the body's.
        tags: the prompt's.
        resolve: gives a name's entry.
        limit: how many different ones are accepted.

    Raises:
        InvalidRequestError: a name is unknown (`resolve` raises it), a sum of strengths is beyond
            10, or there are more than `limit`.
    """
    gathered: dict[str, _Gathered] = {}
    for mention in _mentions(references, tags):
        manifest = resolve(mention.name, mention.field).manifest
        lora = gathered.setdefault(manifest.name, _Gathered(manifest, mention.field, []))
        lora.strengths.append(mention.strength)
    uses = tuple(lora.use() for _, lora in sorted(gathered.items()))
    used = tuple(use for use in uses if any(use.strength))
    if len(used) > limit:
        raise InvalidRequestError(
            f"the request uses {len(used)} different LoRAs; at most {limit} are accepted here",
            field="loras" if references else "prompt",
        )
    return used


def refuse_in_negative(prompt: Prompt) -> None:
    """Refuse LoRA tags in a negative prompt: a LoRA changes the model for both prompts.

    Raises:
        InvalidPromptError: there is one; its position is told.
    """
    for tag in prompt.lora_tags:
        raise InvalidPromptError(
            f"the LoRA tag at character {tag.start} has no place in the negative prompt, since a"
            " LoRA works on both; it belongs in the prompt or in the list loras, with a weight"
            " below 0 to work against it",
            field="negative_prompt",
        )


class _Mention(NamedTuple):
    """A LoRA as it is named in one place of a request."""

    name: str
    field: str
    strength: LoraStrength


def _mentions(references: Sequence[LoraReference], tags: Sequence[LoraTag]) -> Iterator[_Mention]:
    for index, one in enumerate(references):
        told = one.text_encoder_weight
        strength = LoraStrength(one.weight, one.weight if told is None else told)
        yield _Mention(one.name, f"loras.{index}.name", strength)
    for tag in tags:
        yield _Mention(tag.name, "prompt", LoraStrength(tag.weight, tag.text_encoder_weight))


@dataclass
class _Gathered:
    """All that a request says of one LoRA."""

    manifest: NamedSource
    field: str
    strengths: list[LoraStrength]

    def use(self) -> LoraUse:
        # Rounded once, so that the order of the parts changes no bit of the sum.
        strength = LoraStrength(*map(math.fsum, zip(*self.strengths, strict=True)))
        if max(map(abs, strength)) > MAX_STRENGTH:
            raise InvalidRequestError(
                f"the weights of the LoRA {self.manifest.name} add up to"
                f" {max(strength, key=abs):g}; -{MAX_STRENGTH:g} to {MAX_STRENGTH:g} would be"
                " right",
                field=self.field,
            )
        return LoraUse(self.manifest.name, self.manifest.origin.sha256, strength)

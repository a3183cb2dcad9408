"""The model that a LoRA or an embedding fits: one of the store's, or SDXL at its own size.

A store may hold nothing but the tiny demo model; what was made for SDXL is imported all the same.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import NamedTuple

from lpw_sdxl.checkpoint import architecture
from lpw_sdxl.checkpoint.parameters import parameters_of
from lpw_sdxl.embedding.preflight import EmbeddingPlan, examine_half
from lpw_sdxl.errors import AddonError, CheckpointError, LpwSdxlError
from lpw_sdxl.lora.plan import NO_CHOICES, LoraChoices, LoraPlan
from lpw_sdxl.lora.preflight import examine
from lpw_sdxl.lora.targets import (
    TargetModules,
    encoder_widths,
    read_targets,
    signature,
    targets_of,
)
from lpw_sdxl.store import entries
from lpw_sdxl.weights.component import Component
from lpw_sdxl.weights.header import CheckpointHeader

SDXL = "SDXL"
SDXL_WIDTHS = tuple(encoder.width for encoder in architecture.SDXL.encoders)

logger = logging.getLogger(__name__)


class Candidate(NamedTuple):
    """A model that may be fitted: its tag or `SDXL`, and what its modules are."""

    name: str
    targets: TargetModules


class LoraFit(NamedTuple):
    """How a LoRA fits a model: the model, its signature and what goes where."""

    name: str
    signature: str
    plan: LoraPlan


def fit_lora(
    header: CheckpointHeader, model: str | None, choices: LoraChoices = NO_CHOICES
) -> LoraFit:
    """Find the first model that a LoRA fits.

    Args:
        header: of the LoRA's file.
        model: tag of the model that it must fit; None for any.
        choices: the user's for the file.

    Raises:
        AddonError: it fits none; the reason is SDXL's own, or that of the model asked for.
        ModelError: that model is not in the store.
    """
    reasons: dict[str, LpwSdxlError] = {}
    for candidate in candidates(model):
        try:
            plan = examine(header, candidate.targets, choices)
        except (AddonError, CheckpointError) as error:
            reasons[candidate.name] = error
            continue
        return LoraFit(candidate.name, signature(candidate.targets), plan)
    reason = reasons.get(SDXL) or next(iter(reasons.values()))
    raise reason


def order_pair(
    first: CheckpointHeader, second: CheckpointHeader, model: str | None
) -> tuple[CheckpointHeader, CheckpointHeader]:
    """Return two files, each for one text encoder, in the order of a model's encoders.

    Args:
        first: one of the files, in any order; it has one tensor.
        second: the other one.
        model: tag of the model that they must fit; None for any of the store's, or SDXL's own.

    Raises:
        AddonError: their widths are those of no model's two encoders.
        ModelError: the model asked for is not in the store.
    """
    found = tuple(examine_half(header).shape[-1] for header in (first, second))
    known = [encoder_widths(candidate.targets) for candidate in candidates(model, has_sdxl=False)]
    if model is None:
        known.append((SDXL_WIDTHS[0], SDXL_WIDTHS[1]))
    if found in known:
        return first, second
    if found[::-1] in known:
        return second, first
    right = known[0] if model is not None else known[-1]
    raise AddonError(
        f"{first.name} and {second.name} are for text encoders of the widths {found[0]} and "
        f"{found[1]}; one file for {right[0]} and one for {right[1]} would be right."
    )


def fit_embedding(header: CheckpointHeader, plan: EmbeddingPlan, model: str | None) -> str:
    """Return the name of the first model whose text encoders are as wide as an embedding.

    Raises:
        AddonError: it fits none.
        ModelError: the model asked for is not in the store.
    """
    names = []
    for candidate in candidates(model, has_sdxl=False):
        widths = encoder_widths(candidate.targets)
        if widths == plan.widths:
            return candidate.name
        names.append(f"{widths[0]} and {widths[1]} of {candidate.name}")
    if model is None and plan.widths == SDXL_WIDTHS:
        return SDXL
    right = names[0] if model is not None else f"{SDXL_WIDTHS[0]} and {SDXL_WIDTHS[1]} of SDXL"
    raise AddonError(
        f"{header.name} is for text encoders of the widths {plan.widths[0]} and {plan.widths[1]}; "
        f"the {right} would be right."
    )


def check_widths(header: CheckpointHeader, plan: EmbeddingPlan, targets: TargetModules) -> None:
    """Refuse an embedding that doesn't fit the text encoders of one model.

    Raises:
        AddonError: its widths are others.
    """
    widths = encoder_widths(targets)
    if plan.widths != widths:
        raise AddonError(
            f"{header.name} is for text encoders of the widths {plan.widths[0]} and "
            f"{plan.widths[1]}; the model that is served has {widths[0]} and {widths[1]}."
        )


def candidates(model: str | None, *, has_sdxl: bool = True) -> Iterator[Candidate]:
    """Yield the models that an add-on may be for, each shape of model once.

    Args:
        model: tag of the only one; None for the store's models, newest first, then SDXL's own.
        has_sdxl: whether SDXL's own comes last.
    """
    if model is not None:
        entry = entries.find(model)
        targets = read_targets(entry.path)
        yield Candidate(SDXL if _is_sdxl(targets) else entry.tag, targets)
        return
    seen = set()
    for entry in _newest_models():
        try:
            targets = read_targets(entry.path)
        except (LpwSdxlError, OSError) as error:
            logger.info("%s is no model to fit: %s", entry.tag, error)
            continue
        name = SDXL if _is_sdxl(targets) else entry.tag
        if (mark := signature(targets)) not in seen:
            seen.add(mark)
            yield Candidate(name, targets)
        has_sdxl &= name != SDXL
    if has_sdxl:
        yield Candidate(SDXL, sdxl_targets())


def sdxl_targets() -> TargetModules:
    """Return what SDXL's own modules are, as a model of its size in the store has them."""
    return targets_of(parameters_of(architecture.SDXL))


def _newest_models() -> list[entries.StoreEntry]:
    models = [entry for entry in entries.list_models() if entry.metadata]
    return sorted(models, key=lambda entry: str(entry.metadata.get("created")), reverse=True)


def _is_sdxl(targets: TargetModules) -> bool:
    """Return whether modules have SDXL's own size, and not that of tests or the demo."""
    channels, *_ = targets[Component.UNET]["conv_in"].weight
    return (channels, encoder_widths(targets)) == (architecture.SDXL.unet.widths[0], SDXL_WIDTHS)

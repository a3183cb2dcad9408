"""The plan of a conversion: every parameter's source, and a reason for all that is left over.

Made from names and shapes alone, before a weight is read; pure, no torch.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from lpw_sdxl.checkpoint.configs import Component
from lpw_sdxl.checkpoint.header import CheckpointHeader
from lpw_sdxl.checkpoint.keys import Shape, Transform, source_of
from lpw_sdxl.errors import CheckpointError

Targets = Mapping[Component, Mapping[str, Shape]]
"""The shape of every parameter of every component, from the modules that will load them."""

_NAMED_AT_MOST = 5
_WEIGHT_DTYPES = ("F16", "BF16", "F32")

_IGNORED = tuple(
    re.compile(pattern)
    for pattern in (
        # The numbers 0 to 76, which CLIP's old Transformers code kept among its weights.
        r"conditioner\.embedders\.0\.transformer\.text_model\.embeddings\.position_ids",
        # CLIP's temperature for comparing text with images; nothing here compares them.
        r"conditioner\.embedders\.[01](\.model|\.transformer)?\.logit_scale",
        # The first encoder's projection, which SDXL does not use.
        r"conditioner\.embedders\.0\.transformer\.text_projection\.weight",
        # Markers without content; `inspect.py` reads them.
        r"v_pred|ztsnr",
        # The noise schedule in training; the scheduler's configuration gives it.
        r"denoiser\.(log_)?sigmas|betas|posterior_\w+",
        r"(log_|sqrt_)?(one_minus_|recip_|recipm1_)?alphas_cumprod(_prev)?",
        # Averaged weights beside those that are served.
        r"model_ema\..*",
        # Losses and discriminators of the VAE's training.
        r"first_stage_model\.loss\..*",
    )
)


@dataclass(frozen=True)
class TensorPlan:
    """How one parameter of a component is made."""

    component: Component
    target_key: str
    shape: Shape
    source_key: str
    transform: Transform


def plan_conversion(header: CheckpointHeader, targets: Targets) -> tuple[TensorPlan, ...]:
    """Plan every parameter of every component.

    Raises:
        CheckpointError: a tensor is missing, left over, or of the wrong shape or dtype; it is
            named.
    """
    plans = tuple(
        TensorPlan(component, key, shape, source.key, source.transform)
        for component, parameters in targets.items()
        for key, shape in sorted(parameters.items())
        for source in (source_of(component, key),)
    )
    name = header.path.name
    _refuse(name, "lacks", missing_keys(header, plans))
    _refuse(name, "holds unexpected", unexpected_keys(header, plans))
    for plan in plans:
        _check(header, plan)
    return plans


def missing_keys(header: CheckpointHeader, plans: Collection[TensorPlan]) -> list[str]:
    """Return the source tensors that a plan needs and the file lacks, sorted."""
    return sorted({plan.source_key for plan in plans} - set(header.tensors))


def unexpected_keys(header: CheckpointHeader, plans: Collection[TensorPlan]) -> list[str]:
    """Return the file's tensors that nothing uses and no rule ignores, sorted."""
    left = set(header.tensors) - {plan.source_key for plan in plans}
    return sorted(key for key in left if not is_ignored(key))


def is_ignored(key: str) -> bool:
    """Tell whether a tensor is known to be of no use in serving."""
    return any(pattern.fullmatch(key) for pattern in _IGNORED)


def _refuse(file_name: str, verb: str, keys: list[str]) -> None:
    if not keys:
        return
    more = f" and {len(keys) - _NAMED_AT_MOST} more" if len(keys) > _NAMED_AT_MOST else ""
    raise CheckpointError(
        f"{file_name} {verb} tensors: {', '.join(keys[:_NAMED_AT_MOST])}{more}; SDXL's own, "
        "no fewer and no others, are needed."
    )


def _check(header: CheckpointHeader, plan: TensorPlan) -> None:
    tensor = header.tensors[plan.source_key]
    expected = plan.transform.source_shape(plan.shape)
    if tensor.shape != expected:
        raise CheckpointError(
            f"{header.path.name}: tensor {plan.source_key} has the shape {list(tensor.shape)}; "
            f"the other tensors make {list(expected)} right."
        )
    if tensor.dtype not in _WEIGHT_DTYPES:
        raise CheckpointError(
            f"{header.path.name}: tensor {plan.source_key} has the dtype {tensor.dtype}; "
            f"{', '.join(_WEIGHT_DTYPES)} can be imported."
        )

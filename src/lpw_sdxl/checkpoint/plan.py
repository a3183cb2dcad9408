"""The plan of a conversion: every parameter's source, and a reason for all that is left over.

Made from names and shapes alone, before a weight is read; pure, no torch.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from lpw_sdxl.checkpoint.keys import Shape, Source, Transform, sources_of
from lpw_sdxl.errors import CheckpointError
from lpw_sdxl.weights.component import Component
from lpw_sdxl.weights.header import CheckpointHeader, TensorInfo

Targets = Mapping[Component, Mapping[str, Shape]]
"""The shape of every parameter of every component, from the modules that will load them."""

WEIGHT_DTYPES = ("F16", "BF16", "F32", "F64", "F8_E4M3", "F8_E5M2")
"""safetensors' codes of numbers that stand for themselves, without a scale kept elsewhere."""

_NAMED_AT_MOST = 5

_IGNORED = tuple(
    (re.compile(pattern), reason)
    for pattern, reason in (
        (
            # The numbers 0 to 76, which CLIP's old Transformers code kept among its weights; files
            # that ComfyUI saved have them for both encoders.
            r"conditioner\.embedders\.[01]\.transformer\.text_model\.embeddings\.position_ids",
            "CLIP's position numbers",
        ),
        (
            # CLIP's temperature for comparing text with images; nothing here compares them.
            r"conditioner\.embedders\.[01](\.model|\.transformer)?\.logit_scale",
            "CLIP's temperature",
        ),
        (
            # The first encoder's projection: SDXL takes its hidden states only (Podell et al.,
            # 2023, section 2.1).
            r"conditioner\.embedders\.0(\.transformer)?\.text_projection(\.weight)?",
            "the first text encoder's projection",
        ),
        # Tensors without content; `inspect.py` reads them.
        (r"v_pred|ztsnr", "markers of what the UNet predicts"),
        (
            # The noise schedule in training; the scheduler's configuration gives it. OneTrainer
            # writes all of it into every checkpoint.
            r"denoiser\.(log_)?sigmas|betas|posterior_\w+"
            r"|(log_|sqrt_)?(one_minus_|recip_|recipm1_)?alphas_cumprod(_prev)?",
            "the noise schedule of the training",
        ),
        (r"model_ema\..*", "EMA weights"),
        (r"first_stage_model\.(loss|model_ema)\..*", "left-overs of the VAE's training"),
    )
)


@dataclass(frozen=True)
class TensorPlan:
    """How one parameter of a component is made.

    Attributes:
        component: whose parameter it is.
        target_key: its name there.
        shape: its shape there.
        source: where its numbers are; of a fused tensor, the part that is needed.
        transform: what is done to them.
    """

    component: Component
    target_key: str
    shape: Shape
    source: TensorInfo
    transform: Transform


@dataclass(frozen=True)
class ConversionPlan:
    """Every parameter's source, and what of the checkpoint is not used.

    Attributes:
        tensors: one for each parameter, by component and name.
        ignored: number of unused tensors by the reason that they are harmless.
    """

    tensors: tuple[TensorPlan, ...]
    ignored: Mapping[str, int]


def plan_conversion(header: CheckpointHeader, targets: Targets) -> ConversionPlan:
    """Plan every parameter of every component.

    Raises:
        CheckpointError: a tensor is missing, left over, or of the wrong shape or dtype; it is
            named.
    """
    wanted = {
        (component, key): _present(sources_of(component, key), header)
        for component, parameters in targets.items()
        for key in sorted(parameters)
    }
    used = {source.key for source in wanted.values()}
    _refuse(header, "lacks", sorted(used - set(header.tensors)))
    left = sorted(set(header.tensors) - used)
    _refuse(header, "holds unexpected", [key for key in left if ignored_as(key) is None])
    plans = tuple(
        _plan(component, key, targets[component][key], header.tensors[source.key], source.transform)
        for (component, key), source in wanted.items()
    )
    reasons = Counter(reason for reason in map(ignored_as, left) if reason)
    return ConversionPlan(plans, dict(reasons))


def ignored_as(key: str) -> str | None:
    """Return why a tensor is of no use in serving; None for one that nothing explains."""
    return next((reason for pattern, reason in _IGNORED if pattern.fullmatch(key)), None)


def _present(sources: tuple[Source, ...], header: CheckpointHeader) -> Source:
    """Return the first source that the file has; without one, the one that it should have."""
    return next((source for source in sources if source.key in header.tensors), sources[0])


def _refuse(header: CheckpointHeader, verb: str, keys: list[str]) -> None:
    if not keys:
        return
    more = f" and {len(keys) - _NAMED_AT_MOST} more" if len(keys) > _NAMED_AT_MOST else ""
    raise CheckpointError(
        f"{header.file_of(keys[0])} {verb} tensors: {', '.join(keys[:_NAMED_AT_MOST])}{more}; "
        "SDXL's own, no fewer and no others, are needed."
    )


def _plan(
    component: Component, key: str, shape: Shape, tensor: TensorInfo, transform: Transform
) -> TensorPlan:
    expected = transform.source_shapes(shape)
    if tensor.shape not in expected:
        raise CheckpointError(
            f"{tensor.path.name}: tensor {tensor.name} has the shape {list(tensor.shape)}; "
            f"the other tensors make {list(expected[0])} right."
        )
    if tensor.dtype not in WEIGHT_DTYPES:
        raise CheckpointError(
            f"{tensor.path.name}: tensor {tensor.name} has the dtype {tensor.dtype}; "
            f"{', '.join(WEIGHT_DTYPES)} can be imported."
        )
    third = transform.third
    source = tensor if third is None else tensor.rows(third * shape[0], shape[0])
    return TensorPlan(component, key, shape, source, transform)

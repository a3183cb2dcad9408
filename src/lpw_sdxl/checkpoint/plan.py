"""The plan of a conversion: every parameter's source, and a reason for all that is left over.

Made from names and shapes alone, before a weight is read; pure, no torch. `kinds.py` comes first:
a file that another model is known by never gets here.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from lpw_sdxl.checkpoint.keys import Shape, Source, Transform, network_of, sources_of
from lpw_sdxl.errors import CheckpointError
from lpw_sdxl.store.manifest import UNKNOWN
from lpw_sdxl.weights.component import Component
from lpw_sdxl.weights.header import CheckpointHeader, TensorInfo
from lpw_sdxl.weights.text import listed

Targets = Mapping[Component, Mapping[str, Shape]]
"""The shape of every parameter of every component."""

WEIGHT_DTYPES = ("F16", "BF16", "F32", "F64", "F8_E4M3", "F8_E5M2")
"""safetensors' codes of numbers that stand for themselves, without a scale kept elsewhere."""

NO_PART = "tensors of no part of SDXL"
"""The reason of an extra tensor that is under no network's names, and that nothing explains."""

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
            # writes all of it into every checkpoint, and `model_sampling` is ComfyUI's.
            r"denoiser\.(log_)?sigmas|model_sampling\..*|betas|posterior_\w+"
            r"|(log_|sqrt_)?(one_minus_|recip_|recipm1_)?alphas_cumprod(_prev)?",
            "the noise schedule of the training",
        ),
        (r"model_ema\..*", "EMA weights"),
        (
            r"first_stage_model\.((loss|model_ema|discriminator)\..*|epoch|global_step|logvar)",
            "left-overs of the VAE's training",
        ),
        (
            # Stability's trainer (ldm, sgm) keeps the first four, Lightning the counters.
            r"logvar|scale_factor|embedding_manager\..*|discriminator\..*|loss\..*"
            r"|epoch|step|global_step|iteration",
            "left-overs of the training",
        ),
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
        left_out: names of unused tensors, as their file has them, by the reason.
    """

    tensors: tuple[TensorPlan, ...]
    left_out: Mapping[str, tuple[str, ...]]

    @property
    def parameter_count(self) -> int:
        """Return how many numbers all parameters have."""
        return sum(prod(plan.shape) for plan in self.tensors)

    @property
    def ignored(self) -> dict[str, int]:
        """Return the number of unused tensors by the reason."""
        return {reason: len(names) for reason, names in self.left_out.items()}

    @property
    def unknown(self) -> tuple[str, ...]:
        """Return the names of unused tensors that are under a network's own names."""
        return tuple(
            name
            for reason, names in self.left_out.items()
            if reason.startswith(UNKNOWN)
            for name in names
        )


def plan_conversion(
    header: CheckpointHeader, targets: Targets, *, ignore_unknown: bool = False
) -> ConversionPlan:
    """Plan every parameter of every component.

    Args:
        header: the checkpoint's, with Stability's names.
        targets: what is wanted.
        ignore_unknown: whether a tensor that is under a network's own names, and that the network
            has no place for, is left out.

    Raises:
        CheckpointError: a tensor is missing, unknown, or of the wrong shape or dtype; it is named.
    """
    wanted = {
        (component, key): _present(sources_of(component, key), header)
        for component, parameters in targets.items()
        for key in sorted(parameters)
    }
    used = {source.key for source in wanted.values()}
    missing = sorted(used - set(header.tensors))
    if missing:
        raise CheckpointError(
            f"{header.file_of(missing[0])} lacks tensors: {_listed(missing)}; all of SDXL's own "
            "are needed."
        )
    left_out = defaultdict(list)
    unknown = []
    for key in sorted(set(header.tensors) - used):
        reason = reason_left_out(key)
        left_out[reason].append(header.tensors[key].name)
        if reason.startswith(UNKNOWN):
            unknown.append(key)
    if unknown and not ignore_unknown:
        names = [header.tensors[key].name for key in unknown]
        raise CheckpointError(
            f"{header.file_of(unknown[0])} holds unexpected tensors: {_listed(names)}; SDXL's own "
            "are needed, or --ignore-unknown, which leaves the others out."
        )
    plans = tuple(
        _plan(component, key, targets[component][key], header.tensors[source.key], source.transform)
        for (component, key), source in wanted.items()
    )
    return ConversionPlan(plans, {reason: tuple(names) for reason, names in left_out.items()})


def reason_left_out(key: str) -> str:
    """Return why a tensor that no parameter is made from is left out.

    Reasons that begin with `UNKNOWN` are those of tensors under a network's own names.
    """
    known = next((reason for pattern, reason in _IGNORED if pattern.fullmatch(key)), None)
    if known is not None:
        return known
    network = network_of(key)
    return NO_PART if network is None else f"{UNKNOWN}{network}"


def _present(sources: tuple[Source, ...], header: CheckpointHeader) -> Source:
    """Return the first source that the file has; without one, the one that it should have."""
    return next((source for source in sources if source.key in header.tensors), sources[0])


def _listed(names: Sequence[str]) -> str:
    return listed(names, _NAMED_AT_MOST)


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

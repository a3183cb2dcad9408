"""Sampler, schedule type and noise of A1111's requests, by both generations of its names.

Until A1111's 1.9 a schedule type was a part of the sampler's name, as in `DPM++ 2M Karras`; since
then it is a field of its own, whose `Automatic` is the sampler's own type.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import PydanticCustomError

from lpw_sdxl.doors.a1111.loose_fields import LooseFields
from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.sampler_names import SamplerLabel, split_label
from lpw_sdxl.sampler_table import SAMPLERS, SamplerName, SamplerNoise, find_sampler, read_sampler
from lpw_sdxl.sampling_options import (
    NoiseSource,
    SamplerImplementation,
    SigmaScheduleType,
    read_sigma_schedule_type,
)

DEFAULT_SAMPLER = SamplerName.EULER
_SAME = "use same"  # as in the first pass
_S_NOISE = (
    *(SamplerName.DPM2_ANCESTRAL, SamplerName.DPMPP_2S_ANCESTRAL, SamplerName.DPMPP_SDE),
    *(SamplerName.DPMPP_2M_SDE, SamplerName.DPMPP_2M_SDE_HEUN, SamplerName.DPMPP_3M_SDE),
)
"""Samplers whose noise A1111 multiplies by `s_noise`."""
_CHURNING = (SamplerName.EULER, SamplerName.HEUN, SamplerName.DPM2)
"""Samplers to which A1111 passes `s_churn` and its kin."""


def read_sampling(fields: LooseFields, base: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Read sampler and schedule type; empty where neither is named.

    An explicit schedule type counts before that of the sampler's name, but for `Automatic`, which
    some clients always send.

    Args:
        fields: of the request.
        base: fields of our request that hold where a name is missing.
        prefix: of the names, `hr_` for those of a second pass.

    Raises:
        InvalidRequestError: a name is unknown.
    """
    name_field, name = _named(fields, f"{prefix}sampler_name", f"{prefix}sampler_index")
    type_field, wanted = _named(fields, f"{prefix}scheduler")
    if name is None and wanted is None:
        return {}
    label = SamplerLabel(DEFAULT_SAMPLER, None)
    if name is not None:
        label = _read_label(name_field, name)
    elif (known := find_sampler(str(base.get("scheduler", "")))) is not None:
        label = SamplerLabel(known, None)
    schedule_type = label.schedule_type
    if wanted is not None:
        named = _read_type(type_field, wanted)
        if named is not SigmaScheduleType.AUTOMATIC:
            schedule_type = named
    elif schedule_type is None:
        schedule_type = base.get("schedule_type")
    if SAMPLERS[label.sampler].walks_timesteps:
        schedule_type = None  # as in A1111, which does not read it for these
    return {"scheduler": label.sampler, "schedule_type": schedule_type}


def read_noise(
    fields: LooseFields,
    settings: LooseFields,
    native: Mapping[str, Any],
    samplers: Sequence[SamplerName],
) -> dict[str, Any]:
    """Read the share of ancestral noise, and refuse what would change the noise otherwise.

    As in A1111, 0 is a share, and a sampler without one has no use for it.

    Args:
        fields: of the request.
        settings: A1111's options, which count where the request has none.
        native: fields of our request, which count after both.
        samplers: of the passes; none where the first is one of Diffusers' schedulers.

    Raises:
        InvalidRequestError: a factor is not done here, for a sampler.
    """
    if not samplers:
        return {}
    shares = [_eta_of(fields, settings, native, sampler) for sampler in samplers]
    for sampler, eta in zip(samplers, shares, strict=True):
        _check_factors(fields, settings, sampler, eta)
    if SAMPLERS[samplers[0]].eta is None and shares[-1] is not None:
        raise fields.refuse("eta", f"is not done here for {samplers[-1]} in a second pass alone")
    return {"eta": shares[0]}


def _eta_of(
    fields: LooseFields, settings: LooseFields, native: Mapping[str, Any], sampler: SamplerName
) -> float | None:
    """Read the share of ancestral noise for a sampler; None for its own."""
    own = SAMPLERS[sampler].eta
    if own is None:
        return None
    eta = fields.number("eta")
    if eta is None:
        eta = settings.number("eta_ddim" if sampler is SamplerName.DDIM else "eta_ancestral")
    if eta is None:
        eta = native.get("eta")
    return None if eta == own else eta


def _check_factors(
    fields: LooseFields, settings: LooseFields, sampler: SamplerName, eta: float | None
) -> None:
    adds_noise = SAMPLERS[sampler].noise is not SamplerNoise.NONE and eta != 0
    for name, default, is_used in (
        ("s_churn", 0, sampler in _CHURNING),
        ("s_noise", 1, sampler in _S_NOISE and adds_noise),
        ("s_min_uncond", 0, True),
    ):
        for source in (fields, settings):
            if is_used and source.number(name) not in (None, default):
                raise source.refuse(
                    name, f"is not done here with {sampler}; {default} or null is right"
                )


def defaults() -> dict[str, Any]:
    """Return the family, the sampler and the noise of A1111's requests."""
    return {
        "sampler_implementation": SamplerImplementation.K_DIFFUSION,
        "noise_source": NoiseSource.NV,
        "scheduler": DEFAULT_SAMPLER,
    }


def _named(fields: LooseFields, *names: str) -> tuple[str, str | None]:
    """Return the first field that names something, and the name."""
    for name in names:
        text = (fields.text(name) or "").strip()
        if text and not text.lower().startswith(_SAME):
            return name, text
    return names[0], None


def _read_label(field: str, name: str) -> SamplerLabel:
    label = split_label(name)
    if label is None:
        try:
            read_sampler(name)
        except PydanticCustomError as error:
            raise InvalidRequestError(f"{field}: {error.message()}", field=field) from None
        raise InvalidRequestError(f"{field} is no sampler", field=field)
    return label


def _read_type(field: str, name: str) -> SigmaScheduleType:
    try:
        found = read_sigma_schedule_type(name)
    except PydanticCustomError as error:
        raise InvalidRequestError(f"{field}: {error.message()}", field=field) from None
    assert isinstance(found, SigmaScheduleType)
    return found

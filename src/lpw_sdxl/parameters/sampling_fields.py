"""The keys about sampler, schedule and noise, to the fields of a request."""

from __future__ import annotations

from collections.abc import Mapping

from lpw_sdxl.parameters.draft import Draft
from lpw_sdxl.parameters.numbers import read_number, read_whole
from lpw_sdxl.parameters.program import Program, Writer
from lpw_sdxl.parameters.written import Pair
from lpw_sdxl.sampler_names import SamplerLabel, split_label
from lpw_sdxl.sampler_table import (
    SAMPLERS,
    SamplerName,
    find_unserved_sampler,
)
from lpw_sdxl.sampling_options import (
    NoiseSource,
    SamplerImplementation,
    SigmaScheduleType,
    TimestepRounding,
    find_sigma_schedule_type,
)
from lpw_sdxl.scheduler_table import SchedulerName, find_scheduler

_AUTOMATIC, _UNIFORM = SigmaScheduleType.AUTOMATIC, SigmaScheduleType.UNIFORM
# `GPU` is what an NVIDIA card draws, and `NV` the same numbers drawn on a CPU.
_NOISE_SOURCES: Mapping[str, NoiseSource] = {
    "gpu": NoiseSource.NV,
    "nv": NoiseSource.NV,
    "cpu": NoiseSource.CPU,
}
_DEFAULT_KEPT = "the server's default is taken"


def put_sampling(draft: Draft, writer: Writer) -> None:
    """Put family, sampler, schedule type and noise."""
    if writer.program is Program.OWN:
        _put_own_family(draft)
    elif writer.program is not Program.SD_NEXT:
        draft.fields["sampler_implementation"] = SamplerImplementation.K_DIFFUSION
    if draft.fields.get("sampler_implementation") is SamplerImplementation.K_DIFFUSION:
        _put_sampler(draft, writer)
        _put_noise(draft, writer)
    else:
        _put_scheduler(draft, writer)


def _put_own_family(draft: Draft) -> None:
    pair = draft.pair("sampler implementation")
    if pair is not None:
        draft.put(pair, sampler_implementation=pair.value)
    pair = draft.pair("timestep rounding")
    if pair is not None:
        draft.put(pair, timestep_rounding=pair.value)


def _put_scheduler(draft: Draft, writer: Writer) -> None:
    """Put one of Diffusers' schedulers and its schedule type."""
    pair = draft.pair("sampler")
    if pair is not None and writer.program is Program.SD_NEXT:
        scheduler = _find_sd_next_scheduler(draft, pair)
        if scheduler is None:
            draft.note(*pair, f"It is not served; {_DEFAULT_KEPT}.")
        else:
            draft.put(pair, scheduler=scheduler)
    elif pair is not None:
        draft.put(pair, scheduler=pair.value)
    schedule_type = draft.pair("schedule type")
    if schedule_type is not None and writer.program is Program.OWN:
        draft.put(schedule_type, schedule_type=schedule_type.value)


def _find_sd_next_scheduler(draft: Draft, pair: Pair) -> SchedulerName | None:
    sigmas = draft.written.value("sampler sigma")
    joined = find_scheduler(f"{pair.value} {sigmas}") if sigmas else None
    return joined or find_scheduler(pair.value)


def _put_sampler(draft: Draft, writer: Writer) -> None:
    """Put one of k-diffusion's samplers, and its schedule type where it takes one."""
    pair = draft.pair("sampler")
    label = None if pair is None else split_label(pair.value)
    if pair is not None and label is None:
        draft.note(*pair, _explain_sampler(pair.value))
    if pair is not None and label is not None:
        draft.put(pair, scheduler=label.sampler)
    _put_schedule_type(draft, writer, label)


def _put_schedule_type(draft: Draft, writer: Writer, label: SamplerLabel | None) -> None:
    """Put the schedule type: as its key has it, else as the sampler's name has it or had it."""
    written = draft.pair("schedule type")
    schedule_type = None if written is None else find_sigma_schedule_type(written.value)
    if written is not None and schedule_type is None:
        draft.note(*written, f"It is not served; {_AUTOMATIC} is taken.")
    if label is not None and SAMPLERS[label.sampler].walks_timesteps:
        return
    if schedule_type is _AUTOMATIC and writer.program is not Program.OWN:
        schedule_type = None
    if schedule_type is None and label is not None:
        schedule_type = label.schedule_type
        if schedule_type is None and written is None and _was_uniform(label.sampler, writer):
            schedule_type = _UNIFORM
    pair = written or draft.pair("sampler")
    if pair is not None and schedule_type is not None:
        draft.put(pair, schedule_type=schedule_type)


def _was_uniform(sampler: SamplerName, writer: Writer) -> bool:
    """Return whether a sampler's bare name means the model's own schedule, as it did before 1.9."""
    is_own = writer.program is Program.OWN
    is_fixed = sampler is SamplerName.RESTART  # Karras in every version
    return not (is_own or is_fixed or writer.splits_samplers) and (
        SAMPLERS[sampler].automatic is not _UNIFORM
    )


def _explain_sampler(name: str) -> str:
    unserved = find_unserved_sampler(name)
    if unserved is not None:
        return f"It is a sampler of AUTOMATIC1111 that is not served; {_DEFAULT_KEPT}."
    scheduler = find_scheduler(name)
    if scheduler is not None:
        return f"It is served by sampler_implementation 'diffusers' alone; {_DEFAULT_KEPT}."
    return f"It is not served; {_DEFAULT_KEPT}. Served are {', '.join(SamplerName)}."


def _put_noise(draft: Draft, writer: Writer) -> None:
    """Put whose noise is drawn, from which seeds, and how much of it."""
    _put_source(draft, writer)
    if writer.program in (Program.FORGE, Program.COMFY_UI):
        draft.fields["timestep_rounding"] = TimestepRounding.NEAREST
    _put_eta(draft)
    _put_seed_delta(draft)
    _put_variation(draft)


def _put_source(draft: Draft, writer: Writer) -> None:
    pair = draft.pair("rng")
    default = NoiseSource.NV
    if writer.program is Program.COMFY_UI:
        default = NoiseSource.CPU
    source = default if pair is None else _NOISE_SOURCES.get(pair.value.casefold())
    if writer.program is Program.OWN and pair is None:
        return
    if source is None and pair is not None:
        draft.note(*pair, "Noise is drawn as on a CPU (CPU) or an NVIDIA card (NV); NV is taken.")
    draft.fields["noise_source"] = source or default


def _put_eta(draft: Draft) -> None:
    """Put the share of ancestral noise; a sampler without one has no use for it."""
    sampler = draft.fields.get("scheduler")
    if not isinstance(sampler, SamplerName) or SAMPLERS[sampler].eta is None:
        return
    is_ddim = sampler is SamplerName.DDIM
    pair = draft.pair("eta ddim" if is_ddim else "eta") or (draft.pair("eta") if is_ddim else None)
    if pair is not None:
        draft.put_number(pair, "eta", "the sampler's own share of noise")


def _put_seed_delta(draft: Draft) -> None:
    pair = draft.pair("ensd")
    if pair is None:
        return
    delta = read_whole(pair.value)
    if delta is None:
        draft.note(*pair, "It is no whole number; noise has the seed itself.")
    else:
        draft.put(pair, eta_noise_seed_delta=delta)


def _put_variation(draft: Draft) -> None:
    seed, strength = draft.pair("variation seed"), draft.pair("variation seed strength")
    share = None if strength is None else read_number(strength.value)
    if strength is None or share == 0:
        return
    if share is None:
        draft.note(*strength, "It is no number; the seed is taken without a variation.")
        return
    number = None if seed is None else read_whole(seed.value)
    if seed is not None and number is None:
        draft.note(*seed, "It is no whole number; another one is drawn.")
    draft.put(strength, variation_seed=number, variation_strength=share)

"""What a file is, from its header alone, whether it can be imported or not."""

# ruff: noqa: PLC0415 - what knows the store is imported by the steps that need it

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from lpw_sdxl.addon.manifest import AddonDetails
from lpw_sdxl.checkpoint.architecture import SDXL, read_architecture
from lpw_sdxl.checkpoint.inspect import CheckpointSummary, summarise
from lpw_sdxl.checkpoint.keys import sources_of
from lpw_sdxl.checkpoint.kinds import CheckpointKind, kind_of
from lpw_sdxl.checkpoint.layout import standardise
from lpw_sdxl.checkpoint.notes import header_notes
from lpw_sdxl.checkpoint.parameters import parameters_of
from lpw_sdxl.checkpoint.plan import plan_conversion
from lpw_sdxl.embedding import preflight as embedding_preflight
from lpw_sdxl.errors import AddonError, CheckpointError, LpwSdxlError
from lpw_sdxl.importing.addon_rows import addon_rows
from lpw_sdxl.importing.checkpoints import left_out_rows, summary_rows
from lpw_sdxl.importing.console import Row
from lpw_sdxl.lora.preflight import describe_file
from lpw_sdxl.store.command import import_command
from lpw_sdxl.store.kind import AddonKind
from lpw_sdxl.store.space import SPARE_BYTES, gigabytes
from lpw_sdxl.upscaling.pickles import is_pickle_file
from lpw_sdxl.upscaling.preflight import examine as examine_upscaler
from lpw_sdxl.upscaling.preflight import is_upscaler
from lpw_sdxl.weights.component import Component
from lpw_sdxl.weights.dtypes import CheckpointDtype
from lpw_sdxl.weights.header import CheckpointHeader, TensorInfo, read_header


def inspect_file(path: Path) -> list[Row]:
    """List what a file is, one fact a row.

    Raises:
        CheckpointError: it is damaged, or no safetensors file.
        AddonError: it is an add-on with a flaw in it.
    """
    if is_pickle_file(path):
        return _pickle_rows(path)
    header = read_header(path)
    kind = kind_of(header.tensors, header.metadata)
    if kind is CheckpointKind.LORA:
        return _lora_rows(header)
    if kind is CheckpointKind.EMBEDDING:
        return _embedding_rows(header)
    if is_upscaler(header):
        return _upscaler_rows(header)
    if kind is CheckpointKind.UNKNOWN and len(header.tensors) == 1:
        half = _half_rows(header)
        if half:
            return half
    header = standardise(header)
    summary = summarise(header)
    rows = summary_rows(header.name, header.file_size, summary)
    return [*rows, *_plan_rows(header, summary)]


def _plan_rows(header: CheckpointHeader, summary: CheckpointSummary) -> list[Row]:
    """List what the import of an SDXL checkpoint would leave out, or why it would refuse it."""
    if not summary.kind.is_served:
        return []
    if not summary.has_vae:
        header = _with_sdxl_vae(header)
    try:
        targets = parameters_of(read_architecture(header))
        plan = plan_conversion(header, targets, ignore_unknown=True)
    except CheckpointError as error:
        return [("can't be imported", str(error))]
    return [
        _needs(_dtype_sizes(plan.parameter_count)),
        *left_out_rows(plan, "imported only with --ignore-unknown, which leaves out"),
    ]


def _dtype_sizes(count: int) -> str:
    """Write what an entry of so many numbers takes, in each dtype that one may have."""
    flags: dict[int, list[str]] = {}
    for dtype in CheckpointDtype:
        flags.setdefault(dtype.size, []).append(dtype.flag)
    return ", ".join(
        f"{gigabytes(count * size + SPARE_BYTES)} in {' or '.join(names)}"
        for size, names in flags.items()
    )


def _addon_needs(header: CheckpointHeader) -> Row:
    return _needs(gigabytes(header.file_size + SPARE_BYTES))


def _needs(entry: str) -> Row:
    """Return how much room an import takes, and the settings that move it elsewhere."""
    return "an import needs", (
        f"{entry} in the model store (BENTOML_HOME); a download also takes the file's own size, in"
        " LPW_SDXL_DOWNLOADS"
    )


def _with_sdxl_vae(header: CheckpointHeader) -> CheckpointHeader:
    """Return the header as if `--vae` had named a file with SDXL's own VAE."""
    tensors = dict(header.tensors)
    for key, shape in parameters_of(SDXL)[Component.VAE].items():
        (source,) = sources_of(Component.VAE, key)
        usual = source.transform.source_shapes(shape)[0]
        tensors[source.key] = TensorInfo(header.path, source.key, "F32", usual, 0, 0)
    return replace(header, tensors=MappingProxyType(tensors))


def _lora_rows(header: CheckpointHeader) -> list[Row]:
    from lpw_sdxl.addon.fit import fit_lora
    from lpw_sdxl.addon.opened import lora_details

    try:
        fit = fit_lora(header, None)
    except LpwSdxlError as error:
        summary = describe_file(header)
        rows = addon_rows(header, AddonKind.LORA, lora_details(summary, {}), summary.notes)
        return [*rows, ("can't be imported", str(error))]
    summary = fit.plan.summary
    details = lora_details(summary, fit.plan.ignored)
    rows = addon_rows(header, AddonKind.LORA, details, summary.notes)
    return [
        *rows,
        ("fits", fit.name),
        _addon_needs(header),
        _command(AddonKind.LORA),
    ]


def _embedding_rows(header: CheckpointHeader) -> list[Row]:
    plan = embedding_preflight.examine(header)
    details = AddonDetails(naming=plan.naming, vectors=plan.vectors)
    return [
        *addon_rows(header, AddonKind.EMBEDDING, details, header_notes(header)),
        ("text encoders", f"of the widths {plan.widths[0]} and {plan.widths[1]}"),
        _addon_needs(header),
        _command(AddonKind.EMBEDDING),
    ]


def _half_rows(header: CheckpointHeader) -> list[Row]:
    """List what one file of a pair is; empty for a tensor that is no vectors of one."""
    try:
        tensor = embedding_preflight.examine_half(header)
    except AddonError:
        return []
    vectors = tensor.shape[0] if len(tensor.shape) > 1 else 1
    details = AddonDetails(naming=embedding_preflight.PAIR_NAMING, vectors=vectors)
    return [
        *addon_rows(header, AddonKind.EMBEDDING, details, header_notes(header)),
        ("text encoders", f"one, of the width {tensor.shape[-1]}; the other's file is needed too"),
        ("import it with", embedding_preflight.how_to_join()),
    ]


def _upscaler_rows(header: CheckpointHeader) -> list[Row]:
    from lpw_sdxl.addon.upscaler import upscaler_details

    kind, notes = AddonKind.UPSCALER, header_notes(header)
    try:
        details = upscaler_details(examine_upscaler(header))
    except AddonError as error:
        rows = addon_rows(header, kind, AddonDetails(), notes)
        return [*rows, ("can't be imported", str(error))]
    return [*addon_rows(header, kind, details, notes), _addon_needs(header), _command(kind)]


def _pickle_rows(path: Path) -> list[Row]:
    """List what a pickle is that is an upscaler's.

    Raises:
        CheckpointError: it is none; pickles of other kinds are not read.
    """
    from lpw_sdxl.upscaling.pickled_tensors import read_pickle_header

    with suppress(AddonError):
        header = read_pickle_header(path)
        if is_upscaler(header):
            return _upscaler_rows(header)
    read_header(path)  # which refuses it by its format
    raise AssertionError("a pickle passed for safetensors")


def _command(kind: AddonKind) -> Row:
    return "import it with", import_command(f"{kind} FILE")

"""What a file is, from its header alone, whether it can be imported or not."""

# ruff: noqa: PLC0415 - what knows the store is imported by the steps that need it

from __future__ import annotations

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
from lpw_sdxl.errors import CheckpointError, LpwSdxlError
from lpw_sdxl.importing.addon_rows import addon_rows
from lpw_sdxl.importing.checkpoints import left_out_rows, summary_rows
from lpw_sdxl.importing.console import Row
from lpw_sdxl.lora.preflight import describe_file
from lpw_sdxl.store.kind import AddonKind
from lpw_sdxl.weights.component import Component
from lpw_sdxl.weights.header import CheckpointHeader, TensorInfo, read_header


def inspect_file(path: Path) -> list[Row]:
    """List what a file is, one fact a row.

    Raises:
        CheckpointError: it is damaged, or no safetensors file.
        AddonError: it is a LoRA or an embedding with a flaw in it.
    """
    header = read_header(path)
    kind = kind_of(header.tensors, header.metadata)
    if kind is CheckpointKind.LORA:
        return _lora_rows(header)
    if kind is CheckpointKind.EMBEDDING:
        return _embedding_rows(header)
    header = standardise(header)
    summary = summarise(header)
    rows = summary_rows(header.name, header.file_size, summary)
    return [*rows, *_plan_rows(header, summary)]


def _plan_rows(header: CheckpointHeader, summary: CheckpointSummary) -> list[Row]:
    """List what the import of an SDXL checkpoint would leave out, or why it would refuse it."""
    if summary.kind is not CheckpointKind.SDXL:
        return []
    if not summary.has_vae:
        header = _with_sdxl_vae(header)
    try:
        targets = parameters_of(read_architecture(header))
        plan = plan_conversion(header, targets, ignore_unknown=True)
    except CheckpointError as error:
        return [("can't be imported", str(error))]
    return left_out_rows(plan, "imported only with --ignore-unknown, which leaves out")


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

    summary = describe_file(header)
    rows = addon_rows(header, AddonKind.LORA, lora_details(summary, {}), summary.notes)
    try:
        fit = fit_lora(header, None)
    except LpwSdxlError as error:
        return [*rows, ("can't be imported", str(error))]
    return [*rows, ("fits", fit.name), _command(AddonKind.LORA)]


def _embedding_rows(header: CheckpointHeader) -> list[Row]:
    plan = embedding_preflight.examine(header)
    details = AddonDetails(naming=plan.naming, vectors=plan.vectors)
    return [
        *addon_rows(header, AddonKind.EMBEDDING, details, header_notes(header)),
        ("text encoders", f"of the widths {plan.widths[0]} and {plan.widths[1]}"),
        _command(AddonKind.EMBEDDING),
    ]


def _command(kind: AddonKind) -> Row:
    return "import it with", f"python model_import.py {kind} FILE"

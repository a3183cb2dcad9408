"""What an add-on is, in rows for a reader; from its header alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lpw_sdxl.addon.manifest import AddonDetails
from lpw_sdxl.importing.console import Row
from lpw_sdxl.lora.alphas import NOT_TOLD
from lpw_sdxl.store.kind import AddonKind
from lpw_sdxl.store.origin import AuthorNotes
from lpw_sdxl.store.space import gigabytes
from lpw_sdxl.weights.header import CheckpointHeader

_SHOWN_AT_MOST = 8


def addon_rows(
    header: CheckpointHeader, kind: AddonKind, details: AddonDetails, notes: AuthorNotes
) -> list[Row]:
    """List what a file is and holds, without what its kind or its author leaves empty."""
    kinds = ", ".join(details.kinds)
    rows = [
        ("file", header.name),
        ("is", f"{kind.with_article} ({kinds})" if kinds else kind.with_article),
        ("size", f"{gigabytes(header.file_size)}, {header.file_size:,} bytes"),
        ("names", details.naming),
        ("modules", _counts(details.modules)),
        ("rank", _numbers(details.ranks)),
        ("alpha", _alpha(details)),
        ("vectors", str(details.vectors or "")),
        ("scale", str(details.scale or "")),
        ("channels", str(details.channels or "")),
        ("blocks", str(details.blocks or "")),
        ("left out", _counts(details.ignored)),
        ("title", notes.title),
        ("base model", notes.base_model),
        ("trained words", ", ".join(notes.trained_words)),
    ]
    return [(name, value) for name, value in rows if value]


def _alpha(details: AddonDetails) -> str:
    """Return the alphas and where they come from; the rank is no alpha to show."""
    if details.alpha_note.startswith(NOT_TOLD):
        return details.alpha_note
    joint = ", " if details.alpha_note.startswith("by ") else "; "
    return joint.join(text for text in (_numbers(details.alphas), details.alpha_note) if text)


def _counts(counts: Mapping[str, int]) -> str:
    return "; ".join(f"{name} ({count})" for name, count in counts.items())


def _numbers(values: Sequence[float]) -> str:
    shown = ", ".join(f"{value:g}" for value in values[:_SHOWN_AT_MOST])
    return f"{shown}, ..." if len(values) > _SHOWN_AT_MOST else shown

"""An upscaler's file whose tensors' names and shapes are judged; it fits every model.

It may be a pickle, as `.pth` files are, where it is imported; one that is still being downloaded is
judged when it is whole, since a pickle has no header.
"""

# ruff: noqa: PLC0415 - pickles and conversions need torch, and come last

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from lpw_sdxl.addon.manifest import AddonDetails
from lpw_sdxl.addon.opened_addon import OpenedAddon
from lpw_sdxl.checkpoint.notes import header_notes
from lpw_sdxl.errors import AddonError
from lpw_sdxl.store.kind import AddonKind
from lpw_sdxl.store.origin import AuthorNotes
from lpw_sdxl.upscaling.pickles import MAX_PICKLE_BYTES, is_pickle_file
from lpw_sdxl.upscaling.preflight import UpscalerPlan, examine
from lpw_sdxl.weights.header import CheckpointHeader, read_header
from lpw_sdxl.weights.progress import Progress

if TYPE_CHECKING:
    from torch import Tensor

ANY_MODEL = "any model"
NOT_WHOLE = "a pickle, which is judged when it is whole"


def open_upscaler(path: Path, stamp: str, full_size: int | None = None) -> OpenedAddon:
    """Read what an upscaler's file is.

    Args:
        path: the file.
        stamp: its `file_stamp` from before.
        full_size: as in `read_header`, for a file that is still being downloaded.

    Raises:
        AddonError: it is no upscaler that is served, or a pickle of more than tensors.
        CheckpointError: it is damaged, or of another format.
    """
    if not is_pickle_file(path):
        return judge_upscaler(read_header(path, full_size), stamp)
    if full_size is None:
        from lpw_sdxl.upscaling.pickled_tensors import read_pickle_header

        return judge_upscaler(read_pickle_header(path), stamp, is_pickle=True)
    header = CheckpointHeader(path, full_size, {}, {})
    if full_size > MAX_PICKLE_BYTES:
        raise AddonError(
            f"{header.name} is a pickle of {full_size:,} bytes, and no upscaler has as many; "
            f"{AddonKind.UPSCALER.with_article} in safetensors would be right."
        )
    return _unjudged(header, stamp)


def judge_upscaler(header: CheckpointHeader, stamp: str, *, is_pickle: bool = False) -> OpenedAddon:
    """Judge an upscaler's tensors.

    Args:
        header: of the file.
        stamp: the file's `file_stamp` from before.
        is_pickle: whether the file is a pickle, as only an import reads them.

    Raises:
        AddonError: it is no upscaler that is served.
    """
    plan = examine(header)

    def write(path: Path, progress: Progress) -> None:
        from lpw_sdxl.upscaling.convert import convert

        convert(plan, path, progress, is_pickle=is_pickle)

    def load() -> Mapping[str, Tensor]:
        from lpw_sdxl.upscaling.convert import load

        return load(plan, is_pickle=is_pickle)

    return OpenedAddon(
        kind=AddonKind.UPSCALER,
        header=header,
        sources=(header.path,),
        stamps={header.path: stamp},
        details=upscaler_details(plan),
        notes=header_notes(header),
        fits="",
        fits_name=ANY_MODEL,
        write=write,
        load=load,
        check=load,
    )


def upscaler_details(plan: UpscalerPlan) -> AddonDetails:
    """Return what is in an upscaler's file."""
    design = plan.design
    return AddonDetails(
        kinds=(str(design.family),),
        naming=plan.naming,
        scale=design.scale,
        channels=design.channels,
        blocks=design.blocks,
    )


def _unjudged(header: CheckpointHeader, stamp: str) -> OpenedAddon:
    def refuse(*_: object) -> NoReturn:
        raise AssertionError("a pickle that is not whole")

    return OpenedAddon(
        kind=AddonKind.UPSCALER,
        header=header,
        sources=(header.path,),
        stamps={header.path: stamp},
        details=AddonDetails(kinds=(NOT_WHOLE,)),
        notes=AuthorNotes(),
        fits="",
        fits_name=ANY_MODEL,
        write=refuse,
        load=refuse,
        check=refuse,
    )

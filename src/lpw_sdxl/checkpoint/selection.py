"""Which tensors serve: the checkpoint's own, its averaged (EMA) weights, another file's VAE.

Names and offsets only: what comes out is a header whose tensors are the ones to read, under
Stability's names, wherever they lie, and the plan of their conversion. A checkpoint that can't be
converted is refused here. Pure but for the reading of headers; no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from lpw_sdxl.checkpoint.architecture import Architecture, read_architecture
from lpw_sdxl.checkpoint.inspect import CheckpointSummary, Prediction, recognise
from lpw_sdxl.checkpoint.kinds import EMA, UNET, VAE, CheckpointKind, kind_of
from lpw_sdxl.checkpoint.layout import standardise, standardise_vae
from lpw_sdxl.checkpoint.notes import header_notes
from lpw_sdxl.checkpoint.parameters import parameters_of
from lpw_sdxl.checkpoint.plan import ConversionPlan, plan_conversion
from lpw_sdxl.errors import CheckpointError, UnsupportedCheckpointError
from lpw_sdxl.schedule_types import ScheduleType
from lpw_sdxl.store.origin import AuthorNotes
from lpw_sdxl.weights.files import file_stamp
from lpw_sdxl.weights.header import CheckpointHeader, TensorInfo, read_header


@dataclass(frozen=True)
class Selection:
    """The user's choices for a checkpoint.

    Attributes:
        use_ema: take the UNet's averaged weights instead of its last ones.
        vae: file that the VAE is taken from instead.
        prediction: what the UNet predicts, whatever the file states.
        schedule_type: the default of a request, whatever the UNet predicts.
        ignore_unknown: leave out what is under a network's own names and has no place there.
    """

    use_ema: bool = False
    vae: Path | None = None
    prediction: Prediction | None = None
    schedule_type: ScheduleType | None = None
    ignore_unknown: bool = False


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that can be converted.

    Attributes:
        header: the file's, with the tensors that serve.
        summary: what the file is; its prediction is the one that is served.
        selection: what was chosen.
        architecture: the sizes of its networks.
        plan: every parameter's source, and what is left out.
        stamps: `file_stamp` of every file that is read, as it was before.
    """

    header: CheckpointHeader
    summary: CheckpointSummary
    selection: Selection
    architecture: Architecture
    plan: ConversionPlan
    stamps: Mapping[Path, str]

    @property
    def sources(self) -> tuple[Path, ...]:
        """Return the file that the entry is of; a VAE's is an option."""
        return (self.header.path,)

    @property
    def notes(self) -> AuthorNotes:
        """Return what the header has of its author's notes."""
        return header_notes(self.header)


def open_checkpoint(path: Path, selection: Selection, full_size: int | None = None) -> Checkpoint:
    """Read a checkpoint's header, choose its tensors and plan their conversion.

    Args:
        path: the file.
        selection: what was chosen.
        full_size: as in `read_header`, for a file that is still being downloaded.

    Raises:
        UnsupportedCheckpointError: the file is of a kind that is not served, or lacks what was
            chosen.
        CheckpointError: it is damaged, or a tensor is missing, unknown, or of the wrong shape or
            dtype; it is named.
    """
    stamps = {path: file_stamp(path)}
    header = standardise(read_header(path, full_size))
    summary = recognise(header)
    if selection.use_ema:
        header = _with_ema(header)
    if selection.vae is not None:
        stamps[selection.vae] = file_stamp(selection.vae)
        header = _with_vae(header, selection.vae)
    elif not summary.has_vae:
        raise UnsupportedCheckpointError(
            f"{header.name} is an SDXL checkpoint without a VAE; add one with --vae FILE, such as "
            "sdxl_vae.safetensors."
        )
    if selection.prediction is not None:
        summary = replace(summary, prediction=selection.prediction)
    summary = replace(summary, chosen_schedule_type=selection.schedule_type)
    architecture = read_architecture(header)
    plan = plan_conversion(
        header, parameters_of(architecture), ignore_unknown=selection.ignore_unknown
    )
    return Checkpoint(header, summary, selection, architecture, plan, stamps)


def _with_ema(header: CheckpointHeader) -> CheckpointHeader:
    """Put the averaged weights in the place of the UNet's last ones."""
    averaged = {
        _flattened(name): tensor for name, tensor in header.tensors.items() if name.startswith(EMA)
    }
    if not averaged:
        raise UnsupportedCheckpointError(
            f"{header.name} holds no EMA weights ({EMA}*); import it without --ema."
        )
    tensors = {name: info for name, info in header.tensors.items() if not name.startswith(EMA)}
    for name in [name for name in tensors if name.startswith(UNET)]:
        tensor = averaged.get(_flattened(name))
        if tensor is None:
            raise CheckpointError(
                f"{header.name} holds EMA weights, but none for {name}; import it without --ema."
            )
        tensors[name] = tensor
    return replace(header, tensors=MappingProxyType(tensors))


def _with_vae(header: CheckpointHeader, path: Path) -> CheckpointHeader:
    """Put another file's VAE in the place of the checkpoint's."""
    own = {name: tensor for name, tensor in header.tensors.items() if not name.startswith(VAE)}
    return replace(header, tensors=MappingProxyType(own | _vae_tensors(path)), vae_path=path)


def _vae_tensors(path: Path) -> dict[str, TensorInfo]:
    """Return the tensors of a VAE alone, in either layout, or of a checkpoint's VAE."""
    header = standardise(read_header(path))
    kind = kind_of(header.tensors, header.metadata)
    if kind is CheckpointKind.VAE:
        header = standardise_vae(header)
    tensors = {name: info for name, info in header.tensors.items() if name.startswith(VAE)}
    if not (kind is CheckpointKind.VAE or kind.is_served) or not tensors:
        raise UnsupportedCheckpointError(
            f"{header.name} is {kind.title}{'' if kind.advice else ' without a VAE'}; --vae takes "
            "an SDXL VAE, or an SDXL checkpoint that has one."
        )
    return tensors


def _flattened(name: str) -> str:
    """Return a UNet tensor's name as the training's averages keep it: without dots.

    `LitEma` of Stability's generative-models registers each average as a buffer, whose name may
    hold none: `diffusion_model.out.2.bias` becomes `model_ema.diffusion_modelout2bias`.
    """
    return name.removeprefix(EMA).removeprefix("model.").replace(".", "")

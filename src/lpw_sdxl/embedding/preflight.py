"""What a textual inversion is, from its file's header: a vector for each text encoder and token.

SDXL's form has two tensors, one for each encoder, with as many vectors in both. Reads no weights,
and imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from lpw_sdxl.checkpoint.kinds import CheckpointKind, kind_of
from lpw_sdxl.errors import AddonError
from lpw_sdxl.store.command import import_command
from lpw_sdxl.weights.header import CheckpointHeader, TensorInfo
from lpw_sdxl.weights.text import clean_text

MAX_VECTORS = 75
"""Tokens of one chunk: a longer embedding fits into no window of the text encoders."""

DTYPES: Mapping[str, str] = {
    "F16": "F16",
    "BF16": "BF16",
    "F32": "F32",
    "F64": "F32",
    "F8_E4M3": "F32",
    "F8_E5M2": "F32",
}
"""The dtype that is stored, by the source's."""

_PAIRS = (
    ("clip_l", "clip_g"),  # Stability's words: A1111, ComfyUI, OneTrainer, ai-toolkit, kohya
    ("text_encoders_0", "text_encoders_1"),  # Diffusers' pivotal tuning, first form
    ("text_encoder", "text_encoder_2"),
)
_OTHER_BASES = {
    768: "a Stable Diffusion 1.x embedding",
    1024: "a Stable Diffusion 2.x embedding",
    1280: "an embedding for SDXL's second text encoder alone",
}
PAIR_NAMING = "Diffusers, a file for each text encoder"
_WHAT_IS_RIGHT = "an SDXL embedding, with the tensors clip_l and clip_g, is needed"


@dataclass(frozen=True)
class EmbeddingPlan:
    """The tensors that are stored, and where they come from.

    Attributes:
        vectors: tokens that it takes, 1 to 75.
        tensors: the vectors for the first and the second text encoder, [k, width] or [width].
        naming: the file's names of the two.
    """

    vectors: int
    tensors: tuple[TensorInfo, TensorInfo]
    naming: str

    @property
    def widths(self) -> tuple[int, int]:
        """Return the widths of the two text encoders that it fits."""
        first, second = self.tensors
        return first.shape[-1], second.shape[-1]

    @property
    def fit(self) -> str:
        """Return the widths as the manifest keeps them."""
        return embedding_fit(*self.widths)


def how_to_join() -> str:
    """Return the command that joins two files."""
    return import_command("embedding FIRST SECOND")


def embedding_fit(width: int, width_2: int) -> str:
    """Return the manifest's `fits` of an embedding for text encoders of these widths."""
    return f"{width}+{width_2}"


def examine(header: CheckpointHeader) -> EmbeddingPlan:
    """Find the two tensors of SDXL's form.

    Raises:
        AddonError: the file is of another kind or base, or a shape or dtype is wrong.
    """
    tensors = header.tensors
    pair = next((pair for pair in _PAIRS if set(pair) & set(tensors)), None)
    if pair is None:
        _refuse_other(header)
    for present, key in (pair, pair[::-1]):
        if key not in tensors:
            raise AddonError(
                f"{header.name} holds an embedding for one of SDXL's two text encoders: "
                f"{present} is there, and {key} is missing; if that is another file, "
                f"`{how_to_join()}` joins them."
            )
    for key in tensors:
        if key not in pair:
            raise AddonError(
                f"{header.name} holds the tensor {clean_text(key)[:80]!r} besides {pair[0]} and "
                f"{pair[1]}; {_WHAT_IS_RIGHT}, and no other one."
            )
    first, second = tensors[pair[0]], tensors[pair[1]]
    vectors = _vectors(header, first)
    if vectors != _vectors(header, second):
        raise AddonError(
            f"{header.name} has {vectors} vectors in {pair[0]} and {_vectors(header, second)} in "
            f"{pair[1]}; as many in both would be right."
        )
    return EmbeddingPlan(vectors, (first, second), "/".join(pair))


def examine_half(header: CheckpointHeader) -> TensorInfo:
    """Find the only tensor of a file for one text encoder, whose name is the token or a usual one.

    Diffusers' training of textual inversions for SDXL leaves a pair of such files.

    Raises:
        AddonError: the file has another number of tensors, or a wrong shape or dtype.
    """
    if len(header.tensors) != 1:
        raise AddonError(
            f"{header.name} has {len(header.tensors)} tensors; each of two files that are joined "
            "to one embedding has one, for one text encoder."
        )
    (tensor,) = header.tensors.values()
    _vectors(header, tensor)
    return tensor


def examine_pair(first: CheckpointHeader, second: CheckpointHeader) -> EmbeddingPlan:
    """Plan one embedding of two files, of the first and of the second text encoder.

    Raises:
        AddonError: one of them is no such file, or they are not of one embedding.
    """
    headers = first, second
    tensors = examine_half(first), examine_half(second)
    names = tensors[0].name, tensors[1].name
    if names[0] != names[1] and names not in _PAIRS:
        shown = [clean_text(name)[:80] for name in names]
        raise AddonError(
            f"{first.name} is for the token {shown[0]!r} and {second.name} for {shown[1]!r}; two "
            "files of one token would be right."
        )
    counts = [_vectors(*half) for half in zip(headers, tensors, strict=True)]
    if counts[0] != counts[1]:
        raise AddonError(
            f"{first.name} has {counts[0]} vectors and {second.name} has {counts[1]}; as many in "
            "both would be right."
        )
    return EmbeddingPlan(counts[0], tensors, PAIR_NAMING)


def _vectors(header: CheckpointHeader, tensor: TensorInfo) -> int:
    """Return how many vectors a tensor holds."""
    name = clean_text(tensor.name)[:80]
    if tensor.dtype not in DTYPES:
        raise AddonError(
            f"{header.name}: {name} has the dtype {tensor.dtype}; numbers with a fraction "
            "(F32, F16 or BF16) would be right."
        )
    shape = tensor.shape if len(tensor.shape) != 1 else (1, *tensor.shape)
    if len(shape) != 2 or not all(shape):
        raise AddonError(
            f"{header.name}: {name} has the shape {list(tensor.shape)}; [vectors, width] "
            "would be right."
        )
    if shape[0] > MAX_VECTORS:
        raise AddonError(
            f"{header.name} has {shape[0]} vectors; 1 to {MAX_VECTORS} would be right, the tokens "
            "of one chunk of a prompt."
        )
    return shape[0]


def _refuse_other(header: CheckpointHeader) -> NoReturn:
    """Name what is no embedding of SDXL's."""
    shapes = [tensor.shape for tensor in header.tensors.values()]
    kind = kind_of(header.tensors, header.metadata)
    if len(shapes) == 1 and shapes[0] and kind in _ONE_TENSOR:
        # `emb_params`, or the token itself for a name: one encoder, so its width shows the base.
        what = _OTHER_BASES.get(shapes[0][-1], f"an embedding of width {shapes[0][-1]}")
        raise AddonError(
            f"{header.name} is {what}; {_WHAT_IS_RIGHT}, or both files of a pair with one text "
            f"encoder each: `{how_to_join()}`."
        )
    what = "no embedding that we know" if kind is CheckpointKind.UNKNOWN else kind.title
    raise AddonError(f"{header.name} is {what}; {_WHAT_IS_RIGHT}.")


_ONE_TENSOR = (CheckpointKind.EMBEDDING, CheckpointKind.UNKNOWN)

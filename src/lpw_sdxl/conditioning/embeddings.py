"""Textual inversions: named vectors that replace their name in a prompt; it knows no prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lpw_sdxl.conditioning.mentions import NAME
from lpw_sdxl.errors import ModelError

TENSOR_NAMES = ("text_encoder", "text_encoder_2")
"""The tensors of an embedding's file, in the encoders' order."""


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Embedding:
    """A name and the vectors that the encoders read in its place.

    Attributes:
        name: of ASCII letters, digits, `.`, `_` and `-`; prompts may write it in any case.
        vectors: [k, width] for each text encoder, in their order; k is the same for all.
    """

    name: str
    vectors: tuple[Tensor, ...]

    @property
    def vector_count(self) -> int:
        """Count the tokens that the name takes in a prompt."""
        return len(self.vectors[0])


def make_embedding(name: str, tensors: Mapping[str, Tensor]) -> Embedding:
    """Make an embedding of a file's tensors: one for each text encoder.

    Raises:
        ModelError: they are not these tensors and no others.
    """
    if set(tensors) != set(TENSOR_NAMES):
        raise _damaged(name, f"must hold the tensors {' and '.join(TENSOR_NAMES)}")
    return Embedding(name, tuple(tensors[tensor] for tensor in TENSOR_NAMES))


def check_embedding(embedding: Embedding, tables: Sequence[Tensor]) -> None:
    """Refuse an embedding that a model's text encoders can't read.

    Args:
        embedding: for one model.
        tables: each text encoder's own token embeddings: [vocabulary, width].

    Raises:
        ModelError: its name has other characters than `NAME`; its vectors have another width,
            differ in number, are none, or hold a number that is not finite in the table's dtype.
    """
    if not NAME.fullmatch(embedding.name):
        raise _damaged(embedding.name, "has a name of other characters than A-Za-z0-9._-/")
    _check_vectors(embedding, tables)


def _check_vectors(embedding: Embedding, tables: Sequence[Tensor]) -> None:
    widths = [table.shape[1] for table in tables]
    shapes = [tuple(vectors.shape) for vectors in embedding.vectors]
    count = shapes[0][0] if shapes and shapes[0] else 0
    if not count or shapes != [(count, width) for width in widths]:
        wanted = " and ".join(f"[k, {width}]" for width in widths)
        raise _damaged(embedding.name, f"has vectors of the shapes {shapes} in place of {wanted}")
    for vectors, table in zip(embedding.vectors, tables, strict=True):
        if not torch.isfinite(vectors.to(table.dtype)).all():
            raise _damaged(embedding.name, f"holds what is no finite number in {table.dtype}")


def _damaged(name: str, fault: str) -> ModelError:
    return ModelError(f"the embedding {name} {fault}; import it again")

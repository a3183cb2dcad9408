"""Textual inversions: named vectors that replace their name in a prompt; it knows no prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from lpw_sdxl.conditioning.mentions import NAME
from lpw_sdxl.errors import ModelError

TENSOR_NAMES = ("text_encoder", "text_encoder_2")
"""The tensors of an embedding's file, in the encoders' order."""


@dataclass(frozen=True, slots=True, eq=False)
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


def load_embedding(name: str, file: Path) -> Embedding:
    """Read an imported embedding: one tensor for each text encoder.

    Raises:
        ModelError: the file is unreadable, or doesn't hold these tensors and no others.
    """
    try:
        tensors = load_file(file)
    except Exception as cause:  # safetensors has errors of its own, and of the file system
        raise _damaged(name, "can't be read") from cause
    if set(tensors) != set(TENSOR_NAMES):
        raise _damaged(name, f"must hold the tensors {' and '.join(TENSOR_NAMES)}")
    return Embedding(name, tuple(tensors[tensor] for tensor in TENSOR_NAMES))


def check_embeddings(embeddings: Sequence[Embedding], tables: Sequence[Tensor]) -> None:
    """Refuse embeddings that a model's text encoders can't read, or names that are not distinct.

    Args:
        embeddings: of one model.
        tables: each text encoder's own token embeddings: [vocabulary, width].

    Raises:
        ModelError: a name has other characters than `NAME`, or occurs twice, whatever its case;
            the vectors have another width, differ in number, are none, or hold a number that is
            not finite in the table's dtype.
    """
    seen: set[str] = set()
    for embedding in embeddings:
        if not NAME.fullmatch(embedding.name):
            raise _damaged(embedding.name, "has a name of other characters than A-Za-z0-9._-")
        if embedding.name.lower() in seen:
            raise ModelError(f"two embeddings are called {embedding.name}; remove one")
        seen.add(embedding.name.lower())
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

"""A token-embedding table with rows behind it; the table itself is neither copied nor changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ExtendedTokenEmbedding(nn.Module):
    """A model's table for its own ids, and rows that one call has for the ids behind them.

    The table's parameter stays the one that was loaded: it may lie in a mapped file that processes
    share, and under its name stands a tensor of its own shape.
    """

    def __init__(self, table: nn.Embedding) -> None:
        """Extend a table, [size, width], by no row yet."""
        super().__init__()
        self.weight = table.weight
        self._rows: Tensor | None = None

    @contextmanager
    def rows(self, vectors: Sequence[Tensor]) -> Iterator[None]:
        """Provide rows for the ids that follow the table's last.

        Args:
            vectors: [width] each; they take the table's dtype and device.
        """
        self._rows = torch.stack([*vectors]).to(self.weight) if vectors else None
        try:
            yield
        finally:
            self._rows = None

    def forward(self, ids: Tensor) -> Tensor:
        """Return the rows of ids of any shape: [..., width]."""
        if self._rows is None:
            return F.embedding(ids, self.weight)
        size = len(self.weight)
        known = F.embedding(ids.clamp(max=size - 1), self.weight)
        added = F.embedding((ids - size).clamp(min=0), self._rows)
        return torch.where((ids < size).unsqueeze(-1), known, added)

"""A token-embedding table with rows behind it; the table itself is neither copied nor changed."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ExtendedTokenEmbedding(nn.Module):
    """A model's table for its own ids, and added rows for the ids that follow its last.

    The table's parameter stays the one that was loaded: it may lie in a mapped file that processes
    share, and under its name stands a tensor of its own shape.
    """

    def __init__(self, table: nn.Embedding, rows: Tensor) -> None:
        """Add rows behind a table.

        Args:
            table: [size, width].
            rows: [count, width]; takes the table's dtype and device.
        """
        super().__init__()
        self.weight = table.weight
        self.rows = nn.Parameter(rows.to(table.weight), requires_grad=False)

    def forward(self, ids: Tensor) -> Tensor:
        """Return the rows of ids of any shape: [..., width]."""
        size = len(self.weight)
        known = F.embedding(ids.clamp(max=size - 1), self.weight)
        added = F.embedding((ids - size).clamp(min=0), self.rows)
        return torch.where((ids < size).unsqueeze(-1), known, added)

"""What a call holds at once is what its design says, so that a plan of memory can count on it."""

from __future__ import annotations

import weakref
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.forge.upscalers import CompactRecipe, EsrganRecipe

from .conftest import Network


class LiveTensors(TorchDispatchMode):
    """Counts the bytes of all storages that operators make, as long as a tensor has them."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = self._bytes = 0
        self._users: Counter[int] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self._add(storage.data_ptr(), storage.nbytes())
                weakref.finalize(tensor, self._drop, storage.data_ptr(), storage.nbytes())
        return result

    def _add(self, place: int, size: int) -> None:
        self._users[place] += 1
        if self._users[place] == 1:
            self._bytes += size
            self.peak = max(self.peak, self._bytes)

    def _drop(self, place: int, size: int) -> None:
        self._users[place] -= 1
        if not self._users[place]:
            self._bytes -= size


@pytest.mark.parametrize(
    "recipe",
    [
        EsrganRecipe(channels=32, doublings=2, blocks=2),
        EsrganRecipe(channels=32, doublings=1, blocks=2),
        EsrganRecipe(channels=32, doublings=0, blocks=2),
        EsrganRecipe(channels=32, doublings=2, unshuffle=2, blocks=2),
        EsrganRecipe(channels=32, doublings=2, unshuffle=4, blocks=2),
        CompactRecipe(4, channels=16),
        CompactRecipe(2, channels=32),
    ],
    ids=str,
)
def test_a_call_holds_what_its_design_says(recipe: EsrganRecipe | CompactRecipe, network: Network):
    ours = network(recipe)
    pixels = np.zeros((64, 64, 3), np.uint8)
    with LiveTensors() as live:
        ours.enlarge(pixels)
    said = ours.design.numbers_per_pixel * 64 * 64 * torch.float32.itemsize
    assert 0.85 * said <= live.peak <= said, live.peak / said

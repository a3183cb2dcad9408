"""Which components of a model are on the device: all of them, or only the one at work."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from lpw_sdxl.diffusion.pipeline import Pipeline

logger = logging.getLogger(__name__)

HOME = torch.device("cpu")


class Residence:
    """Brings a pipeline's components to its device.

    Args:
        pipeline: loaded into the CPU's memory.
        shares_device: whether all fit; else each comes when it is called and the one before goes.

    Attributes:
        current: the component that came last, `unet`, `vae` or `prompt_encoder`; None where all
            are there, before the first has come, and where a travel has failed.
        travel_s: what the last change took, seconds.
        since: when it came (time.monotonic).
        before_travel: called before a component leaves.
    """

    def __init__(self, pipeline: Pipeline, *, shares_device: bool) -> None:
        self._components: Mapping[str, Sequence[nn.Module]] = {
            "prompt_encoder": pipeline.prompt_encoder.models,
            "unet": (pipeline.unet,),
            "vae": (pipeline.vae,),
        }
        self._device = pipeline.device
        self._shares_device = shares_device
        self.current: str | None = None
        self.travel_s = 0.0
        self.since = time.monotonic()
        self.before_travel: Callable[[], None] = lambda: None
        place = self._device if shares_device else HOME
        for modules in self._components.values():
            for module in modules:
                module.to(place)
        # What travels is a copy: nobody changes weights, so nothing has to be brought back.
        self._left_at_home = {
            name: [] if shares_device else [*_belongings(modules)]
            for name, modules in self._components.items()
        }

    def call(self, name: str) -> None:
        """Make sure that a component is on the device."""
        if self._shares_device or name == self.current:
            return
        started = time.monotonic()
        self.before_travel()
        self.current = None  # a travel that breaks off leaves nobody there for sure
        # All others, not only the one before: whoever stopped half-way goes too.
        for other, belongings in self._left_at_home.items():
            if other != name:
                for belonging in belongings:
                    belonging.bring_home()
        for module in self._components[name]:
            module.to(self._device)
        self.current = name
        self.since = time.monotonic()
        self.travel_s = self.since - started
        logger.debug("%s came to the device in %.2f s", name, self.travel_s)


class _Belonging(NamedTuple):
    """A parameter or buffer, with the values that stay at home while copies travel."""

    owners: dict[str, Any]
    name: str
    tensor: torch.Tensor
    values: torch.Tensor

    def bring_home(self) -> None:
        """Put it back where it was."""
        self.tensor.data = self.values
        self.owners[self.name] = self.tensor  # some devices take a new parameter in its place


def _belongings(modules: Sequence[nn.Module]) -> Iterator[_Belonging]:
    for module in modules:
        for part in module.modules():
            for owners in (part._parameters, part._buffers):
                for name, tensor in owners.items():
                    if tensor is not None:
                        yield _Belonging(owners, name, tensor, tensor.data)

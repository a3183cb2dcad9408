"""The components of a model on the device: all of them, or only the one at work."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from lpw_sdxl.diffusion.pipeline import Pipeline

logger = logging.getLogger(__name__)

HOST = torch.device("cpu")


class Offloader:
    """The mover of a pipeline's components to its device and back to the host's memory.

    Args:
        pipeline: loaded into the host's memory.
        is_offloading: whether only one component at a time is on the device: each is moved there
            when it is required, and the one before is moved back. Else all are there from now on.

    Attributes:
        current: the component that is on the device alone, `unet`, `vae` or `prompt_encoder`; None
            where all are there, before the first is moved, and after a move that failed.
        transfer_s: what the last change of components took, seconds.
        since: when the current component came (time.monotonic).
        before_move: called before components are moved.
    """

    def __init__(self, pipeline: Pipeline, *, is_offloading: bool) -> None:
        self._components: Mapping[str, Sequence[nn.Module]] = {
            "prompt_encoder": pipeline.prompt_encoder.models,
            "unet": (pipeline.unet,),
            "vae": (pipeline.vae,),
        }
        self._device = pipeline.device
        self._is_offloading = is_offloading
        self.current: str | None = None
        self.transfer_s = 0.0
        self.since = time.monotonic()
        self.before_move: Callable[[], None] = lambda: None
        place = HOST if is_offloading else self._device
        for modules in self._components.values():
            for module in modules:
                module.to(place)
        # Only copies are moved to the device: no weight is changed there, so none is copied back.
        self._host_copies = {
            name: [*_host_copies(modules)] if is_offloading else []
            for name, modules in self._components.items()
        }

    def require(self, name: str) -> None:
        """Make sure that a component is on the device."""
        if not self._is_offloading or name == self.current:
            return
        started = time.monotonic()
        self.before_move()
        self.current = None  # after a move that fails half-way, no component is surely there
        # All others, not only the one before: a component that was half moved goes back too.
        for other, copies in self._host_copies.items():
            if other != name:
                for copy in copies:
                    copy.restore()
        for module in self._components[name]:
            module.to(self._device)
        self.current = name
        self.since = time.monotonic()
        self.transfer_s = self.since - started
        logger.debug("%s was moved to the device in %.2f s", name, self.transfer_s)


class _HostCopy(NamedTuple):
    """A parameter or buffer, and its values in the host's memory."""

    owners: dict[str, Any]
    name: str
    tensor: torch.Tensor
    values: torch.Tensor

    def restore(self) -> None:
        """Put the host's values back into the parameter or buffer."""
        self.tensor.data = self.values
        self.owners[self.name] = self.tensor  # some devices take a new parameter in its place


def _host_copies(modules: Sequence[nn.Module]) -> Iterator[_HostCopy]:
    for module in modules:
        for part in module.modules():
            for owners in (part._parameters, part._buffers):
                for name, tensor in owners.items():
                    if tensor is not None:
                        yield _HostCopy(owners, name, tensor, tensor.data)

"""Which components of a model are on the device: all of them, or only the one at work."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any, Protocol

import torch

from lpw_sdxl.diffusion.pipeline import Pipeline

logger = logging.getLogger(__name__)

HOME = torch.device("cpu")


class Component(Protocol):
    """What can be moved: a torch module, or a PromptEncoder."""

    def to(self, device: torch.device) -> Any:
        """Move there."""


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
    """

    def __init__(self, pipeline: Pipeline, *, shares_device: bool) -> None:
        self._components: Mapping[str, Component] = {
            "prompt_encoder": pipeline.prompt_encoder,
            "unet": pipeline.unet,
            "vae": pipeline.vae,
        }
        self._device = pipeline.device
        self._shares_device = shares_device
        self.current: str | None = None
        self.travel_s = 0.0
        self.since = time.monotonic()
        if shares_device:
            for component in self._components.values():
                component.to(self._device)

    def call(self, name: str) -> None:
        """Make sure that a component is on the device."""
        if self._shares_device or name == self.current:
            return
        started = time.monotonic()
        self.current = None  # a travel that breaks off leaves nobody there for sure
        # All others, not only the one before: whoever stopped half-way, or was there before us,
        # goes too. To send home who is there costs milliseconds.
        for other, component in self._components.items():
            if other != name:
                component.to(HOME)
        self._components[name].to(self._device)
        self.current = name
        self.since = time.monotonic()
        self.travel_s = self.since - started
        logger.debug("%s came to the device in %.2f s", name, self.travel_s)

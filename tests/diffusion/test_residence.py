from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from lpw_sdxl.diffusion.pipeline import Pipeline
from lpw_sdxl.diffusion.residence import HOME, Residence

NAMES = ["prompt_encoder", "unet", "vae"]
AWAY = torch.device("cpu", 0)  # the CPU as well, but told apart from HOME


class Travels:
    """Writes down where the real components are sent, and sends them."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = dataclasses.replace(pipeline, device=AWAY)
        self.places = dict.fromkeys(NAMES, HOME)
        self.order: list[tuple[str, torch.device]] = []
        self.breaks_at: set[tuple[str, torch.device]] = set()
        for name in NAMES:
            component: Any = getattr(pipeline, name)
            component.to = self._recording(name, component.to)

    def _recording(self, name: str, send: Callable[[torch.device], Any]) -> Callable[..., Any]:
        def to(device: torch.device) -> Any:
            if (name, device) in self.breaks_at:
                raise MemoryError
            if self.places[name] != device:
                self.order.append((name, device))
            self.places[name] = device
            return send(device)

        return to

    def away(self) -> list[str]:
        return [name for name in NAMES if self.places[name] == AWAY]


@pytest.fixture
def travels(pipeline: Pipeline) -> Travels:
    return Travels(pipeline)


def test_where_all_fit_all_come_at_once_and_stay(travels: Travels) -> None:
    residence = Residence(travels.pipeline, shares_device=True)
    assert travels.away() == NAMES
    for name in NAMES:
        residence.call(name)
    assert len(travels.order) == len(NAMES)
    assert residence.current is None


def test_one_at_a_time_the_one_before_goes_first(travels: Travels) -> None:
    residence = Residence(travels.pipeline, shares_device=False)
    assert travels.away() == []
    for name in ("prompt_encoder", "unet", "unet", "vae", "vae"):
        residence.call(name)
        assert residence.current == name
        assert travels.away() == [name]
    assert travels.order == [
        ("prompt_encoder", AWAY),
        ("prompt_encoder", HOME),
        ("unet", AWAY),
        ("unet", HOME),
        ("vae", AWAY),
    ]


def test_a_travel_is_timed(travels: Travels) -> None:
    residence = Residence(travels.pipeline, shares_device=False)
    before = time.monotonic()
    residence.call("unet")
    assert before <= residence.since <= time.monotonic()
    assert 0 < residence.travel_s <= residence.since - before
    since = residence.since
    residence.call("unet")  # it is there
    assert residence.since == since


def test_whoever_was_there_before_goes_home_too(travels: Travels) -> None:
    travels.pipeline.vae.to(AWAY)  # as the measuring of the memory leaves it
    residence = Residence(travels.pipeline, shares_device=False)
    residence.call("prompt_encoder")
    assert travels.away() == ["prompt_encoder"]


@pytest.mark.parametrize(
    "breaks_at", [("prompt_encoder", HOME), ("unet", AWAY)], ids=["going home", "coming"]
)
def test_a_travel_that_breaks_off_leaves_nobody_for_sure(
    travels: Travels, breaks_at: tuple[str, torch.device]
) -> None:
    residence = Residence(travels.pipeline, shares_device=False)
    residence.call("prompt_encoder")
    travels.breaks_at.add(breaks_at)
    with pytest.raises(MemoryError):
        residence.call("unet")
    assert residence.current is None
    travels.breaks_at.clear()
    for name in ("unet", "prompt_encoder"):
        residence.call(name)
        assert residence.current == name
        assert travels.away() == [name]

"""The demo model, imported and served by an engine in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT, Store
from demo.export import read_checkpoint
from demo.looking import Seen, look
from demo.networks import Networks, make_networks
from demo.train import CHECKPOINT
from demo.words import Vocabulary
from stores import import_here

Looker = Callable[..., list[Seen]]


@pytest.fixture(scope="session")
def vocabulary() -> Vocabulary:
    return Vocabulary()


@pytest.fixture
def networks(vocabulary: Vocabulary) -> Networks:
    """The shipped ones, to be changed at will."""
    networks = make_networks(vocabulary, seed=0)
    read_checkpoint(CHECKPOINT, networks)
    return networks


@pytest.fixture(scope="session")
def demo_engine(demo_store: Store) -> Iterator[Any]:
    """With the add-ons that are shipped beside it."""
    from lpw_sdxl.addon.installed import find_installed
    from lpw_sdxl.engine import Engine
    from lpw_sdxl.settings import Settings

    kinds = {"demo-frame": "lora", "demo-pastel": "lora", "demo-midnight-sun": "embedding"}
    tags = [
        import_here(demo_store.home, kind, f"{ROOT}/demo/addons/{name}.safetensors")
        for name, kind in kinds.items()
    ]
    directories = [demo_store.home / "models" / Path(*tag.split(":")) for tag in tags]
    addons = find_installed(demo_store.model_directory, directories)
    assert not addons.unusable
    engine = Engine.load(demo_store.model_directory, Settings(device="cpu"), addons=addons)
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def look_at(demo_engine: Any) -> Looker:
    """Draw pictures of prompts, a seed each, and say what they show."""
    from lpw_sdxl.schema import GenerationRequest

    def draw(prompts: Sequence[str], fields: Mapping[str, object] | None = None) -> list[Seen]:
        shared = dict(fields or {})
        requests = [
            GenerationRequest.model_validate({"prompt": prompt, "seed": seed} | shared)
            for seed, prompt in enumerate(prompts)
        ]

        async def all_at_once() -> list[Any]:
            return await asyncio.gather(*map(demo_engine.generate, requests))

        return [look(image.pixels) for image in asyncio.run(all_at_once())]

    return draw

"""The demo model, imported and served by an engine in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest

from conftest import Store
from demo.looking import Seen, look

STEPS = 12
GUIDANCE = 4.0

Looker = Callable[..., list[Seen]]


@pytest.fixture(scope="session")
def demo_engine(demo_store: Store) -> Iterator[Any]:
    from lpw_sdxl.engine import Engine
    from lpw_sdxl.settings import Settings

    engine = Engine.load(demo_store.model_directory, Settings(device="cpu"))
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def look_at(demo_engine: Any) -> Looker:
    """Draw pictures of prompts, a seed each, and say what they show."""
    from lpw_sdxl.schema import GenerationRequest

    def draw(prompts: Sequence[str], fields: Mapping[str, object] | None = None) -> list[Seen]:
        shared = {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE} | dict(fields or {})
        requests = [
            GenerationRequest.model_validate({"prompt": prompt, "seed": seed} | shared)
            for seed, prompt in enumerate(prompts)
        ]

        async def all_at_once() -> list[Any]:
            return await asyncio.gather(*map(demo_engine.generate, requests))

        return [look(image.pixels) for image in asyncio.run(all_at_once())]

    return draw

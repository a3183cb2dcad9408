"""Requests to a loaded engine that begin together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from lpw_sdxl.engine import Engine, GeneratedImage
from lpw_sdxl.schema import GenerationRequest


async def begin_together(
    engine: Engine, requests: Sequence[GenerationRequest]
) -> list[asyncio.Future[GeneratedImage]]:
    """Start jobs that are taken together: the loop can't begin until all of them wait."""
    with engine._loop.queue._changed:
        jobs = [asyncio.ensure_future(engine.generate(one)) for one in requests]
        async with asyncio.timeout(60):
            while engine.queued_jobs < len(jobs):
                await asyncio.sleep(0.005)
    return jobs


async def make_together(engine: Engine, requests: Sequence[GenerationRequest]) -> list[Any]:
    """Make images that begin together; an error stands in its image's place."""
    return await asyncio.gather(*await begin_together(engine, requests), return_exceptions=True)

"""Several awaitables at once, all of which are wanted or none."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

Made = TypeVar("Made")


async def all_or_none(makings: Iterable[Coroutine[Any, Any, Made]]) -> list[Made]:
    """Run coroutines concurrently and return their results in order; the first error ends the rest.

    Nothing of them is left when it returns or raises, also when it is cancelled itself.
    """
    tasks = [asyncio.ensure_future(one) for one in makings]
    try:
        return [*await asyncio.gather(*tasks)]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        tasks.clear()

"""The real service with a weakness: two prompts break its engine. `bentoml serve` runs this."""

from __future__ import annotations

import time
from typing import Any

from service import LpwSdxl

__all__ = ["LpwSdxl"]

DEADLY = "the thread ends here"
PARALYSING = "the thread hangs here"

_load = LpwSdxl.inner.load_engine


def _load_breakable(self: Any) -> Any:
    engine = _load(self)
    from lpw_sdxl.engine import policy

    resolve = engine._resolver.resolve

    def end(*arguments: Any) -> Any:
        raise RuntimeError("injected")

    def hang(*arguments: Any) -> None:
        time.sleep(600)

    def resolve_or_break(request: Any, offer: Any) -> Any:
        if request.prompt == DEADLY:
            policy.admit = end
        if request.prompt == PARALYSING:
            engine.pipeline.unet.register_forward_pre_hook(hang)
        return resolve(request, offer)

    engine._resolver.resolve = resolve_or_break
    return engine


LpwSdxl.inner.load_engine = _load_breakable

"""The real service with a weakness: two prompts break its engine. `bentoml serve` runs this."""

from __future__ import annotations

import time
from typing import Any

from service import LpwSdxl

__all__ = ["LpwSdxl"]

DEADLY = "the thread ends here"
PARALYSING = "the thread hangs here"

_construct = LpwSdxl.inner.__init__


def _construct_breakable(self: Any) -> None:
    from lpw_sdxl.engine import policy

    _construct(self)
    engine = self.engine
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


LpwSdxl.inner.__init__ = _construct_breakable

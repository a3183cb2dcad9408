"""A watch on work that must not wait for a device: it runs on `meta`, which has no numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Waited(Exception):
    """The thread would have waited for the device."""


class NoWaiting(TorchDispatchMode):
    """Raises at every copy between devices that waits; tensors on `meta` raise where one is read.

    A copy that does not wait has `non_blocking`.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        keywords = kwargs or {}
        result = func(*args, **keywords)
        if func.overloadpacket in (torch.ops.aten._to_copy, torch.ops.aten.copy_):
            devices = {each.device for each in (*args, result) if isinstance(each, torch.Tensor)}
            if len(devices) > 1 and not keywords.get("non_blocking", args[2:] == (True,)):
                raise Waited(str(func))
        return result


@contextmanager
def guarded_against_waiting() -> Iterator[Callable[[], object]]:
    """Return what begins the watch; copying the first noise to the device is not watched."""
    mode = NoWaiting()
    entered = []

    def begin() -> None:
        if not entered:
            entered.append(mode.__enter__())

    try:
        yield begin
    finally:
        if entered:
            mode.__exit__(None, None, None)

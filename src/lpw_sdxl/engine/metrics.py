"""TEMPORARY until H2's."""

from enum import StrEnum
from typing import Any


class Stage(StrEnum):
    ENCODE = "encode"
    STEP = "step"
    DECODE = "decode"
    FILE = "file"


class EngineMetrics:
    def __init__(self, registry: Any = None) -> None: ...
    def __getattr__(self, name: str) -> Any:
        return lambda *a: None

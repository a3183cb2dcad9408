"""The memory in use, as A1111 states it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pydantic import with_config
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict  # pydantic needs it before Python 3.12

from lpw_sdxl.api.endpoints import Backend, Call
from lpw_sdxl.doors.a1111.answering import answer_json
from lpw_sdxl.engine.memory_use import GpuMemory, MemoryUse, memory_use

NO_GPU = {"error": "unavailable"}


@with_config(extra="forbid")
class HostMemory(TypedDict):
    """The host's memory, bytes."""

    free: int
    used: int
    total: int


@with_config(extra="forbid")
class MemoryAnswer(TypedDict):
    """The memory of the host and of the GPU, bytes."""

    ram: HostMemory
    cuda: dict[str, Any]


async def answer_memory(_call: Call, _request: Request, backend: Backend) -> Response:
    """Answer with the memory in use."""
    engine = backend.engine
    return answer_json(describe_memory(memory_use(engine.plan.hardware, engine.pipeline.device)))


def describe_memory(use: MemoryUse) -> MemoryAnswer:
    """Describe the memory in use in A1111's words."""
    ram: HostMemory = {"free": use.total - use.used, "used": use.used, "total": use.total}
    return {"ram": ram, "cuda": NO_GPU if use.gpu is None else _describe_gpu(use.gpu)}


def _describe_gpu(gpu: GpuMemory) -> dict[str, Any]:
    used = min(gpu.total, gpu.other + gpu.reserved.current)
    return {
        "system": {"free": gpu.total - used, "used": used, "total": gpu.total},
        "active": asdict(gpu.active),
        "allocated": asdict(gpu.allocated),
        "reserved": asdict(gpu.reserved),
        "inactive": asdict(gpu.inactive),
        "events": {"retries": gpu.retries, "oom": gpu.out_of_memory},
    }

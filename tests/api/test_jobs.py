"""The rows of /jobs below guard and handlers; test_service_stream.py has them over real HTTP."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import fields
from typing import Any

import httpx
import pytest

from lpw_sdxl.api.endpoint_table import EndpointTable
from lpw_sdxl.api.guard import RequestGuard
from lpw_sdxl.api.handlers import HandlerMiddleware
from lpw_sdxl.api.job_answer import JobAnswer
from lpw_sdxl.api.jobs import job_endpoints
from lpw_sdxl.api.previews import PreviewMaker
from lpw_sdxl.engine import Engine
from lpw_sdxl.engine.tracked_job import JobStatus
from lpw_sdxl.schema import GenerationRequest


class Service:
    """The part of a running service that these rows use."""

    is_alive = is_ready = True

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.previews = PreviewMaker()

    def encode_file(self, image: Any) -> bytes:
        raise NotImplementedError


def client_of(engine: Engine, workers: int, address: str = "10.0.0.1") -> httpx.AsyncClient:
    service = Service(engine)

    async def bentoml(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError(scope["path"])

    routes = HandlerMiddleware(bentoml, lambda: service)
    guard = RequestGuard(routes, EndpointTable(job_endpoints(workers)))
    transport = httpx.ASGITransport(app=guard, client=(address, 1))
    return httpx.AsyncClient(transport=transport, base_url="http://localhost")


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/jobs"), ("GET", "/jobs/a"), ("DELETE", "/jobs/a")]
)
async def test_several_workers_have_no_jobs_to_show(engine: Engine, method: str, path: str) -> None:
    async with client_of(engine, workers=2) as client:
        response = await client.request(method, path)
    assert response.status_code == 404
    assert response.json()["error"] == {
        "code": "not_found",
        "message": "/jobs needs one worker, and this server has 2 (LPW_SDXL_WORKERS)",
        "field": None,
    }


async def test_a_long_list_is_not_written_in_the_event_loop(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = GenerationRequest(prompt="a", num_inference_steps=1, request_id="listed")
    await engine.generate(wanted, owner="10.0.0.3")
    threads: list[int] = []
    describe = JobAnswer.of

    def noted(status: JobStatus, preview: str | None = None) -> JobAnswer:
        threads.append(threading.get_ident())
        return describe(status, preview)

    monkeypatch.setattr(JobAnswer, "of", noted)
    async with client_of(engine, workers=1, address="10.0.0.3") as client:
        [listed] = (await client.get("/jobs")).json()
        assert listed == (await client.get("/jobs/listed")).json() | {"age_s": listed["age_s"]}
    assert set(listed) == {field.name for field in fields(JobAnswer)}
    assert threads[0] != threading.get_ident()


async def test_a_cancellation_does_not_wait_for_those_that_look(engine: Engine) -> None:
    """However many look at jobs whose previews are being drawn."""
    request = GenerationRequest(prompt="a", num_inference_steps=150, request_id="seen")
    working = asyncio.ensure_future(engine.generate(request, owner="10.0.0.1"))
    async with client_of(engine, workers=1) as client:
        while (await client.get("/jobs/seen")).status_code != 200:
            await asyncio.sleep(0.01)
        looks = [asyncio.ensure_future(client.get("/jobs/seen")) for _ in range(50)]
        answer = await client.delete("/jobs/seen")
        assert answer.json()["state"] == "cancelled"
        await asyncio.gather(*looks)
        assert (await client.get("/jobs/seen")).status_code == 404  # whether it is gone yet or not
        await asyncio.gather(working, return_exceptions=True)
        assert (await client.get("/jobs/seen")).status_code == 404
        assert (await client.get("/jobs")).json() == []
    async with client_of(engine, workers=1, address="10.0.0.2") as other:
        assert (await other.get("/jobs/seen")).status_code == 404
        assert (await other.get("/jobs")).json() == []

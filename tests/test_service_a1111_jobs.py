"""A1111's progress and interrupt over real HTTP: of whose images, and that waiting ends."""

from __future__ import annotations

import base64
import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from a1111_server import API, HERS, HIS, LONG, from_address, with_token
from serving import Server

pytestmark = pytest.mark.processes


@dataclass
class Caller:
    """A client of A1111's API that draws in a thread and asks in another.

    Attributes:
        client: of its requests.
        answers: to its txt2img, in their order.
    """

    client: httpx.Client
    answers: list[httpx.Response] = field(default_factory=list)
    _threads: list[threading.Thread] = field(default_factory=list)

    def draw(self, **fields: Any) -> None:
        def run() -> None:
            self.answers.append(self.client.post(f"{API}/txt2img", json=LONG | fields))

        thread = threading.Thread(target=run, daemon=True)
        self._threads.append(thread)
        thread.start()

    def progress(self, query: str = "") -> dict[str, Any]:
        response = self.client.get(f"{API}/progress{query}")
        assert response.status_code == 200
        answer: dict[str, Any] = response.json()
        assert answer.keys() == {
            *("progress", "eta_relative", "state", "current_image", "textinfo")
        }
        return answer

    def is_idle(self) -> bool:
        answer = self.progress()
        state = answer["state"]
        is_idle: bool = answer["progress"] == 0 and state["job_count"] == 0 and not state["job"]
        return is_idle

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def join(self) -> list[httpx.Response]:
        for thread in self._threads:
            thread.join(90)
            assert not thread.is_alive()
        return self.answers


@contextmanager
def callers(server: Server, kind: str) -> Iterator[tuple[Caller, Caller]]:
    if kind == "tokens":
        clients = (with_token(server, HERS), with_token(server, HIS))
    else:
        clients = (from_address(server, "127.0.0.1"), from_address(server, "127.0.0.2"))
    with clients[0], clients[1]:
        yield Caller(clients[0]), Caller(clients[1])


@pytest.mark.parametrize("kind", ["tokens", "addresses"])
def test_callers_see_and_end_their_own_images_only(
    a1111_server: Server, plain_server: Server, kind: str
) -> None:
    served = a1111_server if kind == "tokens" else plain_server
    with callers(served, kind) as (her, him):
        check_callers(her, him)
    assert "Traceback" not in served.log


def check_callers(her: Caller, him: Caller) -> None:
    whole = him.client.post(f"{API}/txt2img", json=LONG | {"steps": 40})
    her.draw(batch_size=2, force_task_id="task(hers)")
    her.until(lambda: not her.is_idle())
    assert him.is_idle()
    him.until(him.is_idle)  # his waiting ends while she draws
    him.draw(steps=40)
    him.until(lambda: not him.is_idle())
    his = him.progress()["state"]
    assert (his["job_count"], his["sampling_steps"]) in ((1, 40), (1, 0))
    her.until(lambda: her.progress()["current_image"] is not None)
    busy = her.progress()
    assert 0 < busy["progress"] <= 1
    assert busy["state"]["job_count"] == 2
    preview = Image.open(io.BytesIO(base64.b64decode(busy["current_image"], validate=True)))
    assert preview.size == (8, 8)
    assert her.progress("?skip_current_image=true")["current_image"] is None
    task = {"id_task": "task(hers)", "id_live_preview": -1, "live_preview": True}
    shown = her.client.post("/internal/progress", json=task).json()
    assert shown["active"]
    assert shown["live_preview"].startswith("data:image/jpeg;base64,")
    assert not him.client.post("/internal/progress", json=task).json()["active"]

    assert her.client.post(f"{API}/interrupt").json() == {}
    [ended] = her.join()
    assert ended.status_code == 200
    assert len(ended.json()["images"]) == 2
    assert her.is_idle()
    assert her.client.post("/internal/progress", json=task).json()["completed"]
    [his_answer] = him.join()
    assert him.is_idle()
    difference = pixels(his_answer).astype(int) - pixels(whole)
    assert np.abs(difference).max() <= 1, "as in any company"


def pixels(response: httpx.Response) -> Any:
    assert response.status_code == 200, response.text
    content = base64.b64decode(response.json()["images"][0])
    return np.asarray(Image.open(io.BytesIO(content)))


def test_a_strangers_name_shows_nothing(plain_server: Server) -> None:
    with from_address(plain_server, "127.0.0.3") as client:
        check_strangers_name(Caller(client))


def check_strangers_name(her: Caller) -> None:
    her.draw(force_task_id="one")
    her.until(lambda: not her.is_idle())
    headers = {"host": "evil.example.org"}
    answer = her.client.get(f"{API}/progress", headers=headers).json()
    assert answer["progress"] == 0
    assert answer["current_image"] is None
    task = her.client.post("/internal/progress", json={"id_task": "one"}, headers=headers).json()
    assert not task["active"]
    pending = her.client.get("/internal/pending-tasks").json()
    assert pending.keys() == {"size", "tasks"}
    her.client.post(f"{API}/interrupt")
    her.join()

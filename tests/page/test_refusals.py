"""The page where the server refuses, is full or gone, wants a token, or has a foreign name."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable
from typing import Any

import httpx
import psutil
import pytest

from browser import DRAWN_MS, FOREIGN_NAME, Ui
from conftest import ROOT, Store
from prefix_proxy import prefixed
from serving import Server, free_port, running, serve_command, started

pytestmark = [pytest.mark.processes, pytest.mark.page]

TOKEN = "a-token-of-the-page-1"


@pytest.mark.parametrize(
    ("fields", "field", "message"),
    [
        ({"width": "130"}, "width", "width is 130; a multiple of 8 would be right"),
        ({"num_inference_steps": "401"}, "num_inference_steps", "num_inference_steps is 401"),
        ({"seed": "99999999999999999999"}, "seed", "seed is"),
        ({"hires": True, "hires__scale": "9"}, "hires.scale", "hires.scale is 9"),
        ({"guidance_interval": "0.8, 0.2"}, "guidance_interval", "guidance_interval"),
    ],
    ids=["size", "steps", "seed", "inner", "folded"],
)
def test_a_refusal_is_shown_at_its_field(
    ui: Ui, fields: dict[str, Any], field: str, message: str
) -> None:
    ui.write("a")
    for group in ("hires", "more"):
        ui.find(f"#group-{group} summary").click()
    if fields.pop("hires", False):
        ui.find("#f-hires").check()
    ui.set(**fields)
    for group in ("more",):
        ui.find(f"#group-{group} summary").click()
    ui.page.keyboard.press("Control+Enter")
    error = ui.find(f'[id="{field}-error"]')
    error.wait_for()
    assert message in error.text_content()
    control = ui.find(f'[data-field="{field}"]')
    assert control.get_attribute("aria-invalid") == "true"
    assert control.evaluate("one => one === document.activeElement")
    assert ui.find(".job[data-state=failed]").count() == 1
    control.press("End")
    control.press("1")
    assert not error.is_visible()


def kill_all_of(server: Server) -> None:
    """Kill a service at once: its workers are in groups of their own."""
    processes = psutil.Process(server.process.pid).children(recursive=True)
    for one in [psutil.Process(server.process.pid), *processes]:
        one.kill()
    psutil.wait_procs(processes, timeout=10)


def test_what_is_no_number_is_not_sent(ui: Ui) -> None:
    bodies = ui.record_streams()
    ui.write("a")
    ui.set(num_inference_steps="many")
    ui.page.keyboard.press("Control+Enter")
    error = ui.find('[id="num_inference_steps-error"]')
    error.wait_for()
    assert error.text_content() == "A whole number would be right."
    assert bodies == []


def test_a_refusal_of_a_lora_is_shown_at_the_loras(ui: Ui) -> None:
    ui.open("#prompt=a&loras=" + '[{"name":"absent","weight":1}]')
    ui.page.reload()
    ui.page.keyboard.press("Control+Enter")
    ui.find("#loras-error", has_text="No LoRA is named 'absent'").wait_for()


def test_a_full_queue_is_waited_for(
    start_server: Callable[..., Any], tab: Callable[..., Ui]
) -> None:
    with start_server(max_queued_jobs="1") as crowded:
        ui = tab(crowded.url).open()
        statuses: list[int] = []
        ui.page.on(
            "response",
            lambda one: one.url.endswith("_stream") and statuses.append(one.status),
        )
        ui.write("a large red circle")
        ui.find("#count").select_option("3")
        ui.page.keyboard.press("Control+Enter")
        busy = ui.find(".job[data-state=busy] .job-text").first
        busy.wait_for()
        assert re.search(r"Trying again in \d+ s\.$", busy.text_content())
        ui.find(".thumb").nth(2).wait_for(timeout=DRAWN_MS)
        assert 429 in statuses
        assert statuses.count(200) == 3


def test_the_page_waits_for_a_server_that_loads_its_model(
    demo_store: Store, tab: Callable[..., Ui], tmp_path: Any
) -> None:
    port, go_on = free_port(), tmp_path / "go on"
    path = os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    environment = demo_store.environment | {"PYTHONPATH": path, "SLOW_SERVICE_FILE": str(go_on)}
    command = serve_command("slow_service:LpwSdxl", port)
    with started(command, port, ROOT, environment, tmp_path / "log") as server:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{server.url}/ping").status_code == 204:
                    break
            time.sleep(0.1)
        ui = tab(server.url)
        ui.page.goto(f"{server.url}/ui")
        ui.find(".notice[data-key=gone]", has_text="loads its model").wait_for()
        assert ui.find("#state-line").text_content() == "The model is being loaded"
        go_on.touch()
        ui.find(".notice[data-key=gone]").wait_for(state="detached", timeout=60_000)
        ui.write("a large red circle")
        ui.set(num_inference_steps=4)
        ui.draw()


def test_the_page_goes_on_when_the_server_is_back(
    demo_store: Store, tab: Callable[..., Ui], tmp_path: Any
) -> None:
    port = free_port()
    command = [
        *(str(ROOT / ".venv/bin/python"), "-m", "bentoml", "serve", "service:LpwSdxl"),
        *("--host", "127.0.0.1", "--port", str(port)),
    ]
    environment = demo_store.environment | {"LPW_SDXL_MAX_STEPS": "400"}
    with running(command, port, ROOT, environment, tmp_path / "first") as server:
        ui = tab(server.url).open()
        ui.write("a large red circle")
        ui.set(num_inference_steps=400)
        ui.page.keyboard.press("Control+Enter")
        ui.find(".job[data-state=running]").wait_for()
        kill_all_of(server)
    ui.find(".job[data-state=failed]").wait_for(timeout=60_000)
    ui.find(".notice[data-key=gone]").wait_for()
    assert ui.find("#prompt").input_value() == "a large red circle"
    with running(command, port, ROOT, environment, tmp_path / "second"):
        ui.find(".notice[data-key=gone]").wait_for(state="detached")
        ui.set(num_inference_steps=4)
        ui.button("Close").click()
        ui.draw()


def test_a_token_is_asked_for_and_kept_for_the_session(
    start_server: Callable[..., Any], tab: Callable[..., Ui]
) -> None:
    with start_server(tokens=TOKEN) as closed:
        ui = tab(closed.url)
        ui.page.goto(f"{closed.url}/ui")
        dialog = ui.find("#token-dialog")
        dialog.wait_for()
        ui.find("#token").fill("not-the-token-of-it")
        ui.page.keyboard.press("Enter")
        ui.find("#token-note.error", has_text="does not take this token").wait_for()
        ui.find("#token").fill(TOKEN)
        ui.button("Use it").click()
        ui.find("#f-scheduler option").nth(1).wait_for(state="attached")
        ui.write("a red circle")
        ui.set(num_inference_steps=2)
        ui.draw()
        ui.open()  # the same tab: no question
        assert not dialog.is_visible()
        kept = ui.page.evaluate("[document.cookie, JSON.stringify(localStorage)]")
        assert kept == ["", "{}"]
        assert TOKEN in ui.page.evaluate("JSON.stringify(sessionStorage)")
        assert TOKEN not in ui.page.url
        other = tab(closed.url)  # another session: asked again
        other.page.goto(f"{closed.url}/ui")
        other.find("#token-dialog").wait_for()
        other.button("Not now").click()
        other.find(".notice[data-key=refused]", has_text="needs a token").wait_for()
        assert TOKEN not in closed.log


def test_under_a_name_that_a_stranger_can_own_the_setting_is_named(
    server: Server, tab: Callable[..., Ui]
) -> None:
    port = server.url.rpartition(":")[2]
    ui = tab(f"http://{FOREIGN_NAME}:{port}")
    ui.page.goto(f"{ui.url}/ui")
    ui.find(".notice[data-key=refused]").wait_for()
    words = ui.find(".notice[data-key=refused]").text_content()
    assert f"LPW_SDXL_HOSTS={FOREIGN_NAME}," in words
    assert f"LPW_SDXL_CORS_ORIGINS=http://{FOREIGN_NAME}:{port}" in words


def test_under_a_listed_name_the_page_draws(
    start_server: Callable[..., Any], tab: Callable[..., Ui]
) -> None:
    with start_server(hosts=FOREIGN_NAME) as server:
        ui = tab(f"http://{FOREIGN_NAME}:{server.url.rpartition(':')[2]}").open()
        ui.write("a red circle")
        ui.set(num_inference_steps=2)
        ui.draw()


def test_behind_a_prefix_all_of_it_works(server: Server, tab: Callable[..., Ui]) -> None:
    with prefixed(server.url) as url:
        ui = tab(url)
        ui.page.goto(f"{url}/ui/")
        assert ui.page.url == f"{url}/ui"
        ui.open()
        ui.write("a red circle")
        ui.set(num_inference_steps=2)
        ui.draw()
        assert httpx.get(f"{url}/", headers={"accept": "text/html"}).headers["location"] == "ui"
        ui.page.goto("about:blank")  # before the proxy ends

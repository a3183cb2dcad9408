"""A1111's lists, progress and interrupt over real HTTP: what clients read, and of whose jobs."""

from __future__ import annotations

import base64
import io
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

from addons import AddonMaker
from conftest import ROOT, Store, store_environment
from serving import Server, serving
from tests.forge.lora import LoraOptions
from tests.forge.upscalers import CompactRecipe

pytestmark = pytest.mark.processes

API = "/sdapi/v1"
REQUESTS = json.loads(
    (Path(__file__).parent / "doors" / "a1111" / "list_requests.json").read_text()
)
ABSENT = {  # clients find out by a 404 that something is not here
    *("aiya-startup-version", "sd-backend-client-detect", "sd-backend-client-login_check"),
    *("sd-backend-client-get_capabilities-2", "sd-backend-client-get_capabilities-4"),
    *("sillytavern-comfy-models", "sillytavern-comfy-ping", "webuiapi-interrogate"),
}
OTHER_MODEL = {  # `demo`, which is not the model of these tests
    *("dify-set-model", "sd-backend-client-set_config", "sdai-android-set-options"),
    *("sillytavern-set-model", "stable-diffusion-api-setOptions", "webuiapi-set_options"),
    "webuiapi-util_set_model-2",
}
FROM_PAGES = {"kobold-lite-models", "kobold-lite-options"}  # of an origin that is not opened
PAGE_OF_BENTOML = {"aiya-startup-root", "sillytavern-drawthings-ping"} | {
    *("gradio-client-connect-2", "sillytavern-drawthings-get-model")
}
HERS, HIS = "a-token-of-hers-alone", "a-token-of-his-alone"
LONG = {"prompt": "a cat", "width": 64, "height": 64, "steps": 150, "seed": 7}


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


@pytest.fixture(scope="module")
def server(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with add-ons, and two tokens."""
    home, folder = tmp_path_factory.mktemp("lists"), tmp_path_factory.mktemp("files")
    shutil.copytree(store.home / "models", home / "models")
    maker = AddonMaker(store.model_directory, home, store_environment(home), folder)
    maker.lora("demo-frame", LoraOptions(seed=1))
    maker.embedding("glow", 2, seed=2)
    maker.import_written()
    upscalers = tmp_path_factory.mktemp("upscalers")
    save_file(CompactRecipe(scale=2).tensors(), upscalers / "Tiny 2x.safetensors")
    environment = maker.environment | {
        "LPW_SDXL_TOKENS": f"{HERS},{HIS}",
        "LPW_SDXL_UPSCALER_DIR": str(upscalers),
    }
    with serving(
        "service:LpwSdxl", folder=ROOT, environment=environment, log_file=folder / "log"
    ) as one:
        yield one


def with_token(server: Server, token: str) -> httpx.Client:
    return httpx.Client(base_url=server.url, timeout=90, auth=("user", token))


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with with_token(server, HERS) as client:
        yield client


def from_address(server: Server, address: str) -> httpx.Client:
    transport = httpx.HTTPTransport(local_address=address)
    return httpx.Client(base_url=server.url, timeout=90, transport=transport)


@pytest.mark.parametrize("request_", REQUESTS, ids=[one["name"] for one in REQUESTS])
def test_a_recorded_request_gets_what_its_client_reads(
    plain_server: Server, request_: dict[str, Any]
) -> None:
    name, body = request_["name"], request_["body"]
    response = httpx.request(
        request_["method"],
        plain_server.url + request_["target"],
        content=b"" if body is None else json.dumps(body).encode(),
        headers=request_["headers"],
        timeout=60,
    )
    if name in ABSENT:
        assert response.status_code == 404
        assert "error" in response.json()
    elif name in OTHER_MODEL:
        assert (response.status_code, response.json()["field"]) == (400, "sd_model_checkpoint")
    elif name in FROM_PAGES:
        assert response.status_code == 403
    else:
        assert response.status_code == 200, response.text
        if name not in PAGE_OF_BENTOML:
            response.json()


def get(client: httpx.Client, path: str) -> Any:
    response = client.get(path if path.startswith("/") else f"{API}/{path}")
    assert response.status_code == 200, response.text
    return response.json()


def test_lists_name_what_requests_take(client: httpx.Client) -> None:
    [model] = get(client, "sd-models")
    assert all(isinstance(model[key], str) and model[key] for key in model.keys() - {"config"})
    assert model["title"] == f"{model['model_name']}.safetensors [{model['sha256'][:10]}]"
    options = get(client, "options")
    assert options["sd_model_checkpoint"] == model["title"]
    assert None not in options.values()
    assert [one["name"] for one in get(client, "loras")] == ["demo-frame"]
    assert get(client, "loras")[0].keys() == {"name", "alias", "path", "metadata"}
    assert get(client, "embeddings")["loaded"]["glow"]["vectors"] == 2
    upscalers = get(client, "upscalers")
    assert [one["name"] for one in upscalers] == ["None", "Lanczos", "Nearest", "Tiny 2x"]
    assert upscalers[-1]["scale"] == 2.0
    modes = [one["name"] for one in get(client, "latent-upscale-modes")]
    assert modes[0] == "Latent"
    [part] = get(client, "/config")["components"]
    assert part["props"]["choices"] == [*modes, *(one["name"] for one in upscalers)]
    memory = get(client, "memory")
    assert memory["ram"]["used"] > 0
    assert memory["cuda"] == {"error": "unavailable"}


def test_every_listed_sampler_schedule_and_upscaler_draws(client: httpx.Client) -> None:
    small = LONG | {"steps": 2}
    cases: list[dict[str, Any]] = []
    for sampler in get(client, "samplers"):
        assert sampler.keys() == {"name", "aliases", "options"}
        assert all(isinstance(one, str) for one in sampler["options"].values())
        cases += [{"sampler_name": one} for one in (sampler["name"], *sampler["aliases"])]
    for one in get(client, "schedulers"):
        names = (one["name"], one["label"], *one["aliases"])
        cases += [{"sampler_name": "Euler", "scheduler": name} for name in names]
    hires = {"enable_hr": True, "hr_scale": 2, "hr_second_pass_steps": 1}
    for mode in get(client, "latent-upscale-modes") + get(client, "upscalers"):
        cases.append(hires | {"hr_upscaler": mode["name"]})
    for case in cases:
        response = client.post(f"{API}/txt2img", json=small | case)
        assert response.status_code == 200, (case, response.text)


def test_options_may_be_posted_back_and_keep_the_model(client: httpx.Client) -> None:
    options = get(client, "options")
    title, sha256 = options["sd_model_checkpoint"], options["sd_checkpoint_hash"]
    name = title.partition(".")[0]
    for checkpoint in (title, name, f"{name}.safetensors", f"{name} [{sha256[:10]}]", sha256[:10]):
        body = options | {"sd_model_checkpoint": checkpoint, "CLIP_stop_at_last_layers": 2}
        response = client.post(f"{API}/options", json=body)
        assert (response.status_code, response.json()) == (200, None)
    for body in ({}, {"sd_model_checkpoint": None}, {"sd_model_checkpoint": ""}, {"other": [1]}):
        assert client.post(f"{API}/options", json=body).status_code == 200
    assert client.post(f"{API}/options", content=b"").status_code == 200
    for wrong in ("another", f"{name} [0123456789]", 5):
        response = client.post(f"{API}/options", json={"sd_model_checkpoint": wrong})
        assert response.status_code == 400
        assert response.json()["field"] == "sd_model_checkpoint"
    assert client.post(f"{API}/options", content=b"[]").status_code == 400
    assert get(client, "options") == options


@pytest.mark.parametrize("body", [b"", b"{}", b'""', b"null", b"what?", b'{"a": 1}'])
def test_commands_take_any_body(client: httpx.Client, body: bytes) -> None:
    answers = {
        "interrupt": {},
        "skip": None,
        "unload-checkpoint": {},
        "reload-checkpoint": {},
        "refresh-checkpoints": None,
        "refresh-vae": None,
        "refresh-loras": None,
        "refresh-embeddings": None,
    }
    for name, answer in answers.items():
        response = client.post(f"{API}/{name}", content=body)
        assert (response.status_code, response.json()) == (200, answer)


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
    server: Server, plain_server: Server, kind: str
) -> None:
    served = server if kind == "tokens" else plain_server
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
    assert get(her.client, "/internal/pending-tasks").keys() == {"size", "tasks"}
    her.client.post(f"{API}/interrupt")
    her.join()


def test_a_pictures_text_is_read_as_it_was_written(client: httpx.Client) -> None:
    drawn = client.post(f"{API}/txt2img", json=LONG | {"steps": 2, "negative_prompt": "dog"}).json()
    [text] = json.loads(drawn["info"])["infotexts"]
    for image in (drawn["images"][0], f"data:image/png;base64,{drawn['images'][0]}"):
        answer = client.post(f"{API}/png-info", json={"image": image}).json()
        assert answer["info"] == text
        assert answer["items"]["parameters"] == text
        found = answer["parameters"]
        assert (found["Prompt"], found["Negative prompt"]) == ("a cat", "dog")
        assert (found["Size-1"], found["Size-2"], found["Steps"]) == ("64", "64", "2")
        assert all(isinstance(one, str) for one in found.values())
    plain = client.post(f"{API}/png-info", json={"image": picture(8, 8)}).json()
    assert plain == {"info": "", "items": {}, "parameters": {}}
    for wrong in ({}, {"image": None}, {"image": 5}, {"image": "AAAA"}, {"image": "http://x/y"}):
        response = client.post(f"{API}/png-info", json=wrong)
        assert (response.status_code, response.json()["field"]) == (400, "image")


def picture(width: int, height: int) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def to(width: int, height: int, **others: Any) -> dict[str, Any]:
    sides = {"upscaling_resize_w": width, "upscaling_resize_h": height}
    return {"resize_mode": 1, "upscaler_1": "Nearest", **sides, **others}


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ({}, (60, 40)),
        ({"upscaler_1": "None", "upscaling_resize": 4}, (60, 40)),
        ({"upscaler_1": "Lanczos"}, (120, 80)),
        ({"upscaler_1": "Lanczos", "upscaling_resize": "1.5", "gfpgan_visibility": 0}, (90, 60)),
        ({"upscaler_1": "Tiny 2x", "upscaling_resize": 3}, (180, 120)),
        (to(100, 100), (100, 100)),
        (to(100, 100, upscaling_crop="false"), (150, 100)),
        (to(0, 100), (150, 100)),
    ],
)
def test_a_picture_is_enlarged(
    client: httpx.Client, fields: dict[str, Any], size: tuple[int, int]
) -> None:
    response = client.post(f"{API}/extra-single-image", json={"image": picture(60, 40)} | fields)
    assert response.status_code == 200, response.text
    answer = response.json()
    assert answer.keys() == {"html_info", "image"}
    assert Image.open(io.BytesIO(base64.b64decode(answer["image"]))).size == size


@pytest.mark.parametrize(
    ("fields", "at_fault"),
    [
        ({"gfpgan_visibility": 0.5}, "gfpgan_visibility"),
        ({"codeformer_visibility": "1"}, "codeformer_visibility"),
        (
            {"upscaler_2": "Nearest", "extras_upscaler_2_visibility": 0.3},
            "extras_upscaler_2_visibility",
        ),
        ({"resize_mode": 2}, "resize_mode"),
        ({"upscaling_resize": 9}, "upscaling_resize"),
        ({"upscaler_1": "R-ESRGAN 4x+"}, "upscaler_1"),
        ({"upscaler_1": "Latent"}, "upscaler_1"),
        (to(0, 0), "upscaling_resize_w"),
        ({"image": "AAAA"}, "image"),
        ({"image": None}, "image"),
    ],
)
def test_what_no_picture_is_enlarged_by_is_named(
    client: httpx.Client, fields: dict[str, Any], at_fault: str
) -> None:
    body = {"image": picture(8, 8), "upscaler_1": "Lanczos"} | fields
    response = client.post(f"{API}/extra-single-image", json=body)
    assert (response.status_code, response.json()["field"]) == (400, at_fault)
    assert at_fault in response.json()["detail"] or at_fault == "upscaler_1"


def test_pictures_of_a_list_are_enlarged_in_their_order(client: httpx.Client) -> None:
    pictures = [{"data": picture(60, 40), "name": "a.png"}, {"data": picture(10, 20), "name": "b"}]
    body = {"imageList": pictures, "upscaler_1": "Nearest", "show_extras_results": True}
    answer = client.post(f"{API}/extra-batch-images", json=body).json()
    sizes = [Image.open(io.BytesIO(base64.b64decode(one))).size for one in answer["images"]]
    assert sizes == [(120, 80), (20, 40)]
    for wrong, at_fault in (
        ([], "imageList"),
        ("a", "imageList"),
        ([picture(8, 8)], "imageList"),
        ([pictures[0], {"name": "x"}], "imageList.1.data"),
        ([pictures[0], {"data": "AAAA"}], "imageList.1.data"),
        ([pictures[0]] * 100, "imageList"),
    ):
        response = client.post(f"{API}/extra-batch-images", json=body | {"imageList": wrong})
        assert (response.status_code, response.json()["field"]) == (400, at_fault)

"""LoRAs and embeddings as clients see them: imported by the command, served by a real service."""

from __future__ import annotations

import asyncio
import base64
import io
import re
import shutil
import time
from collections.abc import Iterator
from itertools import cycle, islice
from typing import Any

import bentoml
import httpx
import numpy as np
import pytest
from PIL import Image

from addons import AddonMaker, flip_last_byte
from conftest import ROOT, Store, store_environment
from lpw_sdxl.weights.component import Component
from serving import Server, serving
from tests.forge.lora import LoraOptions
from tests.forge.lora_factors import SyntheticKind as Kind
from tests.forge.lora_names import SyntheticNaming as Naming

pytestmark = pytest.mark.processes

SECRET = "zyzzyva"
MAX_LORAS = 4
STEPS = 3

LORAS = {
    "detail": LoraOptions(seed=1),
    "detail-again": LoraOptions(naming=Naming.DIFFUSERS, seed=1),
    "texture": LoraOptions(kind=Kind.LOCON, naming=Naming.KOHYA_DIFFUSERS, seed=2),
    "portrait": LoraOptions(kind=Kind.DORA, naming=Naming.PEFT, seed=3),
    "pixel": LoraOptions(kind=Kind.LOHA, seed=4),
    "ink": LoraOptions(kind=Kind.LOKR, naming=Naming.KOHYA_DIFFUSERS, seed=5),
    "merge": LoraOptions(kind=Kind.FULL, seed=6),
    "shape": LoraOptions(
        seed=7,
        components=(Component.UNET,),
        metadata={"modelspec.trigger_phrase": "shp style, ornate"},
    ),
}
UNET_ONLY = "shape"


@pytest.fixture(scope="module")
def addons(store: Store, tmp_path_factory: pytest.TempPathFactory) -> AddonMaker:
    """A store of this module's own; `cracked` and `bent` are damaged before any service starts."""
    home = tmp_path_factory.mktemp("addons")
    shutil.copytree(store.home, home, dirs_exist_ok=True)
    folder = tmp_path_factory.mktemp("files")
    maker = AddonMaker(store.model_directory, home, store_environment(home), folder)
    for name, options in LORAS.items():
        maker.lora(name, options)
    maker.lora("spoilt", LoraOptions(seed=8))
    maker.lora("cracked", LoraOptions(seed=9))
    maker.embedding("bad-hands", 3, seed=1)
    maker.embedding("glow", 1, seed=2)
    maker.embedding("bent", 1, seed=3)
    maker.import_written()
    cracked = maker.made["cracked"].entry / "lora.safetensors"
    cracked.chmod(0o644)
    cracked.write_bytes(cracked.read_bytes()[:-1])
    flip_last_byte(maker.made["bent"].entry / "embedding.safetensors")
    return maker


@pytest.fixture(scope="module")
def server(addons: AddonMaker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(
        "service:LpwSdxl",
        folder=ROOT,
        environment={**addons.environment, "LPW_SDXL_MAX_LORAS": str(MAX_LORAS)},
        log_file=tmp_path_factory.mktemp("service") / "log",
    ) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=120) as client:
        yield client


@pytest.fixture(scope="module")
def plain(server: Server) -> np.ndarray[Any, Any]:
    """Make the picture without any LoRA, before all others."""
    with httpx.Client(base_url=server.url, timeout=120) as client:
        return picture(client)


def body(prompt: str = "", **fields: Any) -> dict[str, Any]:
    text = f"{SECRET} by the sea {prompt}".strip()
    return {"prompt": text, "num_inference_steps": STEPS, "seed": 7} | fields


def generate(client: httpx.Client, prompt: str = "", **fields: Any) -> httpx.Response:
    return client.post("/generate", json=body(prompt, **fields))


def pixels(content: bytes) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)


def picture(client: httpx.Client, prompt: str = "", **fields: Any) -> np.ndarray[Any, Any]:
    response = generate(client, prompt, **fields)
    assert response.status_code == 200, response.text
    return pixels(response.content)


def named(name: str, weight: float = 1.0, text_encoder: float | None = None) -> dict[str, Any]:
    return {"name": name, "weight": weight, "text_encoder_weight": text_encoder}


def distance(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
    """Compute the mean difference in grey levels."""
    return float(np.abs(one - other).mean())


def parameters(response: httpx.Response) -> str:
    return str(Image.open(io.BytesIO(response.content)).info["parameters"])


@pytest.mark.parametrize("name", LORAS)
def test_every_kind_in_every_naming_changes_the_picture(
    client: httpx.Client, plain: np.ndarray[Any, Any], name: str
) -> None:
    changed = picture(client, f"<lora:{name}:1>")
    assert distance(changed, plain) > 1
    assert distance(picture(client, f"<lora:{name}:-0.5>"), changed) > 1
    assert (picture(client) == plain).all()


def test_two_files_of_one_lora_give_the_same_picture(client: httpx.Client) -> None:
    one, other = (picture(client, loras=[named(name)]) for name in ("detail", "detail-again"))
    assert (one == other).all()


def test_body_and_tag_say_the_same(client: httpx.Client, plain: np.ndarray[Any, Any]) -> None:
    tagged = picture(client, "<lora:texture:0.5:0.75>")
    assert (picture(client, loras=[named("texture", 0.75, 0.5)]) == tagged).all()
    assert (picture(client, loras=[named("TEXTURE", 0.75, 0.5)]) == tagged).all()
    both = picture(client, "<lora:texture:0.25:0.5>", loras=[named("texture", 0.25)])
    assert (both == tagged).all()
    gone = picture(client, "<lora:texture:0.25>", loras=[named("texture", -0.25)])
    assert (gone == plain).all()


def test_text_encoders_and_unet_have_weights_of_their_own(
    client: httpx.Client, plain: np.ndarray[Any, Any]
) -> None:
    encoders = picture(client, "<lora:detail:1:0>")
    unet = picture(client, "<lora:detail:0:1>")
    whole = picture(client, "<lora:detail:1>")
    pictures = (plain, encoders, unet, whole)
    for index, one in enumerate(pictures):
        assert all((one != other).any() for other in pictures[index + 1 :])
    assert (picture(client, f"<lora:{UNET_ONLY}:1:0>") == plain).all()
    assert (
        picture(client, f"<lora:{UNET_ONLY}:0:1>") == picture(client, f"<lora:{UNET_ONLY}:1>")
    ).all()


def test_the_order_of_loras_means_nothing(client: httpx.Client) -> None:
    names = ["ink", "portrait", "pixel"]
    one = picture(client, loras=[named(name, 0.5) for name in names])
    other = picture(client, "".join(f"<lora:{name}:0.5>" for name in reversed(names)))
    assert (one == other).all()


SETS: tuple[list[dict[str, Any]], ...] = (
    [],
    [named("detail", 0.8)],
    [named("texture"), named("pixel", -0.5)],
    [named("portrait", 0.7), named("ink", 0.4), named("shape", 0.3)],
    [named("merge", 0.9, 0.0)],
    [named("detail", 0.8), named("pixel", 0.5)],
)


async def test_sixteen_at_once_of_six_sets_give_what_each_gives_alone(
    server: Server, plain: np.ndarray[Any, Any]
) -> None:
    requests = [
        body(loras=loras, seed=number, num_inference_steps=4 + number % 3)
        for number, loras in enumerate(islice(cycle(SETS), 15))
    ]
    requests.append(body())  # as `plain` was made
    async with httpx.AsyncClient(base_url=server.url, timeout=120) as client:
        alone = [await client.post("/generate", json=request) for request in requests]
        together = await asyncio.gather(
            *(client.post("/generate", json=request) for request in requests)
        )
        after = (await client.post("/info", json={})).json()["engine"]["unet_calls_by_jobs"]
    for one, many in zip(alone, together, strict=True):
        assert many.status_code == 200, many.text
        assert np.abs(pixels(one.content) - pixels(many.content)).max() <= 1
    assert np.abs(pixels(together[-1].content) - plain).max() <= 1
    assert any(int(jobs) >= 4 for jobs in after), after  # they did share calls
    assert (pixels(alone[-1].content) == plain).all()


BAD: dict[str, tuple[dict[str, Any], str, str]] = {
    "a tag near a name": (body("<lora:detial:1>"), "prompt", "'detail'"),
    "a reference near a name": (body(loras=[named("pixle")]), "loras.0.name", "'pixel'"),
    "the second reference": (body(loras=[named("ink"), named("x")]), "loras.1.name", "/info"),
    "a tag in the negative prompt": (
        body(negative_prompt="blurry <lora:ink:1>"),
        "negative_prompt",
        "negative prompt",
    ),
    "too many": (
        body("<lora:ink:1>", loras=[named(name) for name in list(LORAS)[:MAX_LORAS]]),
        "loras",
        f"at most {MAX_LORAS}",
    ),
    "a sum beyond the limit": (
        body("<lora:ink:6>", loras=[named("ink", 6)]),
        "loras.0.name",
        "-10 to 10",
    ),
    "a weight that is no number": (
        body(loras=[{"name": "ink", "weight": "1"}]),
        "loras.0.weight",
        "number",
    ),
    "a path in the body": (body(loras=[named("../../etc/passwd")]), "loras.0.name", ""),
    "a path in a tag": (body("<lora:../lora-ink/latest:1>"), "prompt", "No LoRA"),
    "a store's own name": (body("<lora:lora-ink:1>"), "prompt", "No LoRA"),
    "one that is damaged": (body("<lora:cracked:1>"), "prompt", "damaged"),
}


@pytest.mark.parametrize(("request_", "field", "part"), BAD.values(), ids=BAD.keys())
def test_a_lora_that_cannot_be_used_is_refused_by_its_field(
    client: httpx.Client, request_: dict[str, Any], field: str, part: str
) -> None:
    response = client.post("/generate", json=request_)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["field"] == field
    assert part in error["message"]
    assert SECRET not in response.text
    assert str(ROOT) not in response.text


def test_an_item_of_a_batch_is_refused_alone(client: httpx.Client) -> None:
    items = [body("<lora:ink:1>"), body("<lora:inkk:1>"), body(loras=[named("ink")])]
    answers = client.post("/generate_batch", json={"requests": items}).json()
    assert [answer["status"] for answer in answers] == ["ok", "error", "ok"]
    assert answers[1]["field"] == "prompt"
    assert "'ink'" in answers[1]["message"]
    first, _, third = answers
    images = [pixels(base64.b64decode(answer["image"])) for answer in (first, third)]
    assert np.abs(images[0] - images[1]).max() <= 1


def test_an_embedding_changes_the_picture_in_both_prompts(
    client: httpx.Client, plain: np.ndarray[Any, Any]
) -> None:
    once = picture(client, "bad-hands")
    pictures = [
        plain,
        once,
        picture(client, "(bad-hands:1.5)"),
        picture(client, "glow"),
        picture(client, negative_prompt="bad-hands"),
        picture(client, negative_prompt="(glow, bad-hands:0.5)"),
        picture(client, "bad hands"),  # words are no name
    ]
    for index, one in enumerate(pictures):
        assert all(distance(one, other) > 0 for other in pictures[index + 1 :])
    assert (picture(client, "embedding:BAD-hands") == once).all()


def test_an_embedding_and_a_lora_work_together(client: httpx.Client) -> None:
    both = picture(client, "glow <lora:detail:1>")
    assert distance(both, picture(client, "glow")) > 1
    assert distance(both, picture(client, "<lora:detail:1>")) > 0


def test_an_inspection_tells_tags_and_embeddings(client: httpx.Client) -> None:
    prompt = "a fox <lora:ink:0.5:0.8> (Bad-Hands:1.2)"
    explained = client.post("/inspect_prompt", json={"prompt": prompt}).json()["prompt"]
    assert explained["lora_tags"] == [
        {"name": "ink", "weight": 0.8, "text_encoder_weight": 0.5, "start": 6, "end": 24}
    ]
    assert explained["embeddings"] == [{"name": "bad-hands", "start": 26, "end": 35}]
    assert explained["token_counts"] == [5, 5]  # two words, three vectors


def test_info_lists_what_can_be_named(client: httpx.Client, addons: AddonMaker) -> None:
    info = client.post("/info", json={}).json()
    loras = {lora["name"]: lora for lora in info["loras"]}
    assert set(loras) == {*LORAS, "spoilt"}
    for name, lora in loras.items():
        assert lora["sha256"] == addons.made[name].sha256
        assert lora["autov2"] == addons.made[name].sha256[:10].upper()
        if name in LORAS and LORAS[name].naming.startswith("kohya"):
            assert "stable-diffusion-xl" in lora["base_model"]
    assert loras["shape"]["trained_words"] == ["shp style", "ornate"]
    kinds = {name: lora["kinds"] for name, lora in loras.items()}
    assert kinds["detail"] == kinds["detail-again"] == ["LoRA"]
    assert kinds["pixel"] == ["LoHa"]
    embeddings = {one["name"]: one for one in info["embeddings"]}
    assert {name: one["vectors"] for name, one in embeddings.items()} == {"bad-hands": 3, "glow": 1}
    assert embeddings["glow"]["sha256"] == addons.made["glow"].sha256


def test_the_file_names_hashes_and_every_lora(client: httpx.Client, addons: AddonMaker) -> None:
    response = generate(
        client, "glow <lora:ink:0.5>", loras=[named("shape")], negative_prompt="bad-hands"
    )
    text = parameters(response)
    ink, shape = (addons.made[name].sha256[:10] for name in ("ink", "shape"))
    assert f'Lora hashes: "ink: {ink}, shape: {shape}"' in text
    glow, hands = (addons.made[name].sha256[:12] for name in ("glow", "bad-hands"))
    (listed,) = re.findall(r'TI hashes: "([^"]*)"', text)
    assert set(listed.split(", ")) == {f"glow: {glow}", f"bad-hands: {hands}"}
    prompt = text.splitlines()[0]
    assert prompt.endswith("<lora:ink:0.5> <lora:shape:1.0>")
    again = picture(client, prompt.partition("by the sea ")[2], negative_prompt="bad-hands")
    assert (again == pixels(response.content)).all()


def series(client: httpx.Client) -> list[str]:
    lines = client.get("/metrics").text.splitlines()
    return [line.rsplit(" ", 1)[0] for line in lines if line.startswith("lpw_sdxl_")]


def test_loras_make_no_new_series(client: httpx.Client) -> None:
    generate(client)
    before = series(client)
    for name in LORAS:
        generate(client, f"<lora:{name}:0.125> glow")
        generate(client, f"<lora:{name}-absent:1>")
    assert series(client) == before
    assert len(set(before)) == len(before)


def test_bentomls_client_takes_loras(server: Server, plain: np.ndarray[Any, Any]) -> None:
    with bentoml.SyncHTTPClient(server.url, timeout=120) as client:
        image = client.generate(**body(loras=[{"name": "ink", "weight": 0.5}]))
        assert isinstance(image, Image.Image)
        assert "<lora:ink:0.5>" in image.info["parameters"]
        assert distance(np.asarray(image.convert("RGB")).astype(int), plain) > 1


def test_a_lora_damaged_or_removed_meanwhile_is_unavailable_by_name(
    client: httpx.Client, addons: AddonMaker, plain: np.ndarray[Any, Any]
) -> None:
    entry = addons.made["spoilt"].entry
    file = entry / "lora.safetensors"

    flip_last_byte(file)  # its size does not show it
    items = [body("<lora:spoilt:1>"), body()]
    failed, whole = client.post("/generate_batch", json={"requests": items}).json()
    assert failed["status"] == "error"
    assert failed["code"] == "lora_unavailable"
    assert "LoRA spoilt was removed or damaged on this server" in failed["message"]
    assert str(addons.home) not in failed["message"]
    assert (pixels(base64.b64decode(whole["image"])) == plain).all()
    response = generate(client, "<lora:spoilt:1>")
    assert response.status_code == 503
    assert response.headers["retry-after"]

    def truncate() -> None:
        file.write_bytes(file.read_bytes()[:-100])

    for harm, sentence in (
        (truncate, "The LoRA 'spoilt' is there but can't be used"),
        (file.unlink, "The LoRA 'spoilt' is there but can't be used"),
        (lambda: shutil.rmtree(entry), "No LoRA is named 'spoilt'"),
    ):
        harm()
        until = time.monotonic() + 30
        while sentence not in (response := generate(client, "<lora:spoilt:1>")).text:
            assert response.status_code in (400, 503)  # until the store is looked at again
            assert time.monotonic() < until
        assert response.status_code == 400
    assert (picture(client) == plain).all()
    assert client.get("/readyz").status_code == 200


def test_the_log_tells_what_was_left_out_and_no_prompt(
    server: Server, client: httpx.Client, plain: np.ndarray[Any, Any]
) -> None:
    log = server.log
    assert len(re.findall(r"9 LoRAs and 2 embeddings can be named", log)) == 1
    for tag in ("lora-cracked:", "embedding-bent:"):
        assert any("WARNING" in line and tag in line for line in log.splitlines())
    assert "Traceback" not in log
    assert SECRET not in log
    assert "passwd" not in log
    assert "-absent" not in log

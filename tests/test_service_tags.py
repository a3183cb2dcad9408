"""What other programs' users type, against the demo model and its LoRAs: tags, seeds, names."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import Any

import bentoml
import httpx
import numpy as np
import pytest
from PIL import Image

from conftest import ROOT, store_environment
from lpw_sdxl.prompt import PromptStyle
from serving import Server, serving
from stores import import_here

pytestmark = pytest.mark.processes

WORDS = "a small green circle on a purple background, center"
TAG_STYLES = [style for style in PromptStyle if style is not PromptStyle.PLAIN]
PLACE = f"the LoRA tag at character {len(WORDS) + 1} "

REFUSED = {
    "<lora:demo-frame:0.8:lbw=1,0,0,0,1,1,1,1,1,1,1,1>": PLACE + "has the part lbw=",
    "<lora:demo-frame:0.8:start=3>": PLACE + "has the part start=",
    "<lora:demo-frame:0.8:stop=9>": PLACE + "has the part stop=",
    "<lora:demo-frame:0.8:in=0:mid=1:out=0>": PLACE + "has the part in=",
    "<lora:demo-frame:1:1:1>": PLACE + "has 3 parts behind its name; the third, dyn",
    "<hypernet:x:1>": f"the tag at character {len(WORDS) + 1} names a hypernetwork",
}
# Each with the LoRA of a body that must give the same picture: weight, text_encoder_weight.
APPLIED = {
    "<lora:demo-frame:te=0.5:unet=1>": (1.0, 0.5),
    "<lora:demo-frame:0.5:1>": (1.0, 0.5),
    "<lora:demo-frame:unet=0.25>": (0.25, 1.0),
    "<lora:demo-frame:te=0.25>": (0.25, 0.25),
    "<lora:demo-frame:1e1>": (10.0, 10.0),
    "<lora:demo-frame:-5E-1>": (-0.5, -0.5),
    "<lyco:demo-frame:0.8>": (0.8, 0.8),
    "<lora:demo-frame:0.8>": (0.8, 0.8),
    "<LORA:Demo-Frame:.8>": (0.8, 0.8),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("bentoml")
    import_here(home, "demo")
    import_here(home, "lora", f"{ROOT}/demo/addons/demo-frame.safetensors")
    with serving(
        "service:LpwSdxl",
        folder=ROOT,
        environment=store_environment(home),
        log_file=tmp_path_factory.mktemp("service") / "log",
    ) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=120) as client:
        yield client


def generate(client: httpx.Client, prompt: str = WORDS, **fields: Any) -> httpx.Response:
    body = {"prompt": prompt, "num_inference_steps": 2, "seed": 7, "width": 64, "height": 64}
    body |= fields
    return client.post("/generate", json=body)


def opened(response: httpx.Response) -> Image.Image:
    assert response.status_code == 200, response.text
    return Image.open(io.BytesIO(response.content))


def pixels(response: httpx.Response) -> np.ndarray[Any, Any]:
    return np.asarray(opened(response).convert("RGB"))


@pytest.fixture(scope="module")
def plain(client: httpx.Client) -> Mapping[PromptStyle, np.ndarray[Any, Any]]:
    """Make the picture without a LoRA in each style."""
    return {
        style: pixels(generate(client, f"{WORDS} ", prompt_style=style)) for style in TAG_STYLES
    }


@pytest.mark.parametrize("style", TAG_STYLES)
@pytest.mark.parametrize(("tag", "reason"), REFUSED.items(), ids=REFUSED)
def test_a_tag_that_would_change_the_picture_otherwise_is_refused_by_its_part(
    client: httpx.Client, tag: str, reason: str, style: PromptStyle
) -> None:
    prompt = f"{WORDS} {tag}"
    response = generate(client, prompt, prompt_style=style)
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["code"], error["field"]) == ("invalid_prompt", "prompt")
    assert error["message"].startswith(reason)
    inspection = {"prompt": prompt, "prompt_style": style}
    explained = client.post("/inspect_prompt", json=inspection).json()["prompt"]
    assert explained["warnings"] == [f"no image is made of it: {error['message']}"]
    assert [span["text"].rstrip() for span in explained["spans"]] == [WORDS]


@pytest.mark.parametrize("style", TAG_STYLES)
@pytest.mark.parametrize(("tag", "weights"), APPLIED.items(), ids=APPLIED)
def test_a_tag_draws_what_the_bodys_fields_draw(
    client: httpx.Client,
    plain: Mapping[PromptStyle, np.ndarray[Any, Any]],
    tag: str,
    weights: tuple[float, float],
    style: PromptStyle,
) -> None:
    prompt, style_field = f"{WORDS} {tag}", {"prompt_style": style}
    weight, text_encoder_weight = weights
    reference = {
        "name": "demo-frame",
        "weight": weight,
        "text_encoder_weight": text_encoder_weight,
    }
    tagged = generate(client, prompt, **style_field)
    expected = pixels(generate(client, f"{WORDS} ", loras=[reference], **style_field))
    assert (pixels(tagged) == expected).all()
    assert np.abs(plain[style] - expected.astype(int)).max() > 10
    # The file's text is read back as the same picture.
    again = opened(tagged).info["parameters"].splitlines()[0]
    assert again.startswith(f"{WORDS} <lora:" if "LORA" in tag else prompt)
    assert (pixels(generate(client, again, **style_field)) == expected).all()
    inspection = {"prompt": prompt, **style_field}
    explained = client.post("/inspect_prompt", json=inspection).json()["prompt"]
    assert explained["warnings"] == []
    assert [span["text"].rstrip() for span in explained["spans"]] == [WORDS]


@pytest.mark.parametrize("tag", [*REFUSED, *APPLIED])
def test_the_plain_style_draws_a_tag_as_text(client: httpx.Client, tag: str) -> None:
    prompt = f"{WORDS} {tag}"
    assert (
        "demo-frame:"
        not in opened(generate(client, prompt, prompt_style="plain"))
        .info["parameters"]
        .partition("Lora hashes")[2]
    )
    inspection = {"prompt": prompt, "prompt_style": "plain"}
    explained = client.post("/inspect_prompt", json=inspection).json()["prompt"]
    assert [span["text"] for span in explained["spans"]] == [prompt]


def test_minus_1_draws_a_seed(client: httpx.Client, server: Server) -> None:
    seeds = {generate(client, seed=seed).headers["x-seed"] for seed in (-1, -1, None)}
    assert len(seeds) == 3
    assert all(0 <= int(seed) < 2**32 for seed in seeds)
    item = {"prompt": WORDS, "num_inference_steps": 1, "seed": -1}
    drawn, refused = client.post(
        "/generate_batch", json={"requests": [item, item | {"seed": -2}]}
    ).json()
    assert drawn["status"] == "ok"
    assert drawn["seed"] >= 0
    assert refused["message"] == "seed is -2; at least -1 would be right"
    with bentoml.SyncHTTPClient(server.url, timeout=120) as bentomls:
        image = bentomls.generate(**item)
        assert int(image.info["seed"]) >= 0


@pytest.mark.parametrize("name", ["dpmpp_2m_sde", "dpmpp_3m_sde"])
def test_comfyuis_gpu_names_are_the_same_schedulers(client: httpx.Client, name: str) -> None:
    one, other = (generate(client, scheduler=spelling) for spelling in (name, f"{name}_gpu"))
    assert (pixels(one) == pixels(other)).all()


def test_a_clip_skip_that_may_be_another_programs_is_logged_once(
    client: httpx.Client, server: Server
) -> None:
    for clip_skip in (None, 0, 2, 1, 2):
        assert generate(client, "a zyzzyva", clip_skip=clip_skip).status_code == 200
    lines = [line for line in server.log.splitlines() if "clip_skip" in line]
    assert len(lines) == 1
    assert "an image has clip_skip 2, which leaves out" in lines[0]
    assert "zyzzyva" not in server.log

"""A1111's txt2img and img2img over real HTTP: what clients get, and that ours draws the same."""

from __future__ import annotations

import base64
import io
import json
import shutil
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image, ImageDraw

from addons import AddonMaker
from conftest import ROOT, Store, store_environment
from lpw_sdxl.imaging.containers.png_texts import read_png_texts
from recordings import A1111, Recording, read, recordings
from serving import Server, serving
from tests.forge.lora import LoraOptions

pytestmark = pytest.mark.processes

TXT2IMG, IMG2IMG = "/sdapi/v1/txt2img", "/sdapi/v1/img2img"
SMALL = {"prompt": "a (red:1.2) cat", "width": 64, "height": 64, "steps": 3, "seed": 7}
NATIVE = {
    "prompt": "a (red:1.2) cat",
    "width": 64,
    "height": 64,
    "num_inference_steps": 3,
    "seed": 7,
    "guidance_scale": 7.0,
    "prompt_style": "a1111-original",
    "sampler_implementation": "k_diffusion",
    "scheduler": "Euler",
    "noise_source": "nv",
}
LORA = "demo-frame"  # the name that recorded requests have


@pytest.fixture(scope="module")
def server(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home, folder = tmp_path_factory.mktemp("a1111"), tmp_path_factory.mktemp("files")
    shutil.copytree(store.home / "models", home / "models")
    maker = AddonMaker(store.model_directory, home, store_environment(home), folder)
    maker.lora(LORA, LoraOptions(seed=1))
    maker.import_written()
    log_file = folder / "log"
    environment = maker.environment
    with serving("service:LpwSdxl", folder=ROOT, environment=environment, log_file=log_file) as one:
        yield one


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


def draw(client: httpx.Client, fields: dict[str, Any], path: str = TXT2IMG) -> dict[str, Any]:
    response = client.post(path, json=SMALL | fields)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    assert answer.keys() == {"images", "parameters", "info"}
    return answer


def files_of(answer: dict[str, Any]) -> list[bytes]:
    return [base64.b64decode(one, validate=True) for one in answer["images"]]


def pixels_of(content: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def text_of(content: bytes) -> str:
    return read_png_texts(content, ("parameters",)).by_keyword["parameters"]


def picture(mode: str = "RGB", colour: Any = "red", inside: Any = None, size: int = 64) -> str:
    image = Image.new(mode, (size, size), colour)
    if inside is not None:
        ImageDraw.Draw(image).rectangle((16, 16, 40, 40), fill=inside)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def smaller(body: dict[str, Any], model: str) -> dict[str, Any]:
    """The same request of 64 pixels and two steps for the served model."""
    body = body | {"width": 64, "height": 64, "steps": 2}
    settings = body.get("override_settings", {})
    if "sd_model_checkpoint" in settings:
        body["override_settings"] = settings | {"sd_model_checkpoint": model}
    return body


@pytest.mark.parametrize("name", [one.name for one in recordings(A1111) if "2img" in one.target])
def test_a_recorded_request_gets_what_its_client_needs(client: httpx.Client, name: str) -> None:
    recording = read(name, A1111)
    model = client.get("/sdapi/v1/options").json()["sd_model_checkpoint"]
    sent = Recording(*vars(recording).values())
    body = smaller(sent.body, model)
    headers = {"content-type": sent.content_type} if sent.content_type else {}
    response = client.request("POST", sent.target, content=json.dumps(body), headers=headers)
    if "adetailer" in name:
        assert response.status_code == 422
        assert "ADetailer" in response.json()["detail"]
        return
    assert response.status_code == 200, response.text
    answer = response.json()
    count = body.get("batch_size", 1) * body.get("n_iter", 1)
    info = json.loads(answer["info"])
    assert len(answer["images"]) == len(info["infotexts"]) == len(info["all_seeds"]) == count
    for content, text in zip(files_of(answer), info["infotexts"], strict=True):
        assert Image.open(io.BytesIO(content)).size == (
            (128, 128) if body.get("enable_hr") is True else (64, 64)
        )
        assert text_of(content) == text
    assert "auth" not in answer["parameters"]


def test_info_has_all_keys_with_their_types(client: httpx.Client) -> None:
    answer = draw(client, {"batch_size": 2, "n_iter": 2, "negative_prompt": "bad"})
    info = json.loads(answer["info"])
    assert {name: type(one) for name, one in info.items()} == INFO
    assert info["all_seeds"] == [7, 8, 9, 10]
    assert info["seed"] == 7
    assert info["all_prompts"] == [SMALL["prompt"]] * 4
    assert (info["sampler_name"], info["steps"], info["cfg_scale"]) == ("Euler", 3, 7.0)
    assert (info["width"], info["height"], info["batch_size"]) == (64, 64, 2)
    assert info["extra_generation_params"]["RNG"] == "NV"
    assert answer["parameters"]["cfg_scale"] == 7.0
    alone = draw(client, {"seed": 9, "negative_prompt": "bad"})
    third, its_twin = (
        pixels_of(file).astype(int) for file in (files_of(answer)[2], files_of(alone)[0])
    )
    assert np.abs(third - its_twin).max() <= 1


INFO = {
    "prompt": str, "all_prompts": list, "negative_prompt": str, "all_negative_prompts": list,
    "seed": int, "all_seeds": list, "subseed": int, "all_subseeds": list, "subseed_strength": float,
    "width": int, "height": int, "sampler_name": str, "cfg_scale": float, "steps": int,
    "batch_size": int, "restore_faces": bool, "face_restoration_model": str, "sd_model_name": str,
    "sd_model_hash": str, "sd_vae_name": str, "sd_vae_hash": str, "seed_resize_from_w": int,
    "seed_resize_from_h": int, "denoising_strength": float, "extra_generation_params": dict,
    "index_of_first_image": int, "infotexts": list, "styles": list, "job_timestamp": str,
    "clip_skip": int, "is_using_inpainting_conditioning": bool, "version": str,
}  # fmt: skip

HIRES = {"enable_hr": True, "hr_scale": 2, "hr_second_pass_steps": 2, "denoising_strength": 0.6}
TWINS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "ancestral": ({"sampler_name": "Euler a", "scheduler": "karras", "eta": 0.5},
                  {"scheduler": "Euler a", "schedule_type": "Karras", "eta": 0.5}),
    "old name": ({"sampler_index": "DPM++ 2M SDE Karras"},
                 {"scheduler": "DPM++ 2M SDE", "schedule_type": "Karras"}),
    "hires": (HIRES | {"hr_upscaler": "Latent (bicubic)", "hr_prompt": "a dog"},
              {"hires": {"scale": 2, "steps": 2, "strength": 0.6, "upscaler": "latent_bicubic",
                         "prompt": "a dog"}}),
    "hires by pixels": (HIRES | {"hr_upscaler": "Lanczos", "hr_sampler_name": "DPM++ 2M Karras"},
                        {"hires": {"scale": 2, "steps": 2, "strength": 0.6, "upscaler": "lanczos",
                                   "scheduler": "DPM++ 2M", "schedule_type": "Karras"}}),
    "variation": ({"subseed": 3, "subseed_strength": 0.4},
                  {"variation_seed": 3, "variation_strength": 0.4}),
    "clip skip": ({"override_settings": {"CLIP_stop_at_last_layers": 3}}, {"clip_skip": 1}),
    "ensd": ({"sampler_name": "Euler a", "override_settings": {"eta_noise_seed_delta": 31337}},
             {"scheduler": "Euler a", "eta_noise_seed_delta": 31337}),
    "lora": ({"prompt": f"a cat <lora:{LORA}:0.8>"}, {"prompt": f"a cat <lora:{LORA}:0.8>"}),
    "prompt by steps": ({"prompt": "a [cat:dog:2] AND snow :0.5"},
                        {"prompt": "a [cat:dog:2] AND snow :0.5"}),
}  # fmt: skip


@pytest.mark.parametrize("name", TWINS)
def test_the_door_draws_what_generate_draws_and_its_text_draws_it_again(
    client: httpx.Client, name: str
) -> None:
    fields, native = TWINS[name]
    answer = draw(client, fields)
    [content] = files_of(answer)
    twin = client.post("/generate", json=NATIVE | native)
    assert twin.status_code == 200, twin.text
    assert content == twin.content
    [text] = json.loads(answer["info"])["infotexts"]
    reading = client.post("/read_parameters", json={"parameters": text}).json()
    assert reading["not_honoured"] == []
    again = client.post("/generate", json=reading["request"])
    assert np.array_equal(pixels_of(content), pixels_of(again.content))
    by_text = client.post(TXT2IMG, json={"infotext": text}).json()
    assert np.array_equal(pixels_of(content), pixels_of(files_of(by_text)[0]))
    if name != "plain":
        assert not np.array_equal(
            pixels_of(content)[:64, :64], pixels_of(files_of(draw(client, {}))[0])
        )


HOLE = picture("L", 0, inside=255)
STARTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "picture": ({}, {}),
    "cropped": ({"resize_mode": "1", "width": 128}, {"resize_mode": "crop", "width": 128}),
    "whole mask": ({"mask": HOLE, "inpaint_full_res": 0, "inpainting_fill": 1},
                   {"mask_image": HOLE, "mask_blur": 4.0}),
    "only masked": ({"mask": HOLE, "inpaint_full_res_padding": 8, "mask_blur": 0},
                    {"mask_image": HOLE, "masked_content": "fill", "only_masked": True,
                     "only_masked_padding": 8}),
    "inverted": ({"mask": HOLE, "inpainting_mask_invert": 1, "inpainting_fill": 2,
                  "inpaint_full_res": False},
                 {"mask_image": HOLE, "invert_mask": True, "masked_content": "latent_noise",
                  "mask_blur": 4.0}),
}  # fmt: skip


@pytest.mark.parametrize("name", STARTS)
def test_a_picture_is_used_as_generate_uses_it(client: httpx.Client, name: str) -> None:
    fields, native = STARTS[name]
    start = picture(inside="blue", size=72)
    used = {"init_images": [start], "denoising_strength": 0.7} | fields
    answer = draw(client, used, IMG2IMG)
    [content] = files_of(answer)
    twin = client.post("/generate", json=NATIVE | {"image": start, "strength": 0.7} | native)
    assert twin.status_code == 200, twin.text
    assert content == twin.content
    assert answer["parameters"]["init_images"] is answer["parameters"]["mask"] is None
    [text] = json.loads(answer["info"])["infotexts"]
    pictures = {key: used[key] for key in ("init_images", "mask", "resize_mode") if key in used}
    again = client.post(IMG2IMG, json=pictures | {"infotext": text})
    assert again.status_code == 200, again.text
    assert np.array_equal(pixels_of(content), pixels_of(files_of(again.json())[0]))


def test_a_mask_that_leaves_nothing_to_paint_is_none(client: httpx.Client) -> None:
    start = {"init_images": [picture(inside="blue")]}
    plain = files_of(draw(client, start, IMG2IMG))
    for mask in (picture("L", 0), picture("RGBA", (255, 255, 255, 100))):
        assert files_of(draw(client, start | {"mask": mask}, IMG2IMG)) == plain


def test_a_masks_transparency_is_all_or_nothing(client: httpx.Client) -> None:
    start = {"init_images": [picture(inside="blue")], "inpaint_full_res": False}
    hard = draw(
        client, start | {"mask": picture("RGBA", (0, 0, 0, 0), inside=(9, 9, 9, 255))}, IMG2IMG
    )
    soft = {"mask": picture("RGBA", (0, 0, 0, 90), inside=(9, 9, 9, 140))}
    assert files_of(draw(client, start | soft, IMG2IMG)) == files_of(hard)
    unrounded = draw(client, start | soft | {"mask_round": False}, IMG2IMG)
    assert files_of(unrounded) != files_of(hard)


def test_what_the_answer_has_is_the_clients_choice(client: httpx.Client) -> None:
    assert draw(client, {"send_images": False})["images"] == []
    start = picture()
    answer = draw(client, {"init_images": [start], "include_init_images": True}, IMG2IMG)
    assert answer["parameters"]["init_images"] == [start]
    jpeg = draw(client, {"override_settings": {"samples_format": "jpg", "jpeg_quality": 50}})
    assert Image.open(io.BytesIO(files_of(jpeg)[0])).format == "JPEG"
    native = client.get("/sdapi/v1/options").json()
    sized = client.post(TXT2IMG, json={"steps": 1, "override_settings": {
        "sd_model_checkpoint": native["sd_model_checkpoint"]}}).json()  # fmt: skip
    assert Image.open(io.BytesIO(files_of(sized)[0])).size == (128, 128)
    assert (sized["parameters"]["width"], sized["parameters"]["steps"]) == (128, 1)


@pytest.mark.parametrize(
    ("path", "fields", "status", "field"),
    [
        (TXT2IMG, {"steps": 0}, 400, "steps"),
        (TXT2IMG, {"prompt": "a <lora:none:1>"}, 400, "prompt"),
        (TXT2IMG, {"prompt": "x\0"}, 400, "prompt"),
        (TXT2IMG, {"width": 4096}, 400, "width"),
        (TXT2IMG, HIRES | {"hr_upscaler": "ESRGAN_4x"}, 400, "hr_upscaler"),
        (TXT2IMG, HIRES | {"hr_scale": 40}, 400, "hr_scale"),
        (TXT2IMG, HIRES | {"denoising_strength": 0}, 400, "denoising_strength"),
        (TXT2IMG, {"script_name": "SD upscale"}, 422, "script_name"),
        (TXT2IMG, {"lora": [{"path": "none.safetensors"}]}, 400, "lora.0.name"),
        (IMG2IMG, {}, 400, "init_images"),
        (IMG2IMG, {"init_images": ["aGFsbG8="]}, 400, "init_images"),
        (IMG2IMG, {"init_images": [picture()], "mask": "aGFsbG8="}, 400, "mask"),
        (IMG2IMG, {"init_images": [picture()], "sampler_name": "DDIM", "denoising_strength": 0},
         400, "denoising_strength"),
    ],
)  # fmt: skip
def test_a_refusal_names_the_field_as_the_client_did(
    client: httpx.Client, path: str, fields: dict[str, Any], status: int, field: str
) -> None:
    response = client.post(path, json=SMALL | fields)
    body = response.json()
    assert (response.status_code, body["field"]) == (status, field), body
    assert body.keys() == {"error", "detail", "message", "field"}
    assert body["detail"] == body["message"]
    for native in ("num_inference_steps", "mask_image", "only_masked", "hires."):
        assert native not in body["detail"]


@pytest.mark.parametrize(
    "fields",
    [
        {"steps": "3", "width": "64", "height": 64.0, "seed": "7", "cfg_scale": "7"},
        {"enable_hr": "false", "batch_size": "1", "n_iter": 1.0, "eta": "", "styles": None},
        {"subseed": -1, "subseed_strength": "0.0", "send_images": "true", "tiling": 0},
    ],
)
def test_loose_scalars_draw_what_strict_ones_draw(
    server: Server, client: httpx.Client, fields: dict[str, Any]
) -> None:
    body = json.dumps(SMALL | fields).encode()
    strict = files_of(draw(client, {}))
    for headers in ({}, {"content-type": "application/x-www-form-urlencoded"}):
        response = client.post(f"{server.url}/{TXT2IMG}?skip=1", content=body, headers=headers)
        assert response.status_code == 200, response.text
        assert files_of(response.json()) == strict


def test_no_request_of_this_file_failed_inside(server: Server) -> None:
    assert "Traceback" not in server.log

"""What A1111's fields mean here: mapped, ignored, or refused by their names."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image

from a1111_orders import HERE, LIMITS, MODEL, SHA256, order_of, outline
from lpw_sdxl.doors.a1111.loose_fields import read_body
from lpw_sdxl.doors.a1111.translation import translate
from lpw_sdxl.errors import InvalidRequestError, UnservedScriptError
from lpw_sdxl.model_defaults import ModelDefaults
from lpw_sdxl.schema import GenerationRequest


def png(size: int = 64) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), "red").save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


PICTURE, OTHER = png(), png(72)
HIRES: dict[str, Any] = {"enable_hr": True}


def request_of(body: dict[str, Any], *, is_picture: bool = False) -> GenerationRequest:
    return order_of({"prompt": "a cat"} | body, is_picture=is_picture).request


def refusal_of(body: dict[str, Any], *, is_picture: bool = False) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as refusal:
        order_of({"prompt": "a cat"} | body, is_picture=is_picture)
    return refusal.value


def test_what_is_absent_is_as_in_a1111_but_for_the_size() -> None:
    order = order_of({})
    expected: dict[str, Any] = {
        "prompt": "",
        "prompt_style": "a1111-original",
        "sampler_implementation": "k_diffusion",
        "scheduler": "Euler",
        "noise_source": "nv",
        "num_inference_steps": 50,
        "guidance_scale": 7.0,
    }
    assert order.request == GenerationRequest.model_validate(expected)
    assert (order.count, order.seed, order.sends_images, order.clip_skip) == (1, None, True, 1)
    assert (order.echo["width"], order.echo["height"]) == (1216, 832)
    nulls = dict.fromkeys(order.echo, None)
    assert order_of(nulls) == order
    assert order_of(dict.fromkeys(order.echo, "")) == order


def test_of_a_models_own_defaults_the_size_alone_counts() -> None:
    own = {
        "num_inference_steps": 6,
        "guidance_scale": 1.5,
        "negative_prompt": "bad",
        "clip_skip": 2,
        "guidance_rescale": 0.7,
        "image_format": "jpeg",
        "width": 512,
    }
    limits = replace(LIMITS, defaults=ModelDefaults.read(own))
    fields = read_body(b'{"prompt": "a cat", "override_settings": {"CLIP_stop_at_last_layers": 1}}')
    request = translate(fields, replace(HERE, limits=limits), is_picture=False).request
    expected = request_of({}).model_dump() | {"width": 512}
    assert limits.defaults.fill(request).model_dump() == expected


@pytest.mark.parametrize(
    ("fields", "sampler", "schedule_type"),
    [
        ({"sampler_name": "DPM++ 2M Karras"}, "DPM++ 2M", "Karras"),
        ({"sampler_index": "Euler a"}, "Euler a", None),
        ({"sampler_name": "Euler a", "sampler_index": "Euler"}, "Euler a", None),
        ({"sampler_name": "dpmpp_2m_sde", "scheduler": "simple"}, "DPM++ 2M SDE", "Simple"),
        ({"sampler_name": "k_dpmpp_2m"}, "DPM++ 2M", None),
        ({"sampler_name": "Euler SGMUniform"}, "Euler", "SGM Uniform"),
        ({"sampler_name": "DPM++ 2M Karras", "scheduler": "beta"}, "DPM++ 2M", "Beta"),
        ({"sampler_name": "DPM++ 2M Karras", "scheduler": "automatic"}, "DPM++ 2M", "Karras"),
        ({"scheduler": "align_your_steps"}, "Euler", "Align Your Steps"),
        ({"sampler_name": "DDIM", "scheduler": "Karras"}, "DDIM", None),
    ],
)  # fmt: skip
def test_samplers_have_both_generations_of_names(
    fields: dict[str, Any], sampler: str, schedule_type: str | None
) -> None:
    request = request_of(fields)
    assert (request.scheduler, request.schedule_type) == (sampler, schedule_type)


@pytest.mark.parametrize(
    ("count", "expected"), [(1, None), (2, None), (1.0, None), ("3", 1), (12, 10), (-1, None)]
)
def test_clip_skip_counts_from_the_last_layer(count: Any, expected: int | None) -> None:
    request = request_of({"override_settings": {"CLIP_stop_at_last_layers": count}})
    assert request.clip_skip == expected
    assert request_of({"clip_skip": count}).clip_skip == expected


@pytest.mark.parametrize(
    "name",
    [
        MODEL.title, "demo", "DEMO", "demo.safetensors", "demoXL_v10", "demoXL_v10.safetensors",
        "XL/demoXL_v10.safetensors", "XL\\demoXL_v10.safetensors [0123456789]", SHA256[:10],
        SHA256, f"renamed [{SHA256[:10]}]", MODEL.tag,
    ],
)  # fmt: skip
def test_the_served_model_has_all_of_a1111s_names(name: str) -> None:
    assert request_of({"override_settings": {"sd_model_checkpoint": name}}) == request_of({})
    assert request_of({"refiner_checkpoint": name, "refiner_switch_at": 0.8}) == request_of({})


@pytest.mark.parametrize("name", ["other", "demo [ffffffffff]", "demo2.safetensors", "f" * 10])
def test_another_model_is_refused_and_the_served_one_named(name: str) -> None:
    refusal = refusal_of({"override_settings": {"sd_model_checkpoint": name}})
    assert refusal.field == "override_settings.sd_model_checkpoint"
    assert MODEL.title in refusal.message
    assert refusal_of({"refiner_checkpoint": name}).field == "refiner_checkpoint"
    assert refusal_of(HIRES | {"hr_checkpoint_name": name}).field == "hr_checkpoint_name"
    text = f"a cat\nSteps: 20, Sampler: Euler, CFG scale: 7, Seed: 1, Model: {name}"
    assert refusal_of({"infotext": text}).field == "infotext"


def test_seeds_count_on_and_with_a_variation_the_subseeds() -> None:
    order = order_of({"seed": 5, "batch_size": 2, "n_iter": 2, "subseed": 9})
    assert [one.seed for one in order.requests(5, 9)] == [5, 6, 7, 8]
    assert {one.variation_seed for one in order.requests(5, 9)} == {None}
    varied = order_of({"seed": 5, "batch_size": 3, "subseed": 9, "subseed_strength": 0.3})
    made = varied.requests(5, 9)
    assert [(one.seed, one.variation_seed) for one in made] == [(5, 9), (5, 10), (5, 11)]
    for seed in (-1, None, ""):
        assert order_of({"seed": seed}).seed is None


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {"scale": 2.0}),
        ({"hr_scale": "1.5", "hr_upscaler": "Latent (nearest-exact)"},
         {"scale": 1.5, "upscaler": "latent_nearest_exact"}),
        ({"hr_scale": 1, "hr_upscaler": "4xUltra"}, {"scale": 1.0, "upscaler": "4xUltra"}),
        ({"hr_resize_x": 1030, "hr_scale": 3}, {"width": 1024}),
        ({"hr_resize_x": 1024, "hr_resize_y": 768}, {"width": 1024, "height": 768}),
        ({"hr_second_pass_steps": 12.5, "denoising_strength": 0.4},
         {"scale": 2.0, "steps": 12, "strength": 0.4}),
        ({"hr_steps": 7, "hr_second_pass_steps": 0}, {"scale": 2.0}),
        ({"hr_prompt": "b", "hr_negative_prompt": "c", "hr_cfg": 3},
         {"scale": 2.0, "prompt": "b", "negative_prompt": "c", "guidance_scale": 3.0}),
        ({"hr_sampler_name": "DPM++ 2M Karras"},
         {"scale": 2.0, "scheduler": "DPM++ 2M", "schedule_type": "Karras"}),
        ({"hr_sampler_name": "Use same sampler", "hr_scheduler": "Use same scheduler",
          "hr_checkpoint_name": "Use same checkpoint",
          "hr_additional_modules": ["Use same choices"]},
         {"scale": 2.0}),
    ],
)  # fmt: skip
def test_hires_is_a_second_pass(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    found = outline(order_of(HIRES | {"width": 512, "height": 512} | fields))
    assert found["hires"] == expected


def test_hires_in_the_old_way_names_the_first_size() -> None:
    old = {"width": 1024, "height": 768, "firstphase_width": 512, "firstphase_height": 384}
    request = request_of(HIRES | old)
    assert (request.width, request.height) == (512, 384)
    assert request.hires is not None
    assert (request.hires.width, request.hires.height) == (1024, 768)
    assert refusal_of(HIRES | old | {"firstphase_height": 0}).field == "firstphase_height"


def test_without_hires_its_fields_are_not_read() -> None:
    fields = {
        "hr_scale": "large",
        "hr_upscaler": "ESRGAN_4x",
        "hr_second_pass_steps": [],
        "hr_cfg": 0,
    }
    for off in (False, "false", 0, None, "0"):
        assert request_of({"enable_hr": off} | fields) == request_of({})


@pytest.mark.parametrize(
    "fields",
    [
        {"script_name": None, "script_args": ["outpainting mk2"]},
        {"script_name": "None"},
        {"alwayson_scripts": []},
        {"alwayson_scripts": {"ControlNet": {"args": []}, "Refiner": {}}},
        {"alwayson_scripts": {"ControlNet": {"args": [{"enabled": False, "module": "canny"}]}}},
        {"alwayson_scripts": {"ADetailer": {"args": [False, {"ad_model": "face_yolov8n.pt"}]}}},
        {"alwayson_scripts": {"ADetailer": {"args": [{"ad_model": "None"}]}}},
        {"restore_faces": "false", "tiling": 0, "styles": ["None", ""]},
        {"refiner_checkpoint": "None", "refiner_switch_at": 0.8},
        {"refiner_checkpoint": "other", "refiner_switch_at": 1},
        {"s_churn": 0, "s_tmax": 0, "s_noise": 1, "s_min_uncond": 0.0, "s_tmin": 0},
        {"seed_resize_from_h": -1, "seed_resize_from_w": 0, "firstpass_image": None},
        {"url": "http://x", "auth": "secret", "save_images": True, "comments": {"a": 1}},
        {"override_settings": {"sd_vae": "Automatic", "sd_hypernetwork": "None", "unheard_of": 1,
                               "comma_padding_backtrack": 20.0, "img2img_fix_steps": "false",
                               "forge_additional_modules": [], "ddim_discretize": "uniform"}},
    ],
)  # fmt: skip
def test_what_is_off_or_does_not_matter_is_ignored(fields: dict[str, Any]) -> None:
    order = order_of({"prompt": "a cat"} | fields)
    assert order.request == request_of({})
    assert "secret" not in str(order)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"restore_faces": True}, "restore_faces"),
        ({"tiling": 1}, "tiling"),
        ({"styles": ["cinematic"]}, "styles"),
        ({"s_churn": 0.5}, "s_churn"),
        ({"s_noise": 0, "sampler_name": "DPM++ SDE"}, "s_noise"),
        ({"s_min_uncond": 0.1}, "s_min_uncond"),
        ({"seed_resize_from_h": 512, "seed_resize_from_w": 512}, "seed_resize_from_h"),
        ({"firstpass_image": PICTURE}, "firstpass_image"),
        ({"cfg_scale": 0.5}, "cfg_scale"),
        ({"cfg_scale": 1e9}, "cfg_scale"),
        ({"steps": 0}, "steps"),
        ({"steps": 151}, "steps"),
        ({"steps": "many"}, "steps"),
        ({"width": 32}, "width"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": 8, "n_iter": 9}, "n_iter"),
        ({"seed": -7}, "seed"),
        ({"subseed_strength": 2, "subseed": 1}, "subseed_strength"),
        ({"prompt": ["a", "b"]}, "prompt"),
        ({"sampler_name": "DPM adaptive"}, "sampler_name"),
        ({"sampler_index": "Eulr"}, "sampler_index"),
        ({"scheduler": "turbo"}, "scheduler"),
        ({"enable_hr": "perhaps"}, "enable_hr"),
        (HIRES | {"hr_scale": 0.5}, "hr_scale"),
        (HIRES | {"hr_additional_modules": ["ae.safetensors"]}, "hr_additional_modules"),
        (HIRES | {"hr_sampler_name": "Eulr"}, "hr_sampler_name"),
        (HIRES | {"eta": 0, "hr_sampler_name": "Euler a"}, "eta"),
        ({"override_settings": 7}, "override_settings"),
        ({"override_settings": {"sd_vae": "a.vae.pt"}}, "override_settings.sd_vae"),
        ({"override_settings": {"samples_format": "avif"}}, "override_settings.samples_format"),
        ({"override_settings": {"CLIP_stop_at_last_layers": 99}},
         "override_settings.CLIP_stop_at_last_layers"),
        ({"override_settings": {"img2img_fix_steps": True}}, "override_settings.img2img_fix_steps"),
        ({"infotext": "a cat"} | {"infotext": '{"class_type": 1}'}, "infotext"),
    ],
)  # fmt: skip
def test_what_would_be_another_picture_is_refused_by_its_name(
    fields: dict[str, Any], named: str
) -> None:
    refusal = refusal_of(fields)
    assert refusal.field == named
    assert named.rpartition(".")[2] in refusal.message


def test_scripts_are_refused_with_their_names() -> None:
    for fields, name in (
        ({"script_name": "X/Y/Z plot"}, "X/Y/Z plot"),
        ({"alwayson_scripts": {"ControlNet": {"args": [{"module": "canny"}]}}}, "ControlNet"),
        ({"alwayson_scripts": {"ADetailer": {"args": [True, {}]}}}, "ADetailer"),
        ({"alwayson_scripts": {"Soft Inpainting": {"args": [True, 7]}}}, "Soft Inpainting"),
    ):  # fmt: skip
        refusal = refusal_of(fields)
        assert isinstance(refusal, UnservedScriptError)
        assert (refusal.status, name in refusal.message) == (422, True)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"sampler_name": "Euler a", "eta": 0}, {"eta": 0.0}),
        ({"sampler_name": "Euler a", "eta": 1.0}, {}),
        ({"sampler_name": "Euler", "eta": 0}, {}),
        ({"sampler_name": "DDIM", "override_settings": {"eta_ddim": 0.5}}, {"eta": 0.5}),
        ({"sampler_name": "Euler a", "override_settings": {"eta_noise_seed_delta": "31337"}},
         {"eta_noise_seed_delta": 31337}),
        ({"override_settings": {"randn_source": "CPU"}}, {"noise_source": "cpu"}),
        ({"override_settings": {"emphasis": "No norm"}}, {"prompt_style": "a1111"}),
        ({"override_settings": {"samples_format": "JPG"}}, {"image_format": "jpeg"}),
        ({"width": 1030, "height": "771"}, {"width": 1024, "height": 768}),
        ({"disable_extra_networks": True, "prompt": "a<lora:x:1> dog"}, {"prompt": "a dog"}),
        ({"lora": [{"path": "x/demo.safetensors", "multiplier": 0.5}]},
         {"loras": [{"name": "demo", "weight": 0.5}]}),
    ],
)  # fmt: skip
def test_options_that_are_done_here(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    plain = {name: one for name, one in fields.items() if name == "sampler_name"}
    without = request_of(plain).model_dump(mode="json")
    found = request_of(fields).model_dump(mode="json")
    changed = {name: found[name] for name in found if found[name] != without[name]}
    for loras in changed.get("loras", []):
        loras.pop("text_encoder_weight")
    assert changed == expected


def test_a_picture_and_its_mask_are_used_as_a1111_does() -> None:
    plain = order_of({"init_images": [PICTURE], "mask_blur": 9}, is_picture=True)
    assert outline(plain) == {
        "num_inference_steps": 50, "guidance_scale": 7.0, "scheduler": "Euler",
        "width": 1216, "height": 832, "pictures": 1,
    }  # fmt: skip
    masked = order_of({"init_images": [f"data:image/png;base64,{PICTURE}"], "mask": PICTURE},
                      is_picture=True)  # fmt: skip
    assert outline(masked) == outline(plain) | {
        "has_mask": True, "mask_blur": 4.0, "masked_content": "fill", "only_masked": True,
        "only_masked_padding": 0,
    }  # fmt: skip
    fields = {"init_images": [PICTURE], "mask": PICTURE, "inpaint_full_res": 0, "mask_blur_x": 2,
              "mask_blur_y": 2.0, "inpainting_fill": "2", "inpainting_mask_invert": "1",
              "denoising_strength": "0.5", "resize_mode": 2}  # fmt: skip
    assert outline(order_of(fields, is_picture=True)) == outline(plain) | {
        "has_mask": True, "mask_blur": 2.0, "masked_content": "latent_noise", "invert_mask": True,
        "strength": 0.5, "resize_mode": "fill", "only_masked_padding": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"init_images": None}, "init_images"),
        ({"init_images": []}, "init_images"),
        ({"init_images": ["https://example.org/a.png"]}, "init_images"),
        ({"init_images": [PICTURE, PICTURE]}, "init_images"),
        ({"resize_mode": 3}, "resize_mode"),
        ({"initial_noise_multiplier": 0.9}, "initial_noise_multiplier"),
        ({"denoising_strength": 1.5}, "denoising_strength"),
        ({"mask": PICTURE, "latent_mask": PICTURE}, "latent_mask"),
        ({"mask": PICTURE, "mask_blur_x": 1}, "mask_blur_y"),
        ({"mask": PICTURE, "inpainting_fill": 4}, "inpainting_fill"),
        ({"mask": "%%%"}, "mask"),
    ],
)
def test_a_picture_that_cannot_be_used_so_is_refused(fields: dict[str, Any], named: str) -> None:
    assert refusal_of({"init_images": [PICTURE]} | fields, is_picture=True).field == named


def test_pictures_of_a_batch_are_in_their_order_in_every_batch() -> None:
    fields = {"init_images": [PICTURE, OTHER], "batch_size": 3, "n_iter": 2, "seed": 1}
    order = order_of(fields, is_picture=True)
    pictures = [one.image for one in order.requests(1, 0)]
    files = [base64.b64decode(one) for one in (PICTURE, OTHER)]
    assert pictures == files * 2
    alone = order_of(fields | {"init_images": [PICTURE]}, is_picture=True)
    assert [one.image for one in alone.requests(1, 0)] == files[:1] * 6


TEXT = (
    "a dog <lora:x:0.5>\nNegative prompt: bad\nSteps: 20, Sampler: DPM++ 2M, Schedule type: Karras,"
    " CFG scale: 4, Seed: 77, Size: 640x512, Clip skip: 3, Denoising strength: 0.5, Hires upscale:"
    " 1.5, Hires upscaler: Latent, Version: v1.10.1"
)


def test_a_text_holds_where_the_request_says_nothing() -> None:
    order = order_of({"infotext": TEXT})
    assert order.request.prompt == "a dog <lora:x:0.5>"
    assert outline(order) == {
        "negative_prompt": "bad", "num_inference_steps": 20, "guidance_scale": 4.0, "seed": 77,
        "scheduler": "DPM++ 2M", "schedule_type": "Karras", "width": 640, "height": 512,
        "clip_skip": 1, "hires": {"scale": 1.5, "strength": 0.5},
    }  # fmt: skip
    own = {"prompt": "a cat", "steps": 5, "seed": -1, "enable_hr": False, "sampler_name": "Euler a",
           "override_settings": {"CLIP_stop_at_last_layers": 1}}  # fmt: skip
    request = request_of({"infotext": TEXT} | own)
    assert (request.prompt, request.num_inference_steps, request.hires) == ("a cat", 5, None)
    assert (request.scheduler, request.schedule_type) == ("Euler a", "Karras")
    assert (request.guidance_scale, request.width, request.clip_skip) == (4.0, 640, None)
    assert order_of({"infotext": TEXT} | own).seed is None


def test_what_a_text_has_and_a_request_cannot_is_stated() -> None:
    order = order_of({"infotext": f"{TEXT}, Face restoration: CodeFormer"})
    assert order.notes == {"Infotext not honoured": "Face restoration"}


def test_a_near_name_is_stated_and_others_are_not_repeated() -> None:
    order = order_of({"scheduler_name": "karras", "zzz": 1, "auth": "x"})
    assert order.notes == {"Ignored fields": "scheduler_name (scheduler?)"}
    assert order.unknown_fields == 2
    assert order_of({"width": 1030}).notes == {"Size rounded from": "1030x?"}


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'"x"', b"\xff", b'{"prompt": "\\ud800"}'])
def test_a_body_that_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        read_body(body)

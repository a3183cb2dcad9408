"""Every call of webuiapi that a server of A1111's answers: drive_webuiapi.py URL. Prints JSON."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import webuiapi
from PIL import Image

address = urlsplit(sys.argv[1])
api = webuiapi.WebUIApi(host=address.hostname, port=address.port)
outcomes: dict[str, Any] = {}
own = {"prompt": "a red circle", "steps": 2, "seed": 7, "width": 64, "height": 64}
start = Image.new("RGB", (64, 64), "red")
mask = Image.new("L", (64, 64), 0)
mask.paste(255, (16, 16, 48, 48))


def call(name: str, work: Callable[[], Any]) -> None:
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # some of its calls print
            outcomes[name] = work()
    except RuntimeError as error:  # status and text
        status, text = error.args
        outcomes[name] = {"status": status, **json.loads(text)}


def look(result: Any) -> list[str]:
    """Size of each picture, and whether `info` describes it."""
    seeds = result.info.get("all_seeds", []) if isinstance(result.info, dict) else []
    return [f"{one.width}x{one.height}" for one in result.images] + seeds


def text(**fields: Any) -> Any:
    # Without scripts of its own it would send again those of the call before.
    return look(api.txt2img(**(own | {"alwayson_scripts": {}} | fields)))


def picture(**fields: Any) -> Any:
    return look(api.img2img(**(own | {"images": [start]} | fields)))


async def asynchronously() -> list[str]:
    return look(await api.txt2img(**own, use_async=True))


call("alone", text)
call("large", lambda: text(width=128, height=64, sampler_name="DPM++ 2M", scheduler="Karras"))
call("old name", lambda: text(sampler_name="DPM++ 2M Karras"))
call("several", lambda: text(n_iter=2, batch_size=2))
call("variation", lambda: text(batch_size=2, subseed=3, subseed_strength=0.2))
call("clip skip", lambda: text(override_settings={"CLIP_stop_at_last_layers": 2}))
call(
    "hires",
    lambda: text(
        enable_hr=True,
        hr_scale=2,
        hr_upscaler=webuiapi.HiResUpscaler.Latent,
        hr_second_pass_steps=2,
        denoising_strength=0.5,
    ),
)
call("hires by pixels", lambda: text(enable_hr=True, hr_resize_x=96, hr_upscaler="Lanczos"))
call("async", lambda: asyncio.run(asynchronously()))
call("img2img", lambda: picture(denoising_strength=0.6, sampler_name="Euler a", resize_mode=1))
call("inpaint", lambda: picture(mask_image=mask, inpainting_fill=1, inpaint_full_res=False))
call("only masked", lambda: picture(mask_image=mask, inpaint_full_res_padding=32))
LISTS = (
    *("options", "progress", "cmd_flags", "samplers", "schedulers", "sd_vae", "upscalers"),
    *("latent_upscale_modes", "loras", "sd_models", "hypernetworks", "face_restorers"),
    *("realesrgan_models", "prompt_styles", "scripts", "embeddings", "memory"),
)
for name in LISTS:
    call(f"get {name}", lambda name=name: type(getattr(api, f"get_{name}")()).__name__)
call("refresh", api.refresh_checkpoints)
call("interrupt", api.interrupt)
call("skip", api.skip)
call("model names", api.util_get_model_names)
call("sampler names", lambda: api.util_get_sampler_names()[:2])
call("scheduler names", lambda: api.util_get_scheduler_names()[:2])
call("current model", api.util_get_current_model)
call("set model", lambda: api.util_set_model(api.util_get_model_names()[0]))
call("wait", lambda: api.util_wait_for_ready(check_interval=0.1))
call("set options", lambda: api.set_options({"CLIP_stop_at_last_layers": 2}))
call("set other model", lambda: {"status": None} | api.set_options({"sd_model_checkpoint": "a"}))
drawn = api.txt2img(**own).images[0]
call("text of picture", lambda: api.png_info(drawn).info.splitlines()[0])
call("enlarge", lambda: look(api.extra_single_image(start, upscaler_1="Lanczos")))
call("enlarge two", lambda: look(api.extra_batch_images([start, start], upscaler_1="Lanczos")))
call("interrogate", lambda: api.interrogate(start))
call("styles", lambda: text(styles=["cinematic"]))
call("no such sampler", lambda: text(sampler_name="Eulr"))
call("ControlNet", lambda: text(controlnet_units=[webuiapi.ControlNetUnit(image=start)]))
call("ADetailer", lambda: text(adetailer=[webuiapi.ADetailer(ad_model="face_yolov8n.pt")]))
api.set_auth("user", "any")
call("password", text)
print(json.dumps(outcomes))

"""Calls of sd-backend-client, which checks what it gets: drive_sdbackend.py URL. Prints JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from PIL import Image
from sd_backend_client import DiffusionParams, SDBackendError, connect_to_backend

api: Any = connect_to_backend(sys.argv[1])
outcomes: dict[str, Any] = {"kind": type(api).__name__}
own = {
    "prompt": "a red circle",
    "steps": 2,
    "seed": 7,
    "width": 64,
    "height": 64,
    "sampler": "Euler a",
    "scheduler": "normal",
}
start = Image.new("RGB", (64, 64), "red")
mask = Image.new("L", (64, 64), 0)
mask.paste(255, (16, 16, 48, 48))


def call(name: str, work: Callable[[], Any]) -> None:
    try:
        outcomes[name] = work()
    except SDBackendError as error:
        outcomes[name] = {"kind": type(error).__name__, "message": str(error)[:200]}


def look(handle: Any) -> list[Any]:
    result = handle.wait(timeout=60, poll_interval=0.05)
    return [*(f"{one.width}x{one.height}" for one in result.images), *result.seeds]


def params(**fields: Any) -> Any:
    return DiffusionParams(**(own | fields))


call("txt2img", lambda: look(api.submit_txt2img(params())))
call("several", lambda: look(api.submit_txt2img(params(batch_size=2))))
call("img2img", lambda: look(api.submit_img2img(params(init_images=[start]))))
call("inpaint", lambda: look(api.submit_inpaint(params(init_images=[start], mask=mask))))
call("enlarge", lambda: look(api.submit_upscale(start, 128, 128)))
for name in ("config", "styles", "scripts", "script_info", "samplers", "upscalers"):
    call(name, lambda name=name: type(getattr(api, f"get_{name}")()).__name__)
for name in ("latent_upscale_modes", "hypernetworks", "models", "vae", "loras"):
    call(name, lambda name=name: type(getattr(api, f"get_{name}")()).__name__)
for name in ("checkpoints", "vaes", "samplers", "schedulers", "upscalers"):
    call(f"options of {name}", lambda name=name: len(getattr(api, f"list_{name}")()) > 0)
call("progress", lambda: api.progress_check().progress)
call("interrupt", api.interrupt)
call("capabilities", lambda: type(api.get_capabilities()).__name__)
call("refresh", lambda: api.refresh_checkpoints().status_code)
print(json.dumps(outcomes))

"""Pictures that are dropped onto the page, and those that it offers."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, PngImagePlugin

from browser import Ui


def png(
    colour: str = "white", parameters: str | None = None, size: tuple[int, int] = (128, 128)
) -> bytes:
    info = PngImagePlugin.PngInfo()
    if parameters is not None:
        info.add_text("parameters", parameters)
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG", pnginfo=info)
    return file.getvalue()


def drop(
    ui: Ui, target: str, content: bytes, name: str = "picture.png", kind: str = "image/png"
) -> None:
    """Drop a file onto an element, with the events that a browser sends for one from elsewhere."""
    ui.page.evaluate(
        """([target, content, name, type]) => {
            const bytes = Uint8Array.from(atob(content), (one) => one.charCodeAt(0));
            const dataTransfer = new DataTransfer();
            dataTransfer.items.add(new File([bytes], name, { type }));
            const send = (node, event) => node.dispatchEvent(
                new DragEvent(event, { dataTransfer, bubbles: true, cancelable: true }));
            send(document.body, "dragenter");
            const node = document.querySelector(target);
            send(node, "dragover");
            send(node, "drop");
        }""",
        [target, base64.b64encode(content).decode(), name, kind],
    )


def pixels(content: bytes) -> npt.NDArray[np.int16]:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(np.int16)


def shown_pixels(ui: Ui) -> npt.NDArray[np.int16]:
    with ui.page.expect_download() as download:
        ui.find("a[download]").click()
    return pixels(Path(download.value.path()).read_bytes())

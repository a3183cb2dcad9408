"""Servers and tabs for the tests of the page."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from browser import FOREIGN_NAME, Ui, chromium
from conftest import ROOT, Store
from hostile_texts import HOSTILE_NAMES
from serving import Server, serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ADDONS = ROOT / "demo" / "addons"


@pytest.fixture(scope="session")
def addon_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The demo's LoRAs and embedding as loose files, one of them under 40 hostile names too."""
    loras, embeddings = (tmp_path_factory.mktemp(kind) for kind in ("loras", "embeddings"))
    for name in ("demo-frame", "demo-pastel"):
        shutil.copy(ADDONS / f"{name}.safetensors", loras)
    for name in HOSTILE_NAMES:
        os.link(loras / "demo-pastel.safetensors", loras / f"{name}.safetensors")
    shutil.copy(ADDONS / "demo-midnight-sun.safetensors", embeddings)
    return {"LPW_SDXL_LORA_DIR": str(loras), "LPW_SDXL_EMBEDDING_DIR": str(embeddings)}


@pytest.fixture(scope="session")
def start_server(
    demo_store: Store, addon_folders: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., object]:
    """Start a service with the demo model; settings are arguments. A context manager."""

    def start(folder: Path | None = None, **settings: str) -> object:
        own = {f"LPW_SDXL_{name.upper()}": value for name, value in settings.items()}
        return serving(
            "service:LpwSdxl",
            folder=ROOT,
            environment=demo_store.environment | addon_folders | own,
            log_file=(folder or tmp_path_factory.mktemp("page")) / "log",
        )

    return start


def wait_for_loras(server: Server) -> None:
    """Wait until the folder's files are read, which goes on after the start."""
    deadline = time.monotonic() + 60
    while len(httpx.post(f"{server.url}/info", json={}).json()["loras"]) < 2 + len(HOSTILE_NAMES):
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.fixture(scope="session")
def server(start_server: Callable[..., object]) -> Iterator[Server]:
    with start_server(max_steps="400") as server:  # type: ignore[attr-defined]
        wait_for_loras(server)
        yield server
        assert "Traceback" not in server.log


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with chromium(f"--host-resolver-rules=MAP {FOREIGN_NAME} 127.0.0.1") as browser:
        yield browser


@pytest.fixture
def tab(browser: Browser) -> Iterator[Callable[..., Ui]]:
    """Open tabs, each of a browser without a past; all are checked at the end."""
    tabs: list[Ui] = []

    def make(url: str, **options: object) -> Ui:
        context = browser.new_context(**options)  # type: ignore[arg-type]
        tabs.append(Ui(context.new_page(), url))
        return tabs[-1]

    yield make
    for one in tabs:
        one.assert_clean()
        one.page.context.close()


@pytest.fixture
def ui(server: Server, tab: Callable[..., Ui]) -> Ui:
    return tab(server.url).open()

"""A server of A1111's door that all of its tests share: with add-ons, and two tokens."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import httpx
import pytest
from safetensors.torch import save_file

from addons import AddonMaker
from conftest import ROOT, Store, store_environment
from serving import Server, serving
from tests.forge.lora import LoraOptions
from tests.forge.upscalers import CompactRecipe

API = "/sdapi/v1"
HERS, HIS = "a-token-of-hers-alone", "a-token-of-his-alone"
LONG = {"prompt": "a cat", "width": 64, "height": 64, "steps": 150, "seed": 7}


@pytest.fixture(scope="session")
def a1111_server(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
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
def a1111_client(a1111_server: Server) -> Iterator[httpx.Client]:
    with with_token(a1111_server, HERS) as client:
        yield client


def from_address(server: Server, address: str) -> httpx.Client:
    transport = httpx.HTTPTransport(local_address=address)
    return httpx.Client(base_url=server.url, timeout=90, transport=transport)

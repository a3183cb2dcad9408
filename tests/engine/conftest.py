"""An engine with imported upscalers, for the tests of second passes and of enlarging."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lpw_sdxl.engine import Engine
from tests.upscaler_folder import load_with_upscalers, write_upscalers


@pytest.fixture(scope="session")
def upscaler_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of upscalers, which no test changes."""
    folder = tmp_path_factory.mktemp("upscalers")
    write_upscalers(folder)
    return folder


@pytest.fixture(scope="session")
def upscaling_engine(model_directory: Path, upscaler_folder: Path) -> Iterator[Engine]:
    """An engine whose requests may name them."""
    loaded = load_with_upscalers(model_directory, upscaler_folder)
    yield loaded
    loaded.close()

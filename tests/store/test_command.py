"""The import's command, as it is written where the package is."""

from __future__ import annotations

from pathlib import Path

import pytest

from lpw_sdxl.store.command import import_command, is_checkout, serve_command
from lpw_sdxl.store.volume import how_to_fill


@pytest.fixture
def bento(tmp_path: Path) -> Path:
    """The package's folder in a bento."""
    root = tmp_path / "a bento"
    package = root / "src" / "lpw_sdxl"
    package.mkdir(parents=True)
    (root / "bento.yaml").touch()
    return package


def test_a_checkout_has_its_script() -> None:
    assert is_checkout()
    assert import_command("list") == "python model_import.py list"
    assert serve_command("sdxl:a") == "make serve MODEL=sdxl:a"


def test_a_bento_on_a_machine_is_put_on_the_path(bento: Path) -> None:
    assert import_command("list", bento) == f"PYTHONPATH='{bento.parent}' python -m lpw_sdxl list"
    assert serve_command("sdxl:a", bento).startswith("LPW_SDXL_MODEL=sdxl:a")


def test_an_image_has_the_module(bento: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENTOML_CONTAINERIZED", "true")
    assert import_command("list", bento) == "python -m lpw_sdxl list"
    assert how_to_fill().startswith("run this image once")


def test_so_has_an_installed_package(tmp_path: Path) -> None:
    assert import_command("", tmp_path / "site-packages" / "lpw_sdxl") == "python -m lpw_sdxl"

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lpw_sdxl.errors import SettingsError
from lpw_sdxl.settings import (
    ENVIRONMENT_PREFIX,
    GONE,
    ImportSettings,
    Settings,
    StoreSettings,
    list_gone,
    list_renamed,
    read_settings,
    variable_of,
)


def test_a_setting_comes_from_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LPW_SDXL_MAX_ROWS", "4")
    assert Settings().max_rows == 4


def test_a_setting_out_of_range_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LPW_SDXL_MAX_ROWS", "1")
    with pytest.raises(SettingsError, match=r"LPW_SDXL_MAX_ROWS: .* greater than or equal to 2"):
        read_settings(Settings)


def test_a_choice_that_is_none_is_answered_with_the_choices(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LPW_SDXL_DEVICE", "gpu")
    with pytest.raises(
        SettingsError, match=r"^LPW_SDXL_DEVICE: input should be 'auto', 'cpu' or 'cuda'$"
    ):
        read_settings(Settings)


def test_variables_that_are_gone_are_told_with_the_reason() -> None:
    environment = {"LPW_SDXL_COMPILE": "true", "lpw_sdxl_mixed_lengths": "", "LPW_SDXL_TOKENS": "s"}
    assert list_gone(environment) == [
        f"{name} is set and has no effect any more: {GONE[name]}"
        for name in ("LPW_SDXL_COMPILE", "LPW_SDXL_MIXED_LENGTHS")
    ]
    assert list_gone({"LPW_SDXL_TOKENS": "s", "COMPILE": "true"}) == []


def test_no_variable_that_is_gone_is_a_setting() -> None:
    settings = {f"{ENVIRONMENT_PREFIX}{name.upper()}" for name in Settings.model_fields}
    assert settings.isdisjoint(GONE)


def test_tokens_are_never_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LPW_SDXL_TOKENS", "canary-canary-canary")
    settings = read_settings(Settings)
    assert settings.tokens is not None
    assert "canary" not in f"{settings!r} {settings} {settings.model_dump()}"


def test_downloads_are_kept_in_the_users_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert read_settings(ImportSettings).downloads == Path("/somewhere/lpw-sdxl/downloads")
    monkeypatch.setenv("LPW_SDXL_DOWNLOADS", "elsewhere")
    assert read_settings(ImportSettings).downloads == Path("elsewhere")


def test_downloads_are_kept_on_the_stores_volume_unless_a_folder_is_chosen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    volume = Path("/volume")
    settings = read_settings(ImportSettings)
    assert settings.downloads_beside(volume) == volume / ".downloads"
    assert settings.downloads_beside(None) == settings.downloads
    monkeypatch.setenv("LPW_SDXL_DOWNLOADS", "elsewhere")
    assert read_settings(ImportSettings).downloads_beside(volume) == Path("elsewhere")


def test_a_former_name_still_works_and_is_answered_with_the_new_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert read_settings(Settings).store is None
    monkeypatch.setenv("LPW_SDXL_ADDONS", "/old")
    assert read_settings(Settings).store == read_settings(StoreSettings).store == Path("/old")
    sentence = "LPW_SDXL_ADDONS is called LPW_SDXL_STORE now; the old name still works"
    assert list_renamed(os.environ) == [sentence]
    monkeypatch.setenv("LPW_SDXL_STORE", "/new")
    assert read_settings(Settings).store == Path("/new")
    assert list_renamed(os.environ) == [f"{sentence}, but LPW_SDXL_STORE is set too and counts"]
    assert variable_of(Settings, "store") == "LPW_SDXL_STORE"


def test_a_store_that_is_empty_text_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LPW_SDXL_STORE", "")
    assert read_settings(Settings).store is None


def test_so_few_settings_of_the_service_that_each_one_more_needs_a_reason() -> None:
    # Thirty, the two folders of files that people have already, the bytes of a picture, its pixels
    # when it is enlarged, and the texts of one prompt: what a client may send is the owner's to
    # decide. So are the doors, the address in their answers and the server's names, which no server
    # can find out by itself. Kernels that no GPU has shown yet are to be switched on by hand, and
    # fp8 makes other pictures. No server knows whether its model's layer can be written to, nor
    # whether a proxy checks keys.
    assert len(Settings.model_fields) <= 43

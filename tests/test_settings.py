from __future__ import annotations

import re
from pathlib import Path

import pytest

from lpw_sdxl.errors import SettingsError
from lpw_sdxl.settings import ENVIRONMENT_PREFIX, Settings, read_settings

README = Path(__file__).parents[1] / "README.md"


def test_a_setting_comes_from_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LPW_SDXL_MAX_ROWS", "4")
    assert Settings().max_rows == 4


def test_a_setting_out_of_range_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LPW_SDXL_MAX_ROWS", "1")
    with pytest.raises(SettingsError, match=r"LPW_SDXL_MAX_ROWS: .* greater than or equal to 2"):
        read_settings()


def test_readme_lists_every_setting_with_its_default() -> None:
    text = README.read_text(encoding="utf-8")
    for name, field in Settings.model_fields.items():
        variable = f"{ENVIRONMENT_PREFIX}{name.upper()}"
        (row,) = re.findall(rf"^\|.*`{variable}`.*$", text, flags=re.MULTILINE)
        if field.default:
            default = f"{field.default:g}" if isinstance(field.default, float) else field.default
            assert str(default) in row, row

from __future__ import annotations

import importlib.util
import re

from conftest import ROOT

PAGE = ROOT / "docs" / "operations.md"


def test_its_tables_are_what_the_code_says() -> None:
    spec = importlib.util.spec_from_file_location("tables", ROOT / "docs" / "tables.py")
    assert spec is not None
    assert spec.loader is not None
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    page = PAGE.read_text(encoding="utf-8")
    assert page.count("| `LPW_SDXL_") > 30
    assert page.count("| `lpw_sdxl_") > 10
    assert tables.with_tables(page) == page, "make docs writes them"


def test_what_it_names_is_there() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for path in re.findall(r"`((?:deploy|benchmarks|docs)/[\w./-]+)`", page):
        assert (ROOT / path).exists(), path
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`make ([\w-]+)", page):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target

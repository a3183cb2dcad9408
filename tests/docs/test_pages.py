"""The pages' words agree with the code: links, tables, settings, commands and their options."""

from __future__ import annotations

import importlib.util
import json
import re
from types import ModuleType

import pytest
from bentoml_cli.cli import create_bentoml_cli

from conftest import ROOT
from lpw_sdxl.importing.arguments import build_parser
from lpw_sdxl.schema import GenerationRequest
from lpw_sdxl.settings import variable_of
from pages import DOCS, PAGES, README, Page

LONGEST_LINE = 120
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
LINK = re.compile(r"\]\(([^)\s]+)\)")


def page(name: str) -> Page:
    (found,) = [page for page in PAGES if page.name == name]
    return found


def first_cells(page: Page, pattern: str) -> list[str]:
    """What stands in the first column of a page's tables, where it matches."""
    return re.findall(rf"^\| `({pattern})", page.text, re.MULTILINE)


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tables", ROOT / "docs" / "tables.py")
    assert spec is not None
    assert spec.loader is not None
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    return tables


def test_readme_is_short() -> None:
    assert len(README.text.splitlines()) <= 165


@pytest.mark.parametrize("page", [README, *DOCS], ids=str)
def test_lines_are_short(page: Page) -> None:
    lines = [line for line in page.prose.splitlines() if not line.startswith("|")]
    assert [line for line in lines if len(line) > LONGEST_LINE] == []


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_no_code_block_is_indented_where_no_test_finds_it(page: Page) -> None:
    assert "```" not in page.prose
    assert "~~~" not in page.prose


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_link_leads_somewhere(page: Page) -> None:
    anchors = {other.path: other.anchors for other in PAGES}
    for link in LINK.findall(page.prose):
        if re.match(r"\w+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.path.parent / path).resolve() if path else page.path
        assert target.exists(), link
        assert not anchor or anchor in anchors[target], link


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_file_that_is_named_is_there(page: Page) -> None:
    for path in re.findall(
        r"\b((?:benchmarks|demo|deploy|docs|examples|src|tests)/[\w./-]*\w)", page.text
    ):
        assert (ROOT / path).exists() or (page.path.parent / path).exists(), path


def test_all_tables_of_the_code_are_written(tables: ModuleType) -> None:
    written = [match["name"] for page in DOCS for match in tables.PLACE.finditer(page.text)]
    assert sorted(written) == sorted(tables.TABLES)


@pytest.mark.parametrize("page", DOCS, ids=str)
def test_tables_are_what_the_code_says(tables: ModuleType, page: Page) -> None:
    assert tables.with_tables(page.text) == page.text, "make docs writes them"


def test_settings_stand_in_one_table_only() -> None:
    names = [name for page in PAGES for name in first_cells(page, r"LPW_SDXL_\w+")]
    assert len(names) == len(set(names)) > 30


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_setting_that_is_named_exists(page: Page, tables: ModuleType) -> None:
    classes = tables.settings_classes()
    settings = {variable_of(one, name) for one in classes for name in one.model_fields}
    assert set(re.findall(r"\bLPW_SDXL_\w+", page.text)) <= settings


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_metric_that_is_named_exists(page: Page, tables: ModuleType) -> None:
    metrics = set(re.findall(r"`(lpw_sdxl_\w+)`", tables.metrics_table()))
    assert set(re.findall(r"\blpw_sdxl_\w+", page.text)) <= metrics


def test_the_table_of_fields_has_the_requests_own_with_their_defaults() -> None:
    section = page("docs/requests.md").text.partition("## Fields")[2].partition("\n- ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", section, re.MULTILINE))
    assert rows.pop("prompt") == "required"
    defaults = GenerationRequest(prompt="").model_dump(mode="json", exclude={"prompt"})
    assert {name: json.loads(default.strip("`")) for name, default in rows.items()} == defaults


def test_the_import_tables_have_every_command_and_option() -> None:
    models = page("docs/models.md")
    commands = build_parser()._subparsers._group_actions[0].choices
    assert set(first_cells(models, r"model_import\.py [a-z-]+")) == {
        f"model_import.py {name}" for name in commands
    }
    options = set(commands["checkpoint"]._option_string_actions) - {"-h", "--help"}
    assert set(first_cells(models, r"--[a-z0-9-]+")) == options


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_target_and_variable_of_make_exists(page: Page) -> None:
    for words in page.named_commands("make"):
        target = words[0] if words else "help"
        assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), words
        for variable in (word.partition("=")[0] for word in words[1:] if "=" in word):
            assert f"$({variable})" in MAKEFILE, words


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_command_of_the_import_is_understood(page: Page) -> None:
    for words in page.named_commands("model_import.py"):
        if words:
            build_parser().parse_args(words)


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_command_of_bentoml_exists(page: Page) -> None:
    for words in page.named_commands("bentoml"):
        command = create_bentoml_cli()
        for word in words[:2]:
            command = getattr(command, "commands", {word: command})[word]
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("-")} <= options, words

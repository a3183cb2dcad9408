"""One dialect: how docstrings begin, and the words that the project does without."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import ROOT

SOURCES = [
    *sorted((ROOT / "src").rglob("*.py")),
    ROOT / "service.py",
    ROOT / "model_import.py",
    *sorted((ROOT / "deploy").rglob("*.py")),
]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]

NO_FIRST_WORDS = {"Ask", "Bring", "Give", "Has", "Have", "Hear", "Hold", "Is", "Let", "Look", "Say"}
NO_FIRST_WORDS |= {"Tell", "What", "Who"}
PERSONS = re.compile(
    r"\b(everybody|hears?|nobody|somebody|tells?|told|untold|who|whoever|whom)\b", re.IGNORECASE
)
"""Things are not persons, and persons are clients, callers, users or operators."""
EXEMPT = "not told, taken as the rank"
"""The row of the import and of `inspect` where nothing states alpha."""


def docstrings(path: Path) -> Iterator[tuple[ast.AST, str]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            text = ast.get_docstring(node)
            if text:
                yield node, text


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_docstrings_begin_as_the_dialect_has_it(path: Path) -> None:
    """A function's with an imperative verb that says what is done, a class's with a noun."""
    for node, text in docstrings(path):
        first = text.split()[0].rstrip(",.;:")
        where = f"{path.name}:{node.lineno} {node.name}: {text.splitlines()[0]}"
        assert first not in NO_FIRST_WORDS, where
        if not isinstance(node, ast.ClassDef):
            assert first in ("Pass", "Process", "Compress") or not first.endswith("s"), where


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_thing_is_a_person_in_code(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (tokenize.COMMENT, tokenize.STRING):
            found = PERSONS.search(token.string.replace(EXEMPT, ""))
            assert not found, f"{path.name}:{token.start[0]} {found[0]!r} in {token.string[:200]}"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_no_thing_is_a_person_on_a_page(path: Path) -> None:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        found = PERSONS.search(line.replace(EXEMPT, ""))
        assert not found, f"{path.name}:{number} {found[0]!r} in {line}"

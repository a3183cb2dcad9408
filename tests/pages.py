"""The documentation as data: its pages, their code blocks, and the commands that they name."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from conftest import ROOT

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class Block:
    """A code block.

    Attributes:
        page: its page's path in the repository.
        language: such as `sh`.
        text: what stands in it.
        shown: the output that the page shows below it, in a block `text`; None without one.
    """

    page: str
    language: str
    text: str
    shown: str | None = None

    def __str__(self) -> str:
        return f"{self.page}: {self.text[:40]!r}"

    @property
    def commands(self) -> list[str]:
        """A shell block's commands, each on one line, without comments and what `$(…)` runs."""
        lines = re.sub(r"\$\(.*?\)", "…", self.text.replace("\\\n", " ")).splitlines()
        return [shlex.join(words) for line in lines if (words := shlex.split(line, comments=True))]


class Page:
    """A page by its path in the repository."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.relative_to(ROOT).as_posix()
        self.text = path.read_text(encoding="utf-8")

    def __str__(self) -> str:
        return self.name

    @cached_property
    def prose(self) -> str:
        """All but the code blocks."""
        return _FENCE.sub("", self.text)

    @cached_property
    def blocks(self) -> list[Block]:
        """Its code blocks; one that shows the output of the block before it is a part of that."""
        blocks: list[Block] = []
        for language, text in _FENCE.findall(self.text):
            if language == "text" and blocks:
                before = blocks.pop()
                assert before.shown is None, f"{before}: two outputs"
                blocks.append(Block(self.name, before.language, before.text, text))
            elif language:  # a drawing has none
                blocks.append(Block(self.name, language, text))
        return blocks

    @cached_property
    def anchors(self) -> set[str]:
        """What a link may have behind `#`, as GitHub makes it of headings."""
        headings = re.findall(r"^#+ (.*)$", self.prose, re.MULTILINE)
        return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}

    def named_commands(self, program: str) -> Iterator[list[str]]:
        """Yield the words after each mention of a program, in blocks and in the prose."""
        commands = [
            line for block in self.blocks if block.language == "sh" for line in block.commands
        ]
        inline = [re.sub(r"\s+", " ", code) for code in _INLINE.findall(self.prose)]
        for words in map(str.split, (*commands, *inline)):
            places = [
                place for place, word in enumerate(words) if word.rpartition("/")[2] == program
            ]
            if places:
                yield words[places[0] + 1 :]


README = Page(ROOT / "README.md")
DOCS = [Page(path) for path in sorted((ROOT / "docs").glob("*.md"))]
OTHERS = [
    Page(path)
    for folder in ("benchmarks", "demo", "deploy", "examples")
    for path in sorted((ROOT / folder).rglob("*.md"))
]
PAGES = [README, *DOCS, *OTHERS]
BLOCKS = [block for page in PAGES for block in page.blocks]

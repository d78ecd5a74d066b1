"""README.md and docs/ as data: pages, their blocks, their links; and what marks in HTML comments say about a block.

A mark stands on the line before a block:

    <!-- block: file agents/greet.py -->   the block is this file of the page's workspace
    <!-- block: exit 3 -->                 a command of it may end with this code
    <!-- block: background -->             its command goes on while the rest of the page runs
    <!-- block: stop -->                   before it, the command that went on last is stopped
    <!-- block: parse -->                  its commands are interactive: they are parsed and not run

and one for the whole page anywhere in it:

    <!-- page: empty -->                   begins in an empty folder, not in a workspace of the support template
    <!-- page: company -->                 needs the sample company
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
LANGUAGES = frozenset({"python", "yaml", "console", "sh", "json", "text", "go"})
_FENCE = re.compile(r"^```(\w*)\s*$")
_MARK = re.compile(r"^<!-- block: (.+?) -->\s*$")
_PAGE = re.compile(r"^<!-- page: (.+?) -->\s*$", re.MULTILINE)
_LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
_SPAN = re.compile(r"`([^`\n]+)`")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, the line it begins on, and what its mark says."""

    page: str
    line: int
    language: str
    text: str
    marks: dict[str, str] = field(default_factory=dict)

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class Command:
    """A command of a console block, and the output that the page shows for it."""

    line: int
    text: str
    output: tuple[str, ...]


@dataclass(frozen=True)
class Page:
    """A page of the documentation."""

    path: Path
    text: str

    @property
    def name(self) -> str:
        return self.path.relative_to(ROOT).as_posix() if self.path.is_relative_to(ROOT) else self.path.name

    @property
    def marks(self) -> frozenset[str]:
        return frozenset(word for found in _PAGE.findall(self.text) for word in found.split(", "))

    def blocks(self) -> list[Block]:
        return list(_blocks(self.name, self.text))

    def prose(self) -> str:
        """The text without its blocks."""
        kept, inside = list[str](), False
        for line in self.text.splitlines():
            if line.startswith("```"):
                inside = not inside
            elif not inside:
                kept.append(line)
        return "\n".join(kept)

    def links(self) -> list[str]:
        return _LINK.findall(self.prose())

    def spans(self) -> list[str]:
        """What stands in back-ticks in the prose."""
        return _SPAN.findall(self.prose())

    def anchors(self) -> set[str]:
        """The anchors of its headings, as GitHub makes them."""
        heads = [line.lstrip("#").strip() for line in self.prose().splitlines() if line.startswith("#")]
        return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def pages() -> list[Page]:
    """README.md and everything in docs/."""
    paths = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    return [Page(path, path.read_text()) for path in paths]


def page(name: str) -> Page:
    """A page by its path below the project."""
    return Page(ROOT / name, (ROOT / name).read_text())


def _blocks(name: str, text: str) -> Iterator[Block]:
    marks: dict[str, str] = {}
    start, language, kept = 0, "", list[str]()
    for number, line in enumerate(text.splitlines(), 1):
        if start:
            if line.startswith("```"):
                yield Block(name, start, language, "\n".join(kept) + "\n", marks)
                start, marks, kept = 0, {}, []
            else:
                kept.append(line)
        elif fence := _FENCE.match(line):
            start, language = number, fence[1]
        elif mark := _MARK.match(line):
            marks = {word: rest for word, _, rest in (one.partition(" ") for one in mark[1].split(", "))}
        elif line.strip():
            marks = {}


def commands(block: Block) -> list[Command]:
    """The commands of a console block: lines that begin with `$ `, continued where they end in a backslash."""
    found: list[tuple[int, list[str], list[str]]] = []
    continued = False
    for number, line in enumerate(block.text.splitlines(), block.line + 1):
        if continued:
            found[-1][1].append(line)
        elif line.startswith("$ "):
            found.append((number, [line[2:]], []))
        elif found:
            found[-1][2].append(line)
        else:
            raise ValueError(f"{block.page}:{number}: a console block begins with a command")
        continued = bool(found) and not found[-1][2] and found[-1][1][-1].endswith("\\")
    return [Command(number, "\n".join(text), tuple(output)) for number, text, output in found]


def shell_lines(block: Block) -> list[str]:
    """The commands of a console or sh block, one line each."""
    if block.language == "console":
        return [command.text.replace("\\\n", " ") for command in commands(block)]
    return [line for line in block.text.replace("\\\n", " ").splitlines() if line.strip() and not line.startswith("#")]


def fits(expected: tuple[str, ...], got: str) -> str | None:
    """None when the output is as the page shows it, else what is wrong.

    `…` stands for anything within a line; a line that holds nothing else, for any number of lines.
    """
    lines = [_narrow(line) for line in got.strip().splitlines()]
    wanted = [_narrow(line) for line in "\n".join(expected).strip().splitlines()]
    return None if _fits(wanted, lines) else "\n".join(["shown:", *wanted, "", "printed:", *lines])


def _narrow(line: str) -> str:
    """A line without what the width of a table's columns adds, which follows from figures that differ."""
    return re.sub(r"(?<=\S) {2,}", "  ", line.rstrip())


def _fits(wanted: list[str], lines: list[str]) -> bool:
    reached = {0}
    for want in wanted:
        if want.strip() == "…":
            reached = set(range(min(reached), len(lines) + 1))
            continue
        pattern = re.compile(".*".join(map(re.escape, want.split("…"))))
        reached = {at + 1 for at in reached if at < len(lines) and pattern.fullmatch(lines[at])}
        if not reached:
            return False
    return len(lines) in reached

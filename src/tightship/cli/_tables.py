"""Tables by rich, as lines: as wide as the terminal, or as wide as they need to be where there is none.

Ids and numbers are never folded, since a folded id can be neither read nor copied: columns of words become narrower,
and where that is not enough, columns are left out.
"""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Sequence
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tightship.cli._shell import clean

UNBOUNDED: Final = 4000
_BETWEEN: Final = 3
"""Cells between two columns; rich sets aside one more on both sides of the table."""
_NARROWEST: Final = 16
"""Cells that a column of words keeps."""


def render(
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    right: Sequence[str] = (),
    words: Sequence[str] = (),
    drop: Sequence[str] = (),
    width: int = UNBOUNDED,
) -> list[str]:
    """The table's lines. Cells are plain text: no markup is read in them.

    Args:
        columns: headings. rows: their cells.
        right: columns that are aligned to the right.
        words: columns whose cells may go over several lines.
        drop: columns that are left out where the width does not suffice, the first of them first.
        width: cells of a line.
    """
    cells = [[_cell(value) for value in row] for row in rows]
    least = {name: _least([name, *(row[at] for row in cells)], name in words) for at, name in enumerate(columns)}
    shown = _fitting(columns, least, drop, width)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in shown:
        table.add_column(
            Text(name), justify="right" if name in right else "left", overflow="fold", no_wrap=name not in words
        )
    at = [columns.index(name) for name in shown]
    for row in cells:
        table.add_row(*(Text(row[place]) for place in at))
    out = io.StringIO()
    wide = max(width, _total(shown, least))
    terminal = sys.stdout.isatty()
    # Without a height, rich takes a dumb terminal for one of 80 columns, whatever width it is told.
    console = Console(
        file=out, width=wide, height=25, force_terminal=terminal, highlight=False, emoji=False, markup=False
    )
    console.print(table)
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    left = [name for name in columns if name not in shown]
    return [*lines, *([f"(a wider terminal or --json shows {', '.join(left)} as well)"] if left else [])]


def terminal_width(taken: int = 0) -> int:
    """Cells of a line on the terminal beside those that are taken; as many as may be where there is no terminal."""
    return max(20, shutil.get_terminal_size().columns - taken) if sys.stdout.isatty() else UNBOUNDED


def _fitting(columns: Sequence[str], least: dict[str, int], drop: Sequence[str], width: int) -> list[str]:
    """The columns that are shown; one that was left out comes back where a wider one made room for it."""
    left: list[str] = []
    for name in drop:
        if _total([one for one in columns if one not in left], least) <= width:
            break
        left.append(name)
    for name in reversed(left.copy()):
        if _total([one for one in columns if one not in left or one == name], least) <= width:
            left.remove(name)
    return [name for name in columns if name not in left]


def _total(columns: Sequence[str], least: dict[str, int]) -> int:
    return sum(least[name] for name in columns) + _BETWEEN * len(columns) - 1


def _least(texts: Sequence[str], words: bool) -> int:
    """Cells that a column needs at least."""
    natural = max(cell_len(line) for text in texts for line in text.split("\n"))
    return min(natural, _NARROWEST) if words else natural


def _cell(value: Any) -> str:
    return clean("" if value is None else str(value))

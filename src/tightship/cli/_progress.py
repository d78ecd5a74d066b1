"""Progress on stderr: a bar on a terminal, a line now and then where there is none."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from tightship.cli._shell import Shell, is_terminal

_LINES = 10


class Progress:
    """Counts steps; `say` shows text that belongs beside the count."""

    def __init__(self, shell: Shell, what: str, total: int) -> None:
        self._shell = shell
        self._what = what
        self._total = total
        self._done = 0

    def advance(self, text: str = "") -> None:
        """One more is done."""
        self._done += 1
        part = max(1, self._total // _LINES)
        if not self._shell.json and (self._done % part == 0 or self._done == self._total):
            self._shell.note(f"{self._what}: {self._done} of {self._total}{'  ' + text if text else ''}")


class _Silent(Progress):
    def advance(self, text: str = "") -> None:
        """Nothing to be shown."""


class _Bar(Progress):
    def __init__(self, shell: Shell, what: str, total: int) -> None:
        super().__init__(shell, what, total)
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as RichProgress

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[said]}", markup=False, style="dim"),
        )
        self.bar = RichProgress(*columns, console=Console(stderr=True))
        self._task = self.bar.add_task(f"{shell.prefix}{what}", total=total, said="")

    def advance(self, text: str = "") -> None:
        """One more is done."""
        self.bar.update(self._task, advance=1, said=text)


@contextmanager
def progress(shell: Shell, what: str, total: int) -> Generator[Progress]:
    """Progress of so many steps, for as long as the block runs."""
    if shell.json:
        yield _Silent(shell, what, total)
    elif not is_terminal():
        yield Progress(shell, what, total)
    else:
        drawn = _Bar(shell, what, total)
        with drawn.bar:
            yield drawn

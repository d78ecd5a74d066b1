"""`tightship store …`: a workspace's store as a whole."""

from __future__ import annotations

import os
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tightship.cli._shell import Shell, command, is_terminal, run_async

if TYPE_CHECKING:
    from tightship.ledger.copying import CopyReport
    from tightship.ledger.findings import Progress


@click.group()
def store() -> None:
    """Copy the store between a folder and a database."""


@store.command()
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@command
def copy(shell: Shell, source: str, target: str) -> None:
    """Copy the whole store, byte for byte, and verify the copy; nothing may execute meanwhile.

    FROM and TO are `sqlite:FOLDER` (below the workspace) or `postgresql://…`; write `'${NAME}'` for what an environment
    variable holds. TO has to be empty.
    """
    from tightship.cli._open import open_leniently
    from tightship.ledger.copying import copy_store
    from tightship.runtime.place import FOLDER, expand, place_at
    from tightship.runtime.workspace import projections

    workspace = open_leniently(shell.folder)
    root = workspace.files.root

    def where(text: str) -> Path | str:
        return place_at(expand(text, os.environ), root).where

    def work(progress: Progress) -> Coroutine[Any, Any, CopyReport]:
        folder = (root / FOLDER).resolve()
        return copy_store(where(source), where(target), folder, workspace.files.config.name, projections(), progress)

    report = _with_bar(shell, work)
    shell.emit(report.as_dict())
    shell.say(f"copied {sum(report.logs.values()):,} entries, {report.payloads:,} values, {report.keys:,} keys")
    shell.say("the copy is what was written; put it into `store:` of tightship.yaml", "good")


def _with_bar(shell: Shell, work: Any) -> CopyReport:
    if shell.json or not is_terminal():
        return run_async(lambda: work(lambda stage, done, total: None))
    from rich.console import Console
    from rich.progress import Progress as Bars

    with Bars(console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, Any] = {}

        def told(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total or None)
            bars.update(tasks[stage], completed=done, total=total or None)

        return run_async(lambda: work(told))

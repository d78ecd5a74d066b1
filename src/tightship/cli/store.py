"""`tightship store …`: a workspace's store as a whole."""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tightship.cli._shell import Shell, command, is_terminal, run_async

if TYPE_CHECKING:
    from tightship.ledger.archiving import ArchiveReport
    from tightship.ledger.copying import CopyReport
    from tightship.ledger.findings import Progress

_T = TypeVar("_T")


@click.group()
def store() -> None:
    """Copy the store between a folder and a database; put what is old into an archive."""


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


@store.command()
@click.option("--before", "age", required=True, metavar="AGE", help="Entries older than this: `90d`, `12w`, or a date.")
@click.option(
    "--to", "folder", required=True, metavar="DIR", type=click.Path(path_type=Path, file_okay=False), help="Where to."
)
@click.option("--dry-run", is_flag=True, help="Show what would leave, and change nothing.")
@click.option("--by", help="Who does it (default: whoever is logged in).")
@command
def archive(shell: Shell, age: str, folder: Path, dry_run: bool, by: str | None) -> None:
    """Put old entries, and the values of their runs, into DIR with their proofs, and drop them from the store.

    What runs that have not ended, the inbox and the shared context still need stays. The folder is read back and
    verified before anything is dropped; cut off, the same command completes it. Others may execute meanwhile.
    """
    report = _with_bar(shell, lambda progress: _archive(shell, age, folder, dry_run, by, progress))
    shell.emit(report.as_dict())
    counts = f"{report.entries:,} entries and {report.values:,} values of {report.runs:,} runs"
    if dry_run:
        shell.say(f"{counts} would leave; {report.waiting:,} runs that began as early stay")
        return
    if report.completed:
        shell.say(f"the archive in {report.folder} is complete now", "good")
        return
    shell.say(f"{counts} are in {report.folder} now; {report.waiting:,} runs that began as early stay", "good")
    shell.say("keep the folder, and name it with --archive where entries in it are asked for")


async def _archive(
    shell: Shell, age: str, folder: Path, dry_run: bool, by: str | None, progress: Progress
) -> ArchiveReport:
    import asyncio

    from tightship.cli._open import looking, person
    from tightship.core.errors import ExecutorBusy, StoreError, WorkspaceError
    from tightship.ledger.archiving import archive as put_away
    from tightship.ledger.archiving import archive_lock

    who = person(by)
    if not who:
        raise click.UsageError("nobody is logged in; say who does it with --by NAME")
    async with looking(shell) as workspace:
        ledger = await workspace.ledger()
        lock = archive_lock(workspace.place.where, workspace.folder)
        try:
            await asyncio.to_thread(lock.acquire)
        except ExecutorBusy as error:
            raise StoreError("another process archives this store", where=error.where, fix="wait for it") from None
        try:
            before = _moment(age, ledger.world.clock.now())
            return await put_away(ledger, folder, before, who, progress, dry_run=dry_run)
        except ValueError as error:
            raise WorkspaceError(
                f"--before {age}: {error}", fix="say an age such as 90d, or a day that is past, such as 2026-01-31"
            ) from None
        finally:
            await asyncio.to_thread(lock.release)


def _moment(age: str, now: float) -> float:
    """The time that an age or a day (its beginning, UTC) stands for, s.

    Raises:
        ValueError: it is neither.
    """
    from datetime import UTC, date, datetime

    from tightship.workflow.units import parse_duration

    if age.count("-") == 2:
        return datetime.combine(date.fromisoformat(age), datetime.min.time(), UTC).timestamp()
    return now - parse_duration(age)


def _with_bar(shell: Shell, work: Callable[[Progress], Coroutine[Any, Any, _T]]) -> _T:
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

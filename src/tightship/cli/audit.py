"""`tightship audit …`: verify, prove, export and rebuild the ledger."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tightship.cli._exit import DONE, ERROR
from tightship.cli._shell import Shell, command, is_terminal, run_async
from tightship.core.errors import TightshipError

if TYPE_CHECKING:
    from tightship.ledger import Ledger
    from tightship.ledger.audit import AuditReport

_T = TypeVar("_T")
_SHOWN = 50
_MASTER = "master key"
"""The place of a finding that explains all others: without the key that wraps the keys, nothing opens."""


@click.group()
def audit() -> None:
    """Verify, prove, export and rebuild the ledger."""


_ARCHIVE = click.option(
    "--archive",
    "archives",
    multiple=True,
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="An archive of this store; may be given several times.",
)


@audit.command()
@_ARCHIVE
@command
def verify(shell: Shell, archives: tuple[Path, ...]) -> int:
    """Check the whole store: entries, hashes, signed checkpoints, payloads, keys, projections.

    Exits with 1 when something is not what was written, and names the place. Works beside a process that executes.
    """
    from tightship.ledger.audit import verify as checked

    try:
        report = _with_progress(shell, lambda ledger, progress: checked(ledger, progress, archives=archives))
    except TightshipError as error:
        if error.fix and "audit verify" in error.fix:  # which is what was called, and could not read any further
            error.fix = "restore the store from your backup"
        raise
    shell.emit(report.as_dict())
    causes = [finding for finding in report.findings if finding.place == _MASTER]
    shown = causes or report.findings[:_SHOWN]
    for finding in shown:
        shell.say(str(finding), "bad" if finding.severity == "damage" else "dim")
    rest = max(report.found, len(report.findings)) - len(shown)
    if causes and rest:
        shell.say(f"{rest:,} more places follow from it: restore the master key of this store (--json names them)")
    elif rest:
        shell.say(f"… and {rest:,} more; --json names up to 1,000")
    _tell(shell, report)
    return DONE if report.ok else ERROR


def _tell(shell: Shell, report: AuditReport) -> None:
    counts = (
        (report.entries, "entries"),
        (report.payloads, "values"),
        (report.files, "files"),
        (report.checkpoints, "signed checkpoints"),
        (report.tiles, "tiles"),
        (report.keys, "keys"),
        (report.rows, "projected rows"),
    )
    shell.say(f"checked {', '.join(f'{count:,} {name}' for count, name in counts)}")
    if report.archives:
        shell.say(f"checked {report.archives:,} entries and values in archives")
    if report.archived:
        shell.say(f"{report.archived:,} entries are in archives and were not looked at (--archive DIR)", "warn")
    if report.erased:
        shell.say(f"{report.erased:,} values were erased on request; their entries still verify")
    if report.uncovered and not report.integrated:
        shell.say(f"{report.uncovered:,} entries are not under a signed checkpoint yet", "warn")
    if report.ok:
        shell.say("the store is what was written", "good")
    else:
        shell.say(f"not what was written: {report.found:,} {'place' if report.found == 1 else 'places'}", "bad")


@audit.command()
@click.argument("n", type=click.IntRange(1))
@click.option("--log", default="default", show_default=True, help="Which log.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write it to this file instead.")
@_ARCHIVE
@command
def prove(shell: Shell, n: int, log: str, out: Path | None, archives: tuple[Path, ...]) -> None:
    """Prove that entry N stands in the log, as text that needs no store to be checked (C2SP tlog-proof)."""
    from tightship.ledger.audit import prove as proven

    text = run_async(lambda: _on_ledger(shell, lambda ledger: proven(ledger, n, log, archives)))
    if out is not None:
        from tightship.core.errors import WorkspaceError

        try:
            out.write_text(text)
        except OSError as error:
            raise WorkspaceError(f"it cannot be written: {error.strerror}", where=str(out)) from None
    shell.emit({"n": n, "log": log, "proof": text, **({"file": str(out)} if out else {})})
    shell.say(f"written to {out}" if out else text.rstrip("\n"))


@audit.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.option("--plain", is_flag=True, help="Opened values as well; they leave the vault for good.")
@_ARCHIVE
@command
def export(shell: Shell, folder: Path, plain: bool, archives: tuple[Path, ...]) -> None:
    """Write the log to DIR as others read it: C2SP tiles, checkpoint and key, and the entries as JSON lines."""
    from tightship.ledger.audit import export as written

    report = _with_progress(
        shell, lambda ledger, progress: written(ledger, folder, progress, plain=plain, archives=archives)
    )
    shell.emit(report.as_dict())
    for log, count in report.logs.items():
        shell.say(f"{folder}/{log}: {count:,} entries")
    if report.values:
        shell.say(f"{report.values:,} values in the open: what is erased later stays readable there", "warn")
    if report.uncovered:
        shell.say(f"{report.uncovered:,} entries are not under a signed checkpoint yet, and were left out", "warn")


@audit.command()
@_ARCHIVE
@command
def rebuild(shell: Shell, archives: tuple[Path, ...]) -> None:
    """Make every table of readings (runs, inbox, spend, …) anew from the log.

    Where entries have left for an archive, from how the tables stood then; with all archives, from the first entry.
    """
    from tightship.ledger.audit import rebuild as rebuilt

    report = _with_progress(shell, lambda ledger, progress: rebuilt(ledger, progress, archives))
    shell.emit(report.as_dict())
    shell.table(("table", "rows"), [(table, f"{rows:,}") for table, rows in report.tables.items()], right=("rows",))


# --- progress -----------------------------------------------------------------------------------------


def _with_progress(shell: Shell, work: Callable[..., Coroutine[Any, Any, _T]]) -> _T:
    """Run a work on the ledger that tells how far it is, with a bar where there is a terminal."""
    if shell.json or not is_terminal():
        return run_async(lambda: _on_ledger(shell, lambda ledger: work(ledger, _silent)))
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, Any] = {}

        def told(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total or None)
            bar.update(tasks[stage], completed=done, total=total or None)

        return run_async(lambda: _on_ledger(shell, lambda ledger: work(ledger, told)))


def _silent(stage: str, done: int, total: int) -> None:
    """Nobody watches."""


async def _on_ledger(shell: Shell, work: Callable[[Ledger], Coroutine[Any, Any, _T]]) -> _T:
    from tightship.cli._open import looking

    async with looking(shell) as workspace:
        return await work(await workspace.ledger())

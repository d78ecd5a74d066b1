"""`tightship worker`: one of many that execute on a store which all share, or as many as the load asks for."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import click

from tightship.cli._shell import Shell, command, run_async
from tightship.core.errors import InputRejected

if TYPE_CHECKING:
    from tightship.runtime.crew import Event


@click.command()
@click.option(
    "--concurrency", "-c", type=click.IntRange(1, 10_000), default=64, show_default=True, help="Runs at once."
)
@click.option("--min", "least", type=click.IntRange(0, 1000), default=None, help="At least so many workers here.")
@click.option("--max", "most", type=click.IntRange(1, 1000), default=None, help="At most so many workers here.")
@click.option("--until-closed", is_flag=True, help="End when standard input is closed: with whoever started this.")
@command
def worker(shell: Shell, concurrency: int, least: int | None, most: int | None, until_closed: bool) -> None:
    """Execute whatever is due, beside any number of other workers on this and other machines.

    Needs a store that all of them share (`store: postgresql://…`). A worker that is killed, frozen or cut off is
    replaced by the others within seconds; nothing that has settled is done again. On Ctrl-C or SIGTERM writes under way
    settle, and the others go on with the rest at once.

    With --min and --max it keeps as many workers on this machine as the load asks for, each a process of its own:
    more at once when runs wait, fewer after five quiet minutes. One that dies is started again.
    """
    if until_closed:
        from tightship.runtime.tether import end_with_parent

        end_with_parent()
    if least is None and most is None:
        run_async(lambda: _work(shell, concurrency))
    else:
        run_async(lambda: _keep(shell, concurrency, 1 if least is None else least, most or max(least or 1, 1)))


async def _work(shell: Shell, concurrency: int) -> None:
    from tightship.cli.serve import carry_on

    _require_shared(shell)
    await carry_on(shell, concurrency, "works on")


def _require_shared(shell: Shell) -> None:
    """Whether the workspace's store can have workers.

    Raises:
        InputRejected: it is for one process.
    """
    from tightship.cli._open import open_leniently

    workspace = open_leniently(shell.folder)
    if workspace.place.url is None:
        raise InputRejected(
            f"the store {workspace.files.config.store.url} is for one process that executes, and workers share theirs",
            where="tightship.yaml: store",
            fix="use `tightship serve`, or move the workspace to Postgres (`tightship store copy`)",
        )


async def _keep(shell: Shell, concurrency: int, least: int, most: int) -> None:
    """Keep between so many workers."""
    from tightship.cli._open import executing
    from tightship.cli._work import stoppable
    from tightship.insight import load
    from tightship.runtime.admission import bounds_of
    from tightship.runtime.build import build_id
    from tightship.runtime.crew import supervise
    from tightship.runtime.scaling import Bounds, Load, Policy

    bounds = Bounds(least, most)
    _require_shared(shell)
    stop = asyncio.Event()
    child = [sys.executable, "-m", "tightship", "worker", "-w", str(shell.folder), "-c", str(concurrency)]
    child += ["--until-closed", *(["--json"] if shell.json else [])]
    async with executing(shell) as workspace, stoppable(shell, stop):
        ledger = await workspace.ledger()
        build = build_id(workspace.files.code_hash)
        places = bounds_of(workspace.files.config.admission)

        async def demand() -> Load:
            return await load(ledger, await ledger.living(), build, bounds=places)

        await supervise(
            child, bounds, demand, stop, policy=Policy.of(concurrency), tell=lambda event: _tell(shell, event)
        )


def _tell(shell: Shell, event: Event) -> None:
    if event.kind == "line":
        click.echo(event.text)
        return
    shell.line({"event": event.kind, "worker": event.worker, "pid": event.pid, "text": event.text})
    shell.note(f"{event.kind} {f'worker {event.worker} ' if event.worker else ''}{event.text}".rstrip())

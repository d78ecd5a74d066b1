"""`tightship serve`: the embedded worker."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from tightship.cli._shell import Shell, command, run_async

if TYPE_CHECKING:
    from tightship.ledger import Entry
    from tightship.runtime.workspace import Workspace


@click.command()
@click.option(
    "--concurrency", "-c", type=click.IntRange(1, 10_000), default=64, show_default=True, help="Runs at once."
)
@command
def serve(shell: Shell, concurrency: int) -> None:
    """Execute whatever is due: runs that were left, answered, or whose time has come.

    Prints a line when it is ready and one for each run that parks or ends (with --json, JSON lines). On Ctrl-C or
    SIGTERM writes under way settle, and everything else is continued by the next `serve` or `runs resume --all`.
    """
    run_async(lambda: carry_on(shell, concurrency))


async def carry_on(shell: Shell, concurrency: int, verb: str = "serves") -> None:
    """Execute what is due until told to stop."""
    from tightship.cli._open import executing
    from tightship.cli._work import stoppable

    stop = asyncio.Event()
    async with executing(shell) as workspace:
        await workspace.warm()
        ledger = await workspace.ledger()
        name = workspace.files.config.name
        async with stoppable(shell, stop):
            ledger.listen(lambda entries, foreign: _tell(shell, entries))
            owner = (await workspace.engine()).owner
            shell.line({"event": "ready", "workspace": name, "pid": os.getpid(), "owner": owner})
            shell.say(f"process {os.getpid()} {verb} {name}; Ctrl-C ends it")
            await _warn(shell, workspace)
            await workspace.serve(stop, concurrency)
            await workspace.put_down()
    shell.line({"event": "stopped"})
    shell.say("stopped")


async def _warn(shell: Shell, workspace: Workspace) -> None:
    """Runs that are due and were started by other code are not continued; that must not go unseen."""
    engine = await workspace.engine()
    others = [row["id"] for row in await workspace.due() if row["build"] != engine.build]
    if others:
        shell.line({"event": "other_code", "runs": others})
        shell.note(
            f"{len(others)} runs were started by other code and are left alone; to continue them with this code:"
        )
        shell.note(f"  tightship runs resume --all --accept-code{shell.place}")


def _tell(shell: Shell, entries: Sequence[Entry]) -> None:
    """A line for each run that parks or ends."""
    from tightship.core import kinds
    from tightship.insight import entry_line

    for entry in entries:
        if entry.kind in (kinds.PARKED, kinds.ENDED):
            state = entry.body.get("outcome") or "parked"
            shell.line({"event": "run", "run": entry.run, "state": state, "reason": entry.body.get("reason", "")})
            shell.say(entry_line(entry))

"""`tightship worker`: one of many that execute on a store which all share."""

from __future__ import annotations

import click

from tightship.cli._shell import Shell, command, run_async
from tightship.core.errors import InputRejected


@click.command()
@click.option(
    "--concurrency", "-c", type=click.IntRange(1, 10_000), default=64, show_default=True, help="Runs at once."
)
@command
def worker(shell: Shell, concurrency: int) -> None:
    """Execute whatever is due, beside any number of other workers on this and other machines.

    Needs a store that all of them share (`store: postgresql://…`). A worker that is killed, frozen or cut off is
    replaced by the others within seconds; nothing that has settled is done again. On Ctrl-C or SIGTERM writes under way
    settle, and the others go on with the rest at once.
    """
    run_async(lambda: _work(shell, concurrency))


async def _work(shell: Shell, concurrency: int) -> None:
    from tightship.cli._open import open_leniently
    from tightship.cli.serve import carry_on

    workspace = open_leniently(shell.folder)
    if workspace.place.url is None:
        raise InputRejected(
            f"the store {workspace.files.config.store.url} is for one process that executes, and workers share theirs",
            where="tightship.yaml: store",
            fix="use `tightship serve`, or move the workspace to Postgres (`tightship store copy`)",
        )
    await carry_on(shell, concurrency, "works on")

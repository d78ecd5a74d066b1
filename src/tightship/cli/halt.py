"""`tightship halt` and `unhalt`: the kill switch. Works beside a process that executes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from tightship.cli._exit import DONE, ERROR
from tightship.cli._shell import Shell, command, run_async

if TYPE_CHECKING:
    from tightship.cli._open import Executing
    from tightship.insight.halting import Preview

_BY = click.option("--by", help="Who does it (default: whoever is logged in).")
_REASON = click.option(
    "--reason", default="", help="Why, about the scope and no person: it stands in clear and is never erased."
)


@click.command()
@click.argument("scope", required=False)
@click.option("--list", "listing", is_flag=True, help="Show what is halted.")
@click.option("--dry-run", is_flag=True, help="Show what it would stop, and stop nothing.")
@click.option(
    "--limit", type=click.IntRange(1, 100_000), default=1000, show_default=True, help="Look into so many runs."
)
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@_BY
@_REASON
@command
def halt(
    shell: Shell,
    scope: str | None,
    listing: bool,
    dry_run: bool,
    limit: int,
    yes: bool,
    by: str | None,
    reason: str,
) -> int:
    """Stop SCOPE at once: all, tenant:NAME, workflow:NAME, agent:NAME or run:ID.

    What is halted begins no new effect; what it has done is undone, and the work goes to a person with its context. It
    first shows what it stops: runs, calls in flight and what is done about each, actions that are undone and that
    remain, inbox items that close, and who gets the work. It asks unless --yes; --dry-run only shows. Of more runs than
    --limit it shows a part, and says so; all of them are stopped.
    """
    if listing:
        return _list(shell)
    if scope is None:
        raise click.UsageError("name a scope: all, tenant:NAME, workflow:NAME, agent:NAME or run:ID; or --list")
    found = run_async(lambda: _preview(shell, scope, limit))
    shell.say(found.render())
    if dry_run:
        shell.emit(found.as_dict())
        shell.say("nothing was halted")
        return DONE
    shell.say(f"nothing new begins in it until `tightship unhalt {scope}`")
    if not yes:
        if shell.json or not sys.stdin.isatty():
            raise click.UsageError("nobody can be asked here; say --yes")
        if not click.confirm("Halt it?", default=False):
            shell.say("nothing was halted")
            return ERROR
    who = run_async(lambda: _halt(shell, scope, by, reason))
    shell.emit({"scope": scope, "halted": True, "runs": found.counts(), **who.as_dict(), "stops": found.as_dict()})
    shell.say(f"{scope} is halted" + (f"; {who.each} stops it now" if who else ""), "warn")
    if not who and found.runs:
        shell.say(f"no process executes here; what it stops ends with: tightship runs resume --all{shell.place}")
    return DONE


@click.command()
@click.argument("scope")
@_BY
@_REASON
@command
def unhalt(shell: Shell, scope: str, by: str | None, reason: str) -> int:
    """Let SCOPE go on. Exits with 1 when it was not halted."""
    lifted = run_async(lambda: _unhalt(shell, scope, by, reason))
    shell.emit({"scope": scope, "lifted": lifted})
    shell.say(f"{scope} goes on" if lifted else f"{scope} was not halted", "good" if lifted else "warn")
    return DONE if lifted else ERROR


async def _preview(shell: Shell, scope: str, limit: int) -> Preview:
    from tightship.cli._open import looking
    from tightship.controls.halts import check_scope
    from tightship.insight.halting import preview

    checked = check_scope(scope)
    async with looking(shell) as workspace:
        await _known(workspace, checked)
        roles = workspace.files.config.roles
        return await preview(await workspace.ledger(), checked, roles=roles, limit=limit)


async def _known(workspace: Any, scope: str) -> None:
    """A scope that names nothing is a slip of the pen, and a slip must not look like a halt.

    Raises:
        UnknownName: no such workflow, agent or run.
    """
    kind, _, name = scope.partition(":")
    if kind == "run":
        await workspace.row(name)
    elif kind == "workflow" and not await _has_runs(workspace, name):
        workspace.files.workflow(name)
    elif kind == "agent":
        workspace.files.agent(name)


async def _has_runs(workspace: Any, workflow: str) -> bool:
    """Whether a workflow, perhaps one whose file is gone or broken, has runs."""
    return bool(await (await workspace.ledger()).select("runs", [("workflow", "=", workflow)], limit=1))


async def _halt(shell: Shell, scope: str, by: str | None, reason: str) -> Executing:
    from tightship.cli._open import executing_now, looking, person

    async with looking(shell) as workspace:
        await (await workspace.operator()).halt(scope, person(by), reason)
        return await executing_now(workspace)


async def _unhalt(shell: Shell, scope: str, by: str | None, reason: str) -> bool:
    from tightship.cli._open import looking, person

    async with looking(shell) as workspace:
        return await (await workspace.operator()).unhalt(scope, person(by), reason)


def _list(shell: Shell) -> int:
    from tightship.insight._reading import clock

    found = run_async(lambda: _halts(shell))
    shell.emit(found)
    if not found:
        shell.say("nothing is halted")
    else:
        rows = [(row["scope"], row["by_whom"], clock(row["at"]), row["reason"]) for row in found]
        shell.table(("scope", "by", "since", "reason"), rows, words=("reason",))
    return DONE


async def _halts(shell: Shell) -> list[dict[str, Any]]:
    from tightship.cli._open import looking

    async with looking(shell) as workspace:
        return await (await workspace.operator()).halts()

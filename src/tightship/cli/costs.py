"""`tightship costs`: what it has cost."""

from __future__ import annotations

from typing import Any

import click

from tightship.cli._shell import Shell, command, run_async

_GROUPS = {
    "workflow": "workflow",
    "agent": "agent",
    "tool": "name",
    "day": "day",
    "month": "month",
    "tenant": "tenant",
    "tier": "tier",
    "class": "cls",
}


@click.command()
@click.option("--by", multiple=True, type=click.Choice(list(_GROUPS)), help="Group by this; may be given again.")
@click.option("--since", default="", metavar="YYYY-MM-DD", help="From this day on (UTC).")
@click.option("--until", default="", metavar="YYYY-MM-DD", help="Up to and with this day.")
@click.option("--workflow", default="", help="Only this workflow.")
@click.option("--run", default="", help="One run: its agents, tools, turns, and calls that were made more than once.")
@command
def costs(shell: Shell, by: tuple[str, ...], since: str, until: str, workflow: str, run: str) -> None:
    """Show money, tokens and calls by workflow, agent, tool or day."""
    if run:
        _one(shell, run)
        return
    groups = by or ("workflow",)
    found = run_async(lambda: _report(shell, [_GROUPS[name] for name in groups], since, until, workflow))
    shell.emit(found.as_dict())
    rows = [[*line.group.values(), *_figures(line.cost)] for line in found.lines]
    if len(rows) > 1:
        rows.append(["all", *[""] * (len(groups) - 1), *_figures(found.total)])
    if not rows:
        shell.say("nothing has been spent")
        return
    shell.table((*groups, *_COLUMNS), rows, right=_COLUMNS, drop=_DROPPED)


_COLUMNS = ("cost", "tokens in", "tokens out", "calls", "from cache", "errors", "refused", "time")

_DROPPED = ("from cache", "refused", "time", "tokens in", "tokens out", "errors")


def _figures(cost: Any) -> list[str]:
    from tightship.core.money import show_usd
    from tightship.insight._reading import duration

    counts = (cost.tokens_in, cost.tokens_out, cost.calls, cost.hits, cost.errors, cost.refusals)
    return [show_usd(cost.usd), *(f"{count:,}" for count in counts), duration(cost.ms / 1000)]


async def _report(shell: Shell, by: list[str], since: str, until: str, workflow: str) -> Any:
    from tightship.cli._open import looking
    from tightship.insight import cost_report

    async with looking(shell) as workspace:
        return await cost_report(await workspace.ledger(), by, since=since, until=until, workflow=workflow)


def _one(shell: Shell, run: str) -> None:
    found = run_async(lambda: _of_run(shell, run))
    shell.emit(found.as_dict())
    parts = [("agent", found.agents.items()), ("tool", found.names.items())]
    parts.append(("turn", [(turn.key, turn.cost) for turn in found.turns]))
    for name, costs_ in parts:
        rows = [[who, *_figures(cost)] for who, cost in costs_]
        if rows:
            shell.table((name, *_COLUMNS), rows, right=_COLUMNS, drop=_DROPPED)
            shell.say()
    for repeated in found.repeated:
        shell.say(str(repeated), "warn")
    below = "" if found.requests == found.total.calls else f", {found.requests} with the runs below it"
    shell.say(f"in all {_figures(found.total)[0]}, {found.total.calls} calls{below}")


async def _of_run(shell: Shell, run: str) -> Any:
    from tightship.cli._open import looking
    from tightship.insight import costs_of_run

    async with looking(shell) as workspace:
        await workspace.row(run)
        return await costs_of_run(await workspace.ledger(), run)

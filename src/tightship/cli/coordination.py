"""`tightship coordination`: how well agents work together, and what that takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from tightship.cli._shell import Shell, command, run_async

if TYPE_CHECKING:
    from tightship.insight import Coordination


@click.command()
@click.option("--workflow", default="", help="Only this workflow's runs.")
@click.option("--run", default="", help="One run, with the runs below it.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=1000, show_default=True, help="The latest so many.")
@command
def coordination(shell: Shell, workflow: str, run: str, limit: int) -> None:
    """Show what share of turns, tokens, money and time is coordination, how work is handed over, and what was refused.

    Coordination is what whoever did the work alone would not need: planning, checking, judging, putting together, and
    turns that only hand over. Each run counts with the runs below it.
    """
    if run and workflow:
        raise click.UsageError("--run names one run; leave --workflow out")
    found = run_async(lambda: _read(shell, workflow, run, limit))
    shell.emit([{**told, **one.as_dict()} for told, one in found])
    if not found:
        shell.say("nothing has been run yet")
        return
    _shares(shell, found)
    _handoffs(shell, found)
    _refused(shell, found)


Found = list[tuple[Mapping[str, str], "Coordination"]]


async def _read(shell: Shell, workflow: str, run: str, limit: int) -> Found:
    from tightship.cli._open import looking
    from tightship.insight import coordination_of, coordination_report

    async with looking(shell) as workspace:
        ledger = await workspace.ledger()
        if run:
            row = await workspace.row(run)
            return [({"workflow": row["workflow"], "run": run}, await coordination_of(ledger, run))]
        sums = await coordination_report(ledger, workflow=workflow, limit=limit)
        return [({"workflow": name, "tenant": tenant}, one) for (tenant, name), one in sums.items()]


def _shares(shell: Shell, found: Found) -> None:
    columns = ("workflow", "runs", "turns", "tokens", "cost", "time", "handoffs", "facts kept")
    rows = [
        [
            told["workflow"],
            str(one.runs),
            *(_percent(one.share(unit)) for unit in ("turns", "tokens", "usd", "ms")),
            str(sum(pair.handoffs for pair in one.pairs.values())),
            _percent(one.chains[1] / one.chains[0] if one.chains[0] else None),
        ]
        for told, one in found
    ]
    shell.say("what of it is coordination:", "head")
    shell.table(columns, rows, right=columns[1:])


def _handoffs(shell: Shell, found: Found) -> None:
    rows: list[list[Any]] = []
    for told, one in found:
        for _, pair in sorted(one.pairs.items()):
            counts = (pair.handoffs, pair.returned, pair.misroutes, pair.rework)
            rows.append(
                [told["workflow"], pair.source, pair.target, *(str(n) for n in counts), _percent(pair.retention)]
            )
    if rows:
        columns = ("workflow", "from", "to", "handoffs", "returned", "misroutes", "rework", "facts kept")
        shell.say()
        shell.say("handoffs:", "head")
        shell.table(columns, rows, right=columns[3:])


def _refused(shell: Shell, found: Found) -> None:
    rows = [
        [told["workflow"], agent, kind, str(count)]
        for told, one in found
        for (agent, kind), count in sorted(one.refused.items())
    ]
    if rows:
        columns = ("workflow", "agent", "kind", "times")
        shell.say()
        shell.say("refused, since it lies outside of the role:", "head")
        shell.table(columns, rows, right=("times",))


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}"

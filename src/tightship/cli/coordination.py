"""`tightship coordination`: how well agents work together, and what that takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import click

from tightship.cli._shell import Shell, command, run_async

if TYPE_CHECKING:
    from tightship.insight import Coordination
    from tightship.insight._efforts import Shares


@click.command()
@click.option("--workflow", default="", help="Only this workflow's runs.")
@click.option("--run", default="", help="One run, with the runs below it.")
@click.option("--each", is_flag=True, help="Each run by itself.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=1000, show_default=True, help="The latest so many.")
@command
def coordination(shell: Shell, workflow: str, run: str, each: bool, limit: int) -> None:
    """Show what share of turns, tokens, money and time is coordination, how work is handed over, and what was refused.

    Coordination is what whoever did the work alone would not need: planning, checking, judging, putting together,
    turns that only hand over, and those in which peers only claim and talk. Each run counts with the runs below it.
    The second table tells it by the pattern in which it came about.
    """
    if run and (workflow or each):
        raise click.UsageError("--run names one run; leave --workflow and --each out")
    found, left = run_async(lambda: _read(shell, workflow, run, each, limit))
    shell.emit([{**told, **one.as_dict()} for told, one in found])
    if left:
        shell.say(f"{left:,} runs are not counted: their entries have left the store for an archive", "warn")
    if not found:
        shell.say("nothing has been run yet" if not left else "there is no other run")
        return
    _shares(shell, found)
    _patterns(shell, found)
    _handoffs(shell, found)
    _refused(shell, found)


_UNITS: Final = {"turns": "turns", "tokens": "tokens", "usd": "cost", "ms": "time"}
"""What is measured, as the tables call it."""
Found = list[tuple[Mapping[str, str], "Coordination"]]


async def _read(shell: Shell, workflow: str, run: str, each: bool, limit: int) -> tuple[Found, int]:
    """The readings, and how many runs they leave out."""
    from tightship.cli._open import looking
    from tightship.insight import coordination_by_run, coordination_left_out, coordination_of, coordination_report

    async with looking(shell) as workspace:
        ledger = await workspace.ledger()
        if run:
            row = await workspace.row(run)
            return [({"workflow": row["workflow"], "run": run}, await coordination_of(ledger, run))], 0
        left = await coordination_left_out(ledger, workflow=workflow, limit=limit)
        if each:
            rows = await coordination_by_run(ledger, workflow=workflow, limit=limit)
            return [
                ({"workflow": row["workflow"], "tenant": row["log"], "run": row["id"]}, one) for row, one in rows
            ], left
        sums = await coordination_report(ledger, workflow=workflow, limit=limit)
        return [({"workflow": name, "tenant": tenant}, one) for (tenant, name), one in sums.items()], left


def _shares(shell: Shell, found: Found) -> None:
    columns = ("workflow", "run" if "run" in found[0][0] else "runs", *_UNITS.values(), "handoffs", "facts kept")
    rows = [
        [
            told["workflow"],
            told.get("run", str(one.runs)),
            *(_percent(one.share(unit)) for unit in _UNITS),
            str(sum(pair.handoffs for pair in one.pairs.values())),
            _percent(one.chains[1] / one.chains[0] if one.chains[0] else None),
        ]
        for told, one in found
    ]
    shell.say("what of it is coordination:", "head")
    shell.table(columns, rows, right=columns[1:])


def _patterns(shell: Shell, found: Found) -> None:
    """The same by pattern: of what was taken in it, the share that was coordination."""
    rows = [
        [told.get("run", told["workflow"]), name, *(_part(shares, unit) for unit in _UNITS)]
        for told, one in found
        for name, shares in sorted(one.patterns.items())
    ]
    if rows:
        columns = ("run" if "run" in found[0][0] else "workflow", "pattern", *_UNITS.values())
        shell.say()
        shell.say("by pattern:", "head")
        shell.table(columns, rows, right=columns[2:])


def _part(shares: Shares, unit: str) -> str:
    """`38% of $0.0120`."""
    from tightship.core.money import show_usd
    from tightship.insight._reading import duration

    whole = shares.whole(unit)
    said = {"usd": lambda: show_usd(int(whole)), "ms": lambda: duration(whole / 1000)}.get(unit, lambda: f"{whole:,}")
    return f"{_percent(shares.share(unit))} of {said()}" if whole else ""


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

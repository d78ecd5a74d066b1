"""`tightship drift`: whether agents behave as they did, models are what they were, and runs keep to themselves."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from tightship.cli._exit import DONE, ERROR
from tightship.cli._shell import Shell, command, run_async

if TYPE_CHECKING:
    from tightship.insight.behaviour import Behaviour
    from tightship.insight.retention import Kept
    from tightship.runtime.conduct import Baseline
    from tightship.runtime.drift import DriftReport
    from tightship.runtime.leaks import LeakReport


@click.group()
def drift() -> None:
    """Behaviour against a baseline, versions of models, leaks between runs, audits of outputs."""


@drift.command()
@click.argument("agent", required=False)
@click.option("--workflow", default="", help="Of a workflow as a whole, in place of an agent.")
@click.option("--since", default="", metavar="YYYY-MM-DD", help="Runs that ended from this day on (UTC).")
@click.option("--until", default="", metavar="YYYY-MM-DD", help="Up to and with this day.")
@click.option("--by", help="Who stands by it (default: whoever is logged in).")
@command
def baseline(shell: Shell, agent: str | None, workflow: str, since: str, until: str, by: str | None) -> int:
    """Record that AGENT behaves as it should, from its latest runs (at most 500)."""
    if bool(agent) == bool(workflow):
        raise click.UsageError("name an agent, or a workflow by --workflow")
    subject = f"agent:{agent}" if agent else f"workflow:{workflow}"
    found = run_async(lambda: _baseline(shell, subject, _day(since), _day(until, 86_400.0), by))
    shell.emit(found.as_dict())
    shell.say(f"{subject}: the baseline is {len(found.runs)} runs, by {found.by}", "good")
    return DONE


@drift.command()
@click.argument("subject", required=False)
@click.option("--level", type=click.FloatRange(0.0001, 0.2), default=0.01, help="Chance of a false alarm of one check.")
@click.option("--effect", type=click.FloatRange(0.0, 1.0), default=0.1, help="The least difference that is told.")
@click.option("--fewest", type=click.IntRange(8), default=30, help="Runs needed on either side.")
@command
def check(shell: Shell, subject: str | None, level: float, effect: float, fewest: int) -> int:
    """Compare what ran since the baseline with it: SUBJECT (agent:NAME, workflow:NAME), or all. Exits with 1 on drift.

    Also tells models that report another version than before. The result is recorded, and `metrics` shows it.
    """
    found, known = run_async(lambda: _check(shell, subject, level, effect, fewest))
    shell.emit(
        {"checks": [one.as_dict() for one in found], "model_changes": [one.as_dict() for one in known.open_changes]}
    )
    if not found:
        shell.say("there is no baseline: tightship drift baseline AGENT")
    for one in found:
        _show(shell, one)
    _show_models(shell, known)
    return ERROR if any(one.changes for one in found) or known.open_changes else DONE


@drift.command()
@command
def models(shell: Shell) -> int:
    """Show the version that each tier's model reports. Exits with 1 when one has changed since the last baseline."""
    known = run_async(lambda: _behaviour(shell))
    shell.emit(known.as_dict())
    if not known.models:
        shell.say("no model has answered yet")
    else:
        rows = [(tier, asked, model) for (tier, asked), model in sorted(known.models.items())]
        shell.table(("tier", "declared", "reported"), rows)
    _show_models(shell, known)
    return ERROR if known.open_changes else DONE


@drift.command()
@command
def canary(shell: Shell) -> int:
    """Print a marked value to put into one run's input; `drift leaks` finds it wherever else it shows up."""
    made = run_async(lambda: _canary(shell))
    shell.emit({"canary": made})
    if not shell.json:
        click.echo(made)
    return DONE


@drift.command()
@command
def leaks(shell: Shell) -> int:
    """Look for canaries of one run in other runs' prompts, outputs, arguments and results. Exits with 1 on a leak."""
    found = run_async(lambda: _leaks(shell))
    shell.emit(found.as_dict())
    for leak in found.leaks:
        shell.say(f"{leak.mark}: of {leak.home}, found in {leak.run} at {leak.key or leak.kind} {leak.agent}", "bad")
    seen = f"{len(found.canaries)} canaries, {found.payloads:,} payloads of {found.runs:,} runs"
    shell.say(f"{seen}, {len(found.leaks)} leaks", "bad" if found.leaks else "good")
    return ERROR if found.leaks else DONE


@drift.command()
@click.argument("run")
@click.option("--fact", "names", multiple=True, metavar="PATH", help="A path of the input (`order.id`).")
@command
def facts(shell: Shell, run: str, names: tuple[str, ...]) -> int:
    """Show what of RUN's input each request to a model, and each output, still holds."""
    found = run_async(lambda: _facts(shell, run, names))
    shell.emit([one.as_dict() for one in found])
    rows = [
        (one.key, one.agent, one.what, f"{len(one.kept)}/{len(one.kept) + len(one.lost)}", ", ".join(one.lost))
        for one in found
    ]
    shell.table(("key", "agent", "", "kept", "lost"), rows, words=("lost",))
    return DONE


@drift.command()
@click.argument("agent", required=False)
@click.option("--by", help="Who asks for it (default: whoever is logged in).")
@command
def audit(shell: Shell, agent: str | None, by: str | None) -> int:
    """Have a sample of AGENT's outputs looked at now, or show what audits have found. `serve` begins those due."""
    if agent is not None:
        begun = run_async(lambda: _audit(shell, agent, by))
        shell.emit({"agent": agent, "runs": begun})
        shell.say(f"{len(begun)} outputs of {agent} are looked at; the runs wait for whoever executes")
        return DONE
    known = run_async(lambda: _behaviour(shell))
    shell.emit(known.as_dict()["audits"])
    rows = [(name, counts["ok"], counts["not ok"], counts["open"]) for name, counts in sorted(known.audits.items())]
    if not rows:
        shell.say("nothing was audited yet")
    else:
        shell.table(("agent", "ok", "not ok", "open"), rows, right=("ok", "not ok", "open"))
    left = sum(counts["archived"] for counts in known.audits.values())
    if left:
        shell.say(f"{left:,} audits are not counted: their entries have left the store for an archive", "warn")
    return DONE


# --- what they print -----------------------------------------------------------------------------------


def _show(shell: Shell, found: DriftReport) -> None:
    from tightship.insight._reading import clock

    if found.missing:
        shell.say(f"{found.subject}: {found.missing}", "warn")
        return
    said = f"{found.subject}: {found.recent} runs against {found.baseline}, {found.features} features"
    shell.say(f"{said}, {len(found.changes)} drifted", "bad" if found.changes else "good")
    rows = [
        (one.feature, one.was, one.now, f"{one.effect:.2f}", f"{one.p:.2g}", clock(one.since), ", ".join(one.runs))
        for one in found.changes
    ]
    if rows:
        columns = ("feature", "was", "now", "effect", "p", "since", "runs")
        shell.table(columns, rows, right=("effect", "p"), words=("was", "now", "runs"), drop=("effect", "p"))


def _show_models(shell: Shell, known: Behaviour) -> None:
    from tightship.insight._reading import clock

    for one in known.open_changes:
        where = f", first in {one.run}" if one.run else ""
        shell.say(f"{one.tier}: {one.asked} reports {one.model}, was {one.was}; {clock(one.at)}{where}", "bad")


# --- what they do --------------------------------------------------------------------------------------


def _day(text: str, more: float = 0.0) -> float:
    if not text:
        return float("inf") if more else 0.0
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).timestamp() + more
    except ValueError:
        raise click.UsageError(f"{text!r} is no day; write YYYY-MM-DD") from None


async def _baseline(shell: Shell, subject: str, since: float, until: float, by: str | None) -> Baseline:
    from tightship.cli._open import looking, person
    from tightship.runtime.drift_checks import DriftChecks

    async with looking(shell) as workspace:
        checks = DriftChecks(await workspace.ledger(), workspace.files)
        return await checks.record(subject, since, until, person(by))


async def _check(
    shell: Shell, subject: str | None, level: float, effect: float, fewest: int
) -> tuple[list[DriftReport], Behaviour]:
    from tightship.cli._open import looking
    from tightship.insight.behaviour import behaviour
    from tightship.runtime.drift_checks import DriftChecks

    async with looking(shell) as workspace:
        ledger = await workspace.ledger()
        found = await DriftChecks(ledger, workspace.files).check(subject, level, effect, fewest)
        return found, await behaviour(ledger)


async def _behaviour(shell: Shell) -> Behaviour:
    from tightship.cli._open import looking
    from tightship.insight.behaviour import behaviour

    async with looking(shell) as workspace:
        return await behaviour(await workspace.ledger())


async def _canary(shell: Shell) -> str:
    from tightship.cli._open import looking
    from tightship.runtime.leaks import make_canary

    async with looking(shell) as workspace:
        return make_canary(await workspace.ledger())


async def _leaks(shell: Shell) -> LeakReport:
    from tightship.cli._open import looking
    from tightship.runtime.leaks import find_leaks

    async with looking(shell) as workspace:
        return await find_leaks(await workspace.ledger())


async def _facts(shell: Shell, run: str, names: tuple[str, ...]) -> list[Kept]:
    from tightship.cli._open import looking
    from tightship.insight.retention import retention

    async with looking(shell) as workspace:
        await workspace.row(run)
        return await retention(await workspace.ledger(), run, names)


async def _audit(shell: Shell, agent: str, by: str | None) -> list[str]:
    from tightship.cli._open import looking, person

    async with looking(shell) as workspace:
        return await (await workspace.operator()).audit(agent, person(by))

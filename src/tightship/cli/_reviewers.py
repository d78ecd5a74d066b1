"""The commands of `tightship inbox` about reviewers: who decides, how much waits, and thresholds that they teach."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import click

from tightship.cli._shell import Shell, command, run_async

if TYPE_CHECKING:
    from tightship.review.thresholds import Standing
    from tightship.runtime.reviewers import Reviewers

_BY = click.option("--by", help="Who does it (default: whoever is logged in).")
_WHY = click.option("--reason", required=True, help="Why; stands in the ledger in clear.")


@asynccontextmanager
async def _reviewers(shell: Shell) -> AsyncGenerator[Reviewers]:
    from tightship.cli._open import looking
    from tightship.runtime.reviewers import Reviewers

    async with looking(shell) as workspace:
        yield Reviewers(await workspace.ledger(), workspace.files, workspace.world)


@click.command("reassign")
@click.argument("item")
@click.argument("role")
@_BY
@click.option("--reason", default="", help="Why; sealed like the values of the run, and erased with them.")
@command
def reassign(shell: Shell, item: str, role: str, by: str | None, reason: str) -> None:
    """Let another role decide an open item. Only who may decide it now may hand it on."""
    from tightship.cli._open import person

    async def work() -> str:
        async with _reviewers(shell) as reviewers:
            return (await reviewers.reassign(item, role, person(by), reason)).role

    now = run_async(work)
    shell.emit({"item": item, "role": now})
    shell.say(f"{item} waits for {now}")


@click.command("load")
@click.option("--days", type=click.FloatRange(0.01, 3650), default=7.0, show_default=True, help="Decisions since then.")
@command
def load(shell: Shell, days: float) -> None:
    """Show what waits for each role and how old it is, and what each person has decided."""
    from tightship.workflow.units import show_duration

    async def work() -> Any:
        async with _reviewers(shell) as reviewers:
            return await reviewers.load(days * 86400)

    roles, people = run_async(work)
    shell.emit({"roles": [one.as_dict() for one in roles], "people": [one.as_dict() for one in people]})
    shell.table(
        ("role", "people", "open", "ended", "oldest", "overdue", "overloaded"),
        [
            [one.role, one.people, one.open, one.closing, show_duration(round(one.oldest)), one.overdue, one.overloaded]
            for one in roles
        ],
        words=("overloaded",),
        drop=("ended", "people"),
    )
    if people:
        shell.say()
        shell.table(
            ("person", "decided", "approved", "edited or rejected", "median time"),
            [[one.person, one.decided, one.approved, one.changed, show_duration(round(one.median))] for one in people],
        )


@click.command("thresholds")
@command
def thresholds(shell: Shell) -> None:
    """Show the threshold of each class of decisions: whether it was learned, and on what evidence."""

    async def work() -> list[tuple[Standing, float | None, str]]:
        async with _reviewers(shell) as reviewers:
            known = reviewers.learning()
            found: list[tuple[Standing, float | None, str]] = []
            for one in await reviewers.thresholds():
                review, default = known.get(one.decision_class, (None, 0.0))
                learning = None if review is None else review.learning(one.decision_class)
                value, state = (None, "not used") if learning is None else one.in_force(learning, default)
                found.append((one, value, state))
            return found

    found = run_async(work)
    shell.emit([{**one.as_dict(), "in_force": value, "now": state} for one, value, state in found])
    if not found:
        shell.say("no review learns its threshold (`learn:`)")
        return
    columns = ("class", "threshold", "is", "drawn cases", "wrong", "bound", "by", "reason")
    rows = [
        [
            one.decision_class,
            "" if value is None else f"{value:g}",
            state,
            one.cases,
            one.wrong,
            _promise(one),
            one.by,
            one.reason,
        ]
        for one, value, state in found
    ]
    shell.table(columns, rows, words=("reason",), drop=("reason", "by"))


def _promise(one: Standing) -> str:
    """What is promised of a class's threshold."""
    if not one.error:
        return ""
    return f"{one.error:g} at {one.confidence:g}" if one.confidence else f"{one.error:g} in the mean"


def _set(shell: Shell, decision_class: str, state: str, by: str | None, reason: str, at: float | None = None) -> None:
    from tightship.cli._open import person

    async def work() -> Standing:
        async with _reviewers(shell) as reviewers:
            return await reviewers.set(decision_class, state, person(by), reason, at)

    now = run_async(work)
    shell.emit(now.as_dict())
    shell.say(f"{decision_class}: {state} by {now.by}" + ("" if now.frozen is None else f" at {now.frozen:g}"))


@click.command("freeze")
@click.argument("decision_class", metavar="CLASS")
@click.option("--at", type=click.FloatRange(0, 1), help="The threshold (default: the learned one).")
@_BY
@_WHY
@command
def freeze(shell: Shell, decision_class: str, at: float | None, by: str | None, reason: str) -> None:
    """Fix the threshold of CLASS: it learns no more until it is thawed. A drift ends that too."""
    _set(shell, decision_class, "frozen", by, reason, at)


@click.command("thaw")
@click.argument("decision_class", metavar="CLASS")
@_BY
@_WHY
@command
def thaw(shell: Shell, decision_class: str, by: str | None, reason: str) -> None:
    """Let the threshold of CLASS learn again."""
    _set(shell, decision_class, "thawed", by, reason)


@click.command("relearn")
@click.argument("decision_class", metavar="CLASS")
@_BY
@_WHY
@command
def relearn(shell: Shell, decision_class: str, by: str | None, reason: str) -> None:
    """Forget what CLASS has learned: the safe threshold counts, and it learns anew."""
    _set(shell, decision_class, "reset", by, reason)


COMMANDS = (reassign, load, thresholds, freeze, thaw, relearn)

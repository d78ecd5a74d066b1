"""`tightship inbox …`: what waits for people, and their decisions. Works beside a process that executes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import click

from tightship.cli._reviewers import COMMANDS
from tightship.cli._shell import Shell, command, run_async
from tightship.cli._value import parse_value
from tightship.core.errors import UnknownName

if TYPE_CHECKING:
    from tightship.cli._open import Executing
    from tightship.review.inbox import DecisionType, InboxItem


@click.group()
def inbox() -> None:
    """What waits for people, and their decisions."""


for _one in COMMANDS:
    inbox.add_command(_one)


@inbox.command("list")
@click.option("--role", help="Only what waits for this role.")
@click.option("--all", "everything", is_flag=True, help="Decided items as well.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=200, show_default=True, help="At most so many.")
@command
def list_(shell: Shell, role: str | None, everything: bool, limit: int) -> None:
    """List open items, the most urgent first."""
    items, references = run_async(lambda: _items(shell, role, everything, limit))
    told = [{**_told(item), "reference": references.get(item.run, "")} for item in items]
    shell.emit(told)
    if not items:
        shell.say("nothing waits for anybody")
        return
    columns = ["item", "reference", "type", "role", "title", "due", "run"] + (["decision", "by"] if everything else [])
    rows = [[one.get(name, "") for name in columns] for one in told]
    shell.table(columns, rows, words=("title",), drop=("run", "type", "role", "due", "reference"))
    shell.next_steps([(f"tightship inbox show {items[0].item}{shell.place}", "the case, and what may be decided")])


async def _items(
    shell: Shell, role: str | None, everything: bool, limit: int
) -> tuple[list[InboxItem], dict[str, str]]:
    """The items, and the references of their runs: what the caller calls the cases.

    Raises:
        UnknownName: nobody knows this role.
    """
    from tightship.cli._open import looking
    from tightship.workflow.source import did_you_mean

    async with looking(shell) as workspace:
        ledger = await workspace.ledger()
        roles = workspace.files.config.roles
        if role is not None and role not in roles and not await ledger.select("inbox", [("role", "=", role)], limit=1):
            raise UnknownName(f"there is no role {role!r}", fix=did_you_mean(role, roles))
        items = await (await workspace.operator()).items("all" if everything else "open", role, limit)
        references: dict[str, str] = {}
        runs = sorted({item.run for item in items})
        for start in range(0, len(runs), 500):
            rows = await ledger.select("runs", [("id", "in", runs[start : start + 500])])
            references |= {row["id"]: row["reference"] or "" for row in rows}
        return items, references


def _told(item: InboxItem) -> dict[str, Any]:
    from tightship.insight._reading import clock

    told = {
        name: getattr(item, name) for name in ("item", "type", "role", "title", "run", "state", "decision", "reason")
    }
    return told | {"due": clock(item.due), "opened": clock(item.opened_at), "by": item.decided_by}


@inbox.command()
@click.argument("item")
@click.option("--full", is_flag=True, help="What the finished steps gave as well, whole.")
@command
def show(shell: Shell, item: str, full: bool) -> None:
    """Show an item: what happened, what was tried, what is needed, the options, and how to decide it."""
    from tightship.cli._case import rendered
    from tightship.review.inbox import allowed_decisions

    found, package, told, barred = run_async(lambda: _show(shell, item))
    allowed = allowed_decisions(found.type) if found.open else ()
    shell.emit({**_told(found), "package": package, "decisions": allowed, "told": told, "barred": barred})
    shell.say(rendered(package, full))
    for one in told:
        tries = f", {one['attempts']} attempts" if one["state"] != "delivered" and one["attempts"] else ""
        why = f": {one['why']}" if one["why"] else ""
        shell.say(f"{one['target']}: {one['event']}, {one['state']} at {one['at']}{tries}{why}")
    shell.say()
    if not found.open:
        shell.say(
            f"closed: {found.decision} by {found.decided_by or 'nobody'}{': ' + found.reason if found.reason else ''}"
        )
        return
    for person, why in barred.items():
        shell.say(f"{person} {why}, and so may not decide it: four eyes are declared", "warn")
    values = {"edit": " --value JSON", "answer": " --value JSON"}
    by = _holder(shell, found.role, (*found.made_by, *barred))
    steps = [
        (f"tightship inbox {name} {item}{values.get(name, '')}{by}{shell.place}", _meaning(found.type, name))
        for name in allowed
    ]
    if not full and isinstance(package, Mapping) and package.get("partial"):
        steps.append((f"tightship inbox show {item} --full{shell.place}", "all that the finished steps gave"))
    steps.append((f"tightship inbox show {item} --json{shell.place}", "the case as JSON"))
    shell.next_steps(steps)


_MEANING = {
    "approve": "let it go on as it is",
    "reject": "do not let it go on",
    "edit": "let it go on with another value",
    "answer": "give what is asked for",
}
_CLOSING = {
    ("escalation", "answer"): "say what was done, which closes it; a JSON object gives input to a new, linked run",
    ("escalation", "reject"): "close it without doing anything",
    ("residual", "approve"): "close it: what remains may stay",
    ("residual", "answer"): "close it by saying what was done",
    ("drift", "approve"): "accept it: what it does now is the new baseline",
    ("drift", "answer"): "close it by saying what was done: later runs are held against the baseline as it is",
    ("leak", "approve"): "close it: it may be there",
    ("leak", "answer"): "close it by saying what was done",
}
"""What decisions come to where no run waits for them."""


def _meaning(type: str, decision: str) -> str:
    return _CLOSING.get((type, decision)) or _MEANING[decision]


async def _show(shell: Shell, item: str) -> tuple[InboxItem, Any, list[dict[str, Any]], dict[str, str]]:
    from tightship.cli._case import opened
    from tightship.cli._open import looking
    from tightship.insight._reading import clock

    async with looking(shell) as workspace:
        operator = await workspace.operator()
        found, package = await operator.item(item)
        told = [{**one, "at": clock(one["at"])} for one in await operator.told(item)]
        barred = await operator.barred(found) if found.open else {}
        return found, await opened(await workspace.ledger(), package), told, barred


def _holder(shell: Shell, role: str, barred: Collection[str]) -> str:
    """`--by NAME` for a person who may decide, unless whoever is logged in may.

    `barred` are people who may not, whatever role they hold.
    """
    from shlex import quote

    from tightship.cli._open import open_leniently, person

    people = open_leniently(shell.folder).files.config.roles.get(role, ())
    me = person(None).casefold()
    out = {name.casefold() for name in barred}
    if me not in out and (not people or "*" in people or me in (name.casefold() for name in people)):
        return ""
    able = [name for name in people if name.casefold() not in out]
    return f" --by {quote(able[0])}" if able else ""


# --- deciding -----------------------------------------------------------------------------------------


def _deciding(decision: DecisionType, text: str, takes_value: bool) -> None:
    """Register the command of one decision."""

    def decide(shell: Shell, item: str, by: str | None, reason: str, value: str | None = None) -> None:
        given = parse_value(value)
        closed, who = run_async(lambda: _decide(shell, item, decision, by, reason, given))
        follows = _following(closed, given)
        shell.emit({**_told(closed), **who.as_dict(), **({"linked": follows} if follows else {})})
        shell.say(f"{item}: {closed.decision} by {closed.decided_by}")
        if closed.type in ("escalation", "residual", "drift", "leak") and not follows:
            return
        goes_on = follows or closed.run
        if follows:
            shell.say(f"{follows} follows {closed.run}, with this answer in its input")
        if who:
            shell.say(f"{who.one} goes on with {goes_on}")
        else:
            shell.say(f"no process executes here; to go on: tightship runs resume {goes_on}{shell.place}")

    decide.__doc__ = text
    made = command(decide)
    if takes_value:
        made = click.option("--value", metavar="JSON", help="The value (JSON, or plain text).")(made)
    made = click.option("--reason", default="", help="Why; sealed like the values of the run, and erased with them.")(
        made
    )
    made = click.option("--by", help="Who decides (default: whoever is logged in).")(made)
    made = click.argument("item")(made)
    inbox.command(decision)(made)


_deciding("approve", "Approve: the run goes on with what is proposed.", takes_value=False)
_deciding("reject", "Reject: the run does not go on this way.", takes_value=False)
_deciding("edit", "Approve with another value than the proposed one.", takes_value=True)
_deciding(
    "answer",
    """Answer a question or an escalation.

    To an escalation, an object gives input that was missing or wrong: a new run, linked to the old one, starts with it.
    A sentence says what was done, and closes the case.
    """,
    takes_value=True,
)


def _following(closed: InboxItem, value: Any) -> str:
    """The run that the answer to an escalation has started, empty when it has started none."""
    from tightship.runtime.operator import linked_run

    answered = closed.type == "escalation" and closed.decision == "answer" and isinstance(value, dict)
    return linked_run(closed.item) if answered else ""


async def _decide(
    shell: Shell, item: str, decision: DecisionType, by: str | None, reason: str, value: Any
) -> tuple[InboxItem, Executing]:
    from tightship.cli._open import executing_now, looking, person
    from tightship.review.inbox import Decision

    async with looking(shell) as workspace:
        operator = await workspace.operator()
        closed = await operator.decide(item, Decision(decision, person(by), value, reason))
        return closed, await executing_now(workspace)

"""Four eyes: whoever has set a run going, or has had a hand in it, decides nothing that checks it (P5, P8).

A workflow declares it (`four_eyes: true`), and it holds for the runs below. Who it was follows from the ledger: first
entries name who set a run going, signals who has taken it over and what they did.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from tightship.core import kinds
from tightship.core.errors import ActRefused
from tightship.runtime.ballots import voice
from tightship.runtime.governing import is_kept_apart

if TYPE_CHECKING:
    from tightship.effects.session import Session
    from tightship.ledger import Entry, Ledger
    from tightship.runtime.steps import StepState

_ACTS: Final[Mapping[str, str]] = {
    "edit": "has edited {name} in run {run}",
    "do": "has done {key} of run {run} by hand",
    "undo": "has had {key} of run {run} undone",
    "take": "has taken run {run} over",
}
"""What a person does to a run that they have taken over, the weightiest first."""


def named(*people: str) -> list[str]:
    """Names of people, each once, without empty ones."""
    found = dict[str, str]()
    for one in people:
        if one.strip():
            found.setdefault(one.strip().casefold(), one.strip())
    return list(found.values())


def is_check(session: Session, key: str, type: str) -> bool:
    """Whether what is asked of a person at a key checks what others made: a review, a checker's turn, a vote."""
    if not session.journal.entries[0].body.get("four_eyes"):
        return False
    return type == "review" or is_kept_apart(session.apart, key) or bool(voice(session, key, type))


async def barred(ledger: Ledger, run: str, item: str) -> dict[str, str] | None:
    """The people who may not decide an item, each with why in words; None where four eyes are not declared.

    They have set the run going, or have had a hand in it, in a run above it, or in one below.
    """
    entries = await ledger.run_entries(run)
    opened = next((one for one in entries if one.kind == kinds.OPENED and one.body["item"] == item), None)
    if opened is None or not opened.body.get("four_eyes"):
        return None
    found = dict[str, str]()
    for person in entries[0].body.get("by", ()):
        found[person] = f"has set run {run} going"
    for acted in (entries, *await _above(ledger, entries), *await _below(ledger, run)):
        for person, why in _acts(acted):
            found.setdefault(person, why)
    return found


async def _above(ledger: Ledger, entries: Sequence[Entry]) -> list[Sequence[Entry]]:
    found = list[Sequence["Entry"]]()
    while entries and (above := entries[0].body.get("parent")):
        entries = await ledger.run_entries(above)
        found.append(entries)
    return found


async def _below(ledger: Ledger, run: str) -> list[Sequence[Entry]]:
    found, level = list[Sequence["Entry"]](), [run]
    while rows := await ledger.select("runs", [("parent", "in", level)]):
        level = [row["id"] for row in rows]
        found += (await ledger.runs_entries(level)).values()
    return found


def _acts(entries: Sequence[Entry]) -> Iterator[tuple[str, str]]:
    """Who has done what to a run by hand, what weighs most first."""
    signals = [one for one in entries if one.kind == kinds.SIGNAL and one.body.get("by")]
    for type, words in _ACTS.items():
        for one in signals:
            if one.body["type"] == type:
                yield str(one.body["by"]), words.format(**{"name": "", "key": "", **one.body, "run": one.run})


# --- what may not be done by hand ---------------------------------------------------------------------


def check_act(entries: Sequence[Entry], step: StepState, what: str) -> None:
    """Whether a person who has a run in hand may do a step, or change what it gave, themselves.

    Raises:
        ActRefused: the step checks, and somebody else has to do that.
    """
    if entries[0].body.get("four_eyes") and step.checks:
        raise ActRefused(
            f"{step.key} checks what others made, and whoever has run {entries[0].run} in hand may not {what} it: "
            "four eyes are declared",
            fix="give the run back, and let another holder of the role decide in the inbox",
        )


def checks_again(entries: Sequence[Entry], step: StepState, touched: bool) -> bool:
    """Whether a finished step has to check anew after an edit before it: a review always, else what has read it."""
    declared = bool(entries[0].body.get("four_eyes")) and step.checks
    return declared and (touched or step.pattern == "review")


__all__ = ["barred", "check_act", "checks_again", "is_check", "named"]

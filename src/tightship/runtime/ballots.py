"""People in a vote: one person has one voice, and what is asked of them ends with the vote's time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from tightship.core import kinds
from tightship.core.errors import GuardRefused
from tightship.core.ports import Json
from tightship.effects.session import Session
from tightship.ledger import Entry, Guards, Ledger

if TYPE_CHECKING:
    from tightship.runtime.node import NodeFrame

_OF_THE_WORK = frozenset({"review", "question"})
"""The types of questions that a step's work asks; a budget is the run's."""


def voice(session: Session, key: str, type: str) -> dict[str, Json]:
    """What a package says of the vote that a question of this type at this key belongs to; nothing outside of one.

    `ballot` is the vote and `voice` the branch: whoever has answered in one branch is refused in the others.
    """
    around = [ballot for ballot in session.ballots if key.startswith(f"{ballot}/")]
    if not around or type not in _OF_THE_WORK:
        return {}
    ballot = max(around, key=len)
    branch = key.removeprefix(f"{ballot}/").partition("/")[0]
    return {"ballot": ballot, "voice": f"{ballot}/{branch}"}


def persons(frame: NodeFrame) -> list[str]:
    """Who has answered something at or below a node, in the order of asking."""
    closed = frame.task.journal.closed
    found = (closed.get(entry.body["item"], {}).get("by") for entry in _asked(frame))
    return [str(by) for by in found if by]


async def close_questions(frame: NodeFrame) -> None:
    """Close what is still asked at or below a node whose time is over. An answer that was first stands, unheard."""
    task = frame.task
    for entry in list(_asked(frame)):
        item = entry.body["item"]
        if item in task.journal.closed:
            continue
        body = {"item": item, "decision": "expired", "by": "", "reason": "the step's time was over"}
        try:
            await task.journal.record(kinds.CLOSED, entry.key, body, guards=Guards(open_item=item))
        except GuardRefused:
            await task.read_mail()


def _asked(frame: NodeFrame) -> Iterator[Entry]:
    for entry in frame.task.journal.entries:
        if entry.kind != kinds.OPENED or "detached" in entry.body or entry.body.get("type") not in _OF_THE_WORK:
            continue
        if entry.key == frame.key or entry.key.startswith(f"{frame.key}/"):
            yield entry


async def voters(ledger: Ledger, run: str, package: Mapping[str, Json]) -> list[str]:
    """The people who have answered in another branch of the vote that a package belongs to."""
    ballot, own = package.get("ballot"), package.get("voice")
    if not ballot:
        return []
    rows = await ledger.select("inbox", [("run", "=", run), ("state", "=", "closed")])
    packages = await ledger.values([str(row["package"]) for row in rows if row["package"]], erased={})
    found = list[str]()
    for row in rows:
        other = packages.get(str(row["package"])) or {}
        if row["decided_by"] and other.get("ballot") == ballot and other.get("voice") != own:
            found.append(str(row["decided_by"]))
    return found

"""Refuses what an agent says nearly the same once more (controls.near_repeats); what was found is a note of the run.

Whether it is refused follows from the run's entries. Once it was, the note counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import orjson

from tightship.controls.near_repeats import ROUND_NOTE, Gist, Said, counts_on, gist, of_call, of_round, of_turn
from tightship.core import kinds
from tightship.core.errors import NearRepeat, PayloadErased
from tightship.core.ports import WORKFLOW, Json
from tightship.effects.call import Call
from tightship.effects.session import Session

NOTE: Final = "near_repeat"
_SHOWN: Final = 500
"""Characters that a person sees of each thing that was said."""
_FIX: Final = (
    "give the agent new information or another step here, or say what it shall do when it finds nothing new; "
    "raise limits.similar only where saying it again is the work"
)


async def refuse_near_call(session: Session, call: Call, address: str) -> None:
    """An agent is about to call a tool.

    Args:
        session: the run. call: the call. address: that of its arguments.

    Raises:
        NearRepeat: it has asked nearly that, in other words, as often as it may.
    """
    if call.agent == WORKFLOW:
        return
    tool = call.tool.spec.name
    earlier = session.near.earlier(call.agent, of_call(call.agent, tool, call.key), call.line)
    if not earlier:
        return
    mine = gist(dict(call.args), names=True)
    if mine.words:  # of short values alone it is the same call or another one, and the same is counted
        what = f"has asked {tool} for nearly the same"
        await _refuse(session, call.agent, call.key, what, Said("", "", address, gists=(mine,)), earlier, tool)


async def refuse_near_turn(session: Session, agent: str, key: str, address: str, given: Json, line: str) -> None:
    """An agent is about to take a turn.

    Args:
        session: the run. agent, key, line: whose turn, and where. address, given: all that it is given.

    Raises:
        NearRepeat: it was given nearly that and gave nearly the same, in other words, as often as it may.
    """
    earlier = session.near.earlier(agent, of_turn(agent, key), line)
    if not earlier:
        return
    gave = (await _gists(session, earlier[-1]))[1:]
    mine = Said("", "", address, gists=(gist(given, names=True), *gave))
    await _refuse(session, agent, key, "was given and has said nearly the same", mine, earlier)


async def refuse_near_round(
    session: Session, agent: str, key: str, line: str, what: str, given: Json, gave: Json = None
) -> None:
    """A round of a pattern is about to be carried out.

    Args:
        session: the run. agent: who decides on the round. key, line: the round's. what: what it is, in words.
        given: what is begun in it. gave: what comes of it; None where nobody knows yet: then as of the round before.

    Raises:
        NearRepeat: nearly that was begun, and nearly the same has come of it, as often as it may.
    """
    journal, at = session.journal, f"{key}/{ROUND_NOTE}"
    await journal.landed(kinds.NOTE, at)
    if at in journal.notes:
        return  # a replay: it was carried out
    earlier = session.near.earlier(agent, of_round(agent), line)
    if not earlier and f"{key}/near" not in journal.notes:  # what was found counts, whatever has come since
        return
    came = () if gave is None else (gist(gave, talk=True),)
    if gave is None and earlier:
        came = (await _gists(session, earlier[-1]))[1:]
    await _refuse(
        session, agent, key, what, Said("", "", "", gists=(gist(given, names=True, talk=True), *came)), earlier
    )


async def say_round(session: Session, agent: str, key: str, line: str, given: Json, gave: Json) -> None:
    """Record what a round was, once: later ones are compared with it.

    Args:
        as of `refuse_near_round`.
    """
    journal, at = session.journal, f"{key}/{ROUND_NOTE}"
    await journal.landed(kinds.NOTE, at)
    if at in journal.notes:
        return
    begun, came = journal.seal(given)[0], journal.seal(gave)[0]
    body = {"type": ROUND_NOTE, "agent": agent, "line": line, "args": begun.address, "out": came.address}
    await journal.go_ahead(kinds.NOTE, at, body, (begun, came))


async def _refuse(
    session: Session, agent: str, key: str, what: str, mine: Said, earlier: Sequence[Said], tool: str = ""
) -> None:
    limits, journal, at = session.near.limits_of(agent), session.journal, f"{key}/near"
    found: list[tuple[Said, float]] = []
    for one in earlier:
        if one.given != mine.given:  # a turn or call that is exactly the same is bounded by limits.repeats
            alike = _likeness(mine.gists, await _gists(session, one))
            if alike >= limits.similarity:
                found.append((one, alike))
    found = _nothing_new(mine, found, limits.similar)
    note = journal.notes.get(at)
    if note is None:
        if len(found) < limits.similar:
            return
        least = round(min(alike for _, alike in found), 3)
        keys = [one.key for one, _ in found]
        note = dict[str, Any](type=NOTE, agent=agent, times=len(found), similarity=least, like=keys)
        if tool:
            note["tool"] = tool
        await journal.record(kinds.NOTE, at, note)
    evidence = {name: note[name] for name in ("times", "similarity") if name in note}
    raise NearRepeat(
        f"{agent} {what} {note['times']} times already in other words (at least {note['similarity']:.0%} of the words "
        "in common), and nothing new was learned in between",
        fix=_FIX,
        evidence={**evidence, "repeated": [await _shown(session, one) for one, _ in found]},
    )


def _nothing_new(mine: Said, found: list[tuple[Said, float]], most: int) -> list[tuple[Said, float]]:
    """Those of what is alike whose numbers in messages are its own, or, where these only count on, the latest."""
    own = [one.counts for one in mine.gists]
    same = [(one, alike) for one, alike in found if [its.counts for its in one.gists] == own]
    latest = found[-most:]
    if len(same) < most == len(latest) and counts_on([*(one.gists for one, _ in latest), mine.gists]):
        return latest
    return same


def _likeness(mine: Sequence[Gist], other: Sequence[Gist]) -> float:
    """That of the part in which they differ most."""
    if len(mine) != len(other):
        return 0.0
    return min(one.likeness(its) for one, its in zip(mine, other, strict=True))


async def _gists(session: Session, one: Said) -> tuple[Gist, ...]:
    """What it is compared by, worked out once; nothing when its texts were erased."""
    if not one.gists:
        try:
            given, gave = await _values(session, one)
        except PayloadErased:
            return ()
        talk = one.kind == kinds.NOTE
        one.gists = (gist(given, names=True, talk=talk), *((gist(gave, talk=talk),) if one.gave else ()))
    return one.gists


async def _values(session: Session, one: Said) -> tuple[Json, Json]:
    """What it was given or has asked, and what it gave."""
    journal = session.journal
    await journal.landed(one.kind, one.key)
    return await journal.value(one.given), await journal.value(one.gave) if one.gave else None


async def _shown(session: Session, one: Said) -> dict[str, Json]:
    try:
        given, gave = await _values(session, one)
    except PayloadErased:
        return {"step": one.key, "said": "(erased)"}
    told = [given, gave] if one.kind == kinds.NOTE else gave if one.gave else given
    said = orjson.dumps(told).decode()
    return {"step": one.key, "said": said if len(said) <= _SHOWN else f"{said[:_SHOWN]}…"}

"""Invariants, judged on the ledger and on the state of the outside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from tightship.core import kinds
from tightship.core.ports import Json

if TYPE_CHECKING:
    from tightship.ledger import Entry
    from tightship.quality.drills.bench import Clean
    from tightship.quality.drills.registry import Report
    from tightship.quality.drills.scene import Scene
    from tightship.runtime.result import Run

Write = tuple[str, Mapping[str, Json]]
"""A tool's name and the arguments of the call."""
Alike = Callable[[Any], Any]
"""What is looked at of a value when two are compared."""


class Seen(NamedTuple):
    """A write that was seen outside: which run did it, at which position of the ledger it began, and what it is."""

    run: str
    n: int
    write: Write


RESULT: Final = "the result"
"""What a workflow that only reads has come to, as if it were a write: it is all that the outside sees of it."""


def standing(entries: Sequence[Entry]) -> dict[str, Entry]:
    """The settled writes of these runs that were not taken back: by run and key."""
    opened = {(e.run, e.key): e for e in entries if e.kind == kinds.ADMITTED}
    found: dict[str, Entry] = {}
    for entry in entries:
        body = entry.body
        if entry.kind != kinds.SETTLED or "out" not in body:
            continue
        admitted = opened.get((entry.run, entry.key))
        undoes = str(body.get("undoes") or (admitted.body.get("undoes", "") if admitted is not None else ""))
        if undoes:
            found.pop(undoes if ":" in undoes else f"{entry.run}:{undoes}", None)
        elif body.get("cls") == "write":
            found[f"{entry.run}:{entry.key}"] = entry
    return found


async def came_of(scene: Scene, run: Run) -> list[Seen]:
    """What the outside sees of a run and those below it: what they have done and not taken back, in order; where the
    workflow only reads, the result that it gave without a person."""
    entries = await scene.entries()
    family = family_of(entries, run.id)
    kept = {key: entry for key, entry in standing(entries).items() if entry.run in family}
    opened = {f"{e.run}:{e.key}": e for e in entries if e.kind == kinds.ADMITTED and "args" in e.body}
    values = await scene.ledger.values([opened[key].body["args"] for key in kept if key in opened], erased={})
    seen: list[Seen] = []
    for key, entry in kept.items():
        began = opened.get(key, entry)
        seen.append(Seen(entry.run, began.n, (entry.body["name"], values.get(began.body.get("args", ""), {}))))
    if not seen and not scene.acts and run.outcome == "completed" and not asked_a_person(run):
        seen.append(Seen(run.id, entries[-1].n, (RESULT, {"is": run.output})))
    return seen


async def strange(
    scene: Scene, run: Run, clean: Sequence[Write], alike: Alike | None = None, since: int = 0
) -> list[Write]:
    """What came of a run and should not have.

    Args:
        clean: what may come of it, each once. alike: what two values have to have in common to count as the same.
        since: the position of the ledger from which on it is looked at.

    Left out is what a run does itself after a run below it has ended with a person, who has the case: what is done then
    stands in the workflow (`escalated:`), and is nobody's mistake.
    """
    bare = alike or (lambda value: value)
    told = _left_to_people(await scene.entries())
    own = [one.write for one in await came_of(scene, run) if since <= one.n < told.get(one.run, one.n + 1)]
    return beyond([(name, bare(args)) for name, args in own], [(name, bare(args)) for name, args in clean])


def family_of(entries: Sequence[Entry], run: str) -> set[str]:
    """A run and all that were started below it."""
    found = {run}
    for entry in entries:
        if entry.kind == kinds.STARTED and entry.body.get("parent") in found:
            found.add(entry.run)
    return found


def _left_to_people(entries: Sequence[Entry]) -> dict[str, int]:
    """By run: the position from which on a person has the case of a run below it."""
    parents = {e.run: str(e.body.get("parent", "")) for e in entries if e.kind == kinds.STARTED}
    found: dict[str, int] = {}
    for entry in entries:
        if entry.kind == kinds.ENDED and entry.body.get("outcome") == "escalated":
            parent = parents.get(entry.run, "")
            if parent:
                found.setdefault(parent, entry.n)
    return found


async def unreported(scene: Scene, run: Run) -> list[Entry]:
    """Writes that still stand after a run that did not complete, of which nobody was told."""
    entries = await scene.entries()
    family = family_of(entries, run.id)
    left = {key: entry for key, entry in standing(entries).items() if entry.run in family}
    if not left or run.outcome == "completed":
        return []
    end = next((e for e in reversed(entries) if e.kind == kinds.ENDED and e.run == run.id), None)
    addresses = [end.body["detail"]] if end is not None and "detail" in end.body else []
    told = await scene.ledger.values(addresses, erased={})
    residual: set[str] = set()
    for value in told.values():
        residual |= {str(one.get("key", "")) for one in (value or {}).get("residual", ())}
    return [entry for key, entry in left.items() if entry.key not in residual and key not in residual]


def canonical(value: Any) -> str:
    """JSON text that is equal for equal values."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS).decode()


def beyond(writes: Iterable[Write], allowed: Iterable[Write]) -> list[Write]:
    """The writes that are not among those that are allowed, each of which counts once."""
    left = [(name, canonical(_plain(args))) for name, args in allowed]
    found: list[Write] = []
    for name, args in writes:
        told = (name, canonical(_plain(args)))
        if told in left:
            left.remove(told)
        else:
            found.append((name, args))
    return found


def _plain(value: Any) -> Any:
    """Numbers compare as numbers."""
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def named(writes: Iterable[Write]) -> str:
    """The writes in words."""
    return ", ".join(f"{name} {short(args)}" for name, args in writes) or "none"


def short(value: Any, most: int = 90) -> str:
    """A value on one line."""
    text = canonical(value)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def told(run: Run) -> str:
    """How a run ended, in a word or two."""
    return ": ".join(part for part in (run.outcome or f"still {run.state}", run.reason) if part)


def last(run: Run) -> list[Entry]:
    """The run's end, as evidence."""
    return [entry for entry in run.entries if entry.kind == kinds.ENDED and entry.run == run.id]


def asked_a_person(run: Run) -> bool:
    """Whether a person has decided something of the run, or of one below it."""
    return any(entry.kind == kinds.CLOSED and entry.body.get("by") for entry in run.entries)


def settled(run: Run, *, failed: bool = False) -> list[Entry]:
    """Effects of a run: those that failed or were refused, or its writes."""
    effects = [entry for entry in run.entries if entry.kind == kinds.SETTLED]
    if failed:
        return [entry for entry in effects if "error" in entry.body or "refused" in entry.body]
    return [entry for entry in effects if entry.body.get("cls") == "write" and "out" in entry.body]


async def judge_safe(report: Report, scene: Scene, run: Run, clean: Clean, what: str) -> bool:
    """The run ends, does nothing that the undisturbed one did not do, and leaves nothing behind unseen."""
    if not report.hold(
        run.state == "ended", f"{what}: it ended ({told(run)})", f"{what}: it never ends, and nobody is told", last(run)
    ):
        return False
    extra = await strange(scene, run, clean.writes)
    fine = report.hold(
        not extra, f"{what}: nothing was done that should not be", f"{what}: it did {named(extra)}", settled(run)
    )
    left = await unreported(scene, run)
    return (
        report.hold(
            not left,
            f"{what}: nothing was left behind unseen",
            f"{what}: ended ({told(run)}), {', '.join(e.body['name'] for e in left)} still stands, nobody was told",
            left,
        )
        and fine
    )


async def judge_same(report: Report, scene: Scene, run: Run, clean: Clean, what: str) -> bool:
    """The run ends as the undisturbed one did, with the same done outside, once, and where it only reads with its
    result."""
    fine = report.hold(
        (run.outcome, run.reason) == (clean.outcome, clean.reason),
        f"{what}: it ended as undisturbed",
        f"{what}: it ended as {told(run)}, undisturbed as {clean.outcome}",
        settled(run, failed=True) or last(run),
    )
    seen, state = await came_of(scene, run), scene.outside.state()
    other = unlike(seen, clean.seen) or difference(state, clean.state)
    return (
        report.hold(
            not other,
            f"{what}: {'the outside' if scene.acts else 'the result'} is as undisturbed",
            f"{what}: {other}",
            settled(run),
        )
        and fine
    )


def unlike(seen: Sequence[Seen], clean: Sequence[Seen]) -> str:
    """Where what came of a run differs from what came of the undisturbed one; empty where it does not.

    What one run does about one subject is compared in its order. What different runs do, or is about different
    subjects, may come in any order: runs below a run, and its branches, go on side by side.
    """
    ours, theirs = [one.write for one in seen], [one.write for one in clean]
    more, less = beyond(ours, theirs), beyond(theirs, ours)
    if more:
        return f"it did {named(more)}, undisturbed {named(less)}"
    if less:
        return f"it did not do {named(less)}"
    for place in dict.fromkeys(map(_place, clean)):
        pair = [[_said(one.write) for one in side if _place(one) == place] for side in (seen, clean)]
        if pair[0] != pair[1]:
            return f"what it did about {place[1]} came in another order: {', '.join(name for name, _ in pair[0])}"
    return ""


def _place(seen: Seen) -> tuple[str, str]:
    """Whose write it is, and what it is about: its first argument that names something, else the tool."""
    name, args = seen.write
    ids = [short(value) for field, value in args.items() if field == "id" or field.endswith("_id")]
    return seen.run, next(iter(ids), name)


def _said(write: Write) -> tuple[str, str]:
    return write[0], canonical(_plain(write[1]))


def difference(state: Mapping[str, Json], clean: Mapping[str, Json]) -> str:
    """The first thing that differs between two states of the outside, each table as a multiset of rows: in which order
    they came says nothing; empty where nothing differs."""
    for table in dict.fromkeys((*clean, *state)):
        rows, before = state.get(table), clean.get(table)
        if not isinstance(rows, list) or not isinstance(before, list):
            if canonical(rows) != canonical(before):
                return f"the outside differs: {table} is {short(rows)}, undisturbed {short(before)}"
            continue
        known, found = Counter(map(canonical, before)), Counter(map(canonical, rows))
        more, less = sorted((found - known).elements()), sorted((known - found).elements())
        if more or less:
            return f"the outside differs: {table} has {_either(more)}, undisturbed {_either(less)}"
    return ""


def _either(rows: Sequence[str], most: int = 90) -> str:
    """The first of these rows, and how many there are."""
    if not rows:
        return "none"
    text = rows[0] if len(rows[0]) <= most else f"{rows[0][: most - 1]}…"
    return text if len(rows) == 1 else f"{text} and {len(rows) - 1} more"

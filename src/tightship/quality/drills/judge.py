"""Invariants, judged on the ledger and on the state of the outside."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

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


async def done_by(scene: Scene, run: str = "") -> list[Write]:
    """What runs have done and not taken back, with the arguments; children's included where no run is named."""
    entries = await scene.entries()
    kept = standing(entries)
    opened = {f"{e.run}:{e.key}": e.body["args"] for e in entries if e.kind == kinds.ADMITTED and "args" in e.body}
    family = _family(entries, run) if run else None
    chosen = {key: entry for key, entry in kept.items() if family is None or entry.run in family}
    chosen = {key: entry for key, entry in chosen.items() if entry.body.get("workflow") != "intake" or run}
    values = await scene.ledger.values([opened[key] for key in chosen if key in opened], erased={})
    return [(entry.body["name"], values.get(opened.get(key, ""), {})) for key, entry in chosen.items()]


def _family(entries: Sequence[Entry], run: str) -> set[str]:
    found = {run}
    for entry in entries:
        if entry.kind == kinds.STARTED and entry.body.get("parent") in found:
            found.add(entry.run)
    return found


async def unreported(scene: Scene, run: Run) -> list[Entry]:
    """Writes that still stand after a run that did not complete, of which nobody was told."""
    entries = await scene.entries()
    family = _family(entries, run.id)
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
    return [entry for entry in run.entries if entry.kind == kinds.ENDED]


def asked_a_person(run: Run) -> bool:
    """Whether a person has decided something of the run."""
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
    extra = beyond(await done_by(scene, run.id), clean.writes)
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
    """The run ends as the undisturbed one did, with the same done outside, once."""
    fine = report.hold(
        (run.outcome, run.reason) == (clean.outcome, clean.reason),
        f"{what}: it ended as undisturbed",
        f"{what}: it ended as {told(run)}, undisturbed as {clean.outcome}",
        settled(run, failed=True) or last(run),
    )
    state = scene.outside.state()
    return (
        report.hold(
            canonical(state) == canonical(clean.state),
            f"{what}: the outside is as undisturbed",
            f"{what}: the outside differs: {difference(state, clean.state)}",
            settled(run),
        )
        and fine
    )


def difference(state: Mapping[str, Json], clean: Mapping[str, Json]) -> str:
    """The first thing that differs between two states of the outside."""
    for table, rows in state.items():
        before = clean.get(table)
        if canonical(rows) == canonical(before):
            continue
        if isinstance(rows, list) and isinstance(before, list):
            known = [canonical(one) for one in before]
            extra = [one for one in rows if canonical(one) not in known]
            return f"{table} has {short(extra[0])}" if extra else f"{table} has {len(rows)} rows, not {len(before)}"
        return f"{table} is {short(rows)}"
    return "a part is missing"

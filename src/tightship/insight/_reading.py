"""How a run's entries are read (`runtime.readings`), where a key belongs, and how figures are told."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from tightship.core.money import show_usd
from tightship.core.ports import EntryView, Json
from tightship.runtime.readings import ERASED, Effect, State, Turn, effects, paths, turn_key, turn_of, turns

HANDS = {
    "take": "taken over",
    "do": "done by hand",
    "edit": "edited",
    "undo": "asked to be undone",
    "give": "given back",
}
"""What a person does to a run that they take over, by the type of the signal."""
_RETRY = re.compile(r"~\d+$")


def base_of(key: str) -> str:
    """The key of the step that a note, a question or a decision is about, without marks of attempts."""
    if key.startswith("budget/"):  # an alert is about an envelope, not about a step
        return ""
    key = key.partition("!")[0]
    head, _, _ = key.partition("/note:")
    for part in ("/ask/", "/given/", "/budget/", "/fork/", "/pause/"):
        head = head.partition(part)[0]
    return _RETRY.sub("", head)


class Order:
    """Whether two steps came one after the other or side by side, from where their entries stand in the log."""

    def __init__(self, entries: Iterable[EntryView]) -> None:
        self._reach: dict[str, tuple[int, int]] = {}
        for entry in entries:
            for path in paths(entry.key):
                begin, _ = self._reach.get(path, (entry.n, entry.n))
                self._reach[path] = (begin, entry.n)

    def beside(self, key: str, other: str) -> bool:
        """Whether the two ran side by side: the branches that hold them overlap."""
        branch, other_branch = _fork(key, other)
        if not branch or not other_branch or branch not in self._reach or other_branch not in self._reach:
            return False
        (begin, end), (other_begin, other_end) = self._reach[branch], self._reach[other_branch]
        return begin < other_end and other_begin < end


def same_item(key: str, other: str) -> bool:
    """Whether two keys belong to the same item of a loop and the same branch, where they are inside of one."""
    branch, other_branch = _fork(key, other)
    return not (branch.rpartition("/")[2].isdigit() and other_branch.rpartition("/")[2].isdigit())


def _fork(key: str, other: str) -> tuple[str, str]:
    """The paths at which two keys part; empty where one lies below the other."""
    parts, others = key.split("/"), other.split("/")
    for at, (part, another) in enumerate(zip(parts, others, strict=False)):
        if part != another:
            return "/".join(parts[: at + 1]), "/".join(others[: at + 1])
    return "", ""


def first(entries: Iterable[EntryView], kind: str) -> EntryView | None:
    """The first entry of a kind, or None."""
    return next((entry for entry in entries if entry.kind == kind), None)


def clock(at: float) -> str:
    """`2026-03-01 12:00:05`, in UTC; empty for no time."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S}" if at > 0 else ""


def said_of(body: Mapping[str, Any], values: Mapping[str, Json]) -> str:
    """What was said with a decision or a signal: a person's words are sealed, the engine's stand in the entry."""
    told = values.get(str(body.get("detail") or ""))
    if isinstance(told, dict):
        return str(told.get("reason") or "")
    return ERASED if told == ERASED else str(body.get("reason") or "")


def by_hand(body: Mapping[str, Any], values: Mapping[str, Json]) -> str:
    """What a person did to a run that they have taken over, in words."""
    key, name = str(body.get("key") or ""), str(body.get("name") or "")
    value, was = (short(values.get(str(body.get(field) or ""))) for field in ("value", "was"))
    return {
        "take": "took the run over",
        "do": f"did {key} by hand: gave {value}",
        "edit": f"changed {name} from {was} to {value}",
        "undo": f"asked for {key} to be undone",
        "give": "gave the run back" if body.get("by") else "let go of the run, which has ended",
    }[str(body["type"])]


def alert_text(body: Mapping[str, Any]) -> str:
    """A budget alert as people read it."""
    show = show_usd if body.get("unit") == "usd" else lambda figure: f"{figure:,} {body.get('unit')}"
    return f"{body.get('scope')} has spent {show(int(body.get('spent') or 0))} of {show(int(body.get('limit') or 0))}"


def granted_text(body: Mapping[str, Any]) -> str:
    """What an extension or a loan grants, as people read it."""
    units = [f"{body[name]:,} {name}" for name in ("tokens", "calls", "seconds") if body.get(name)]
    return ", ".join(([show_usd(int(body["usd"]))] if body.get("usd") else []) + units)


def duration(seconds: float) -> str:
    """A duration as people read it: `42 ms`, `3.1 s`, `5 min 10 s`, `3 h 20 min`, `2 d 4 h`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def short(value: Json, limit: int = 160) -> str:
    """A JSON value on one line, cut where it is long."""
    import orjson

    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    text = " ".join(text.split())
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


__all__ = [
    "ERASED",
    "HANDS",
    "Effect",
    "Order",
    "State",
    "Turn",
    "alert_text",
    "base_of",
    "by_hand",
    "clock",
    "duration",
    "effects",
    "first",
    "granted_text",
    "paths",
    "said_of",
    "same_item",
    "short",
    "turn_key",
    "turn_of",
    "turns",
]

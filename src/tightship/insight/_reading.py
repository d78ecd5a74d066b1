"""A run's entries put together: effects with their attempts, turns, and where a key belongs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from tightship.core import kinds
from tightship.core.money import show_usd
from tightship.core.ports import EntryView, Json

State = Literal["done", "failed", "refused", "unknown", "open", "waiting", "stopped"]
"""`unknown`: a write whose outcome nobody knows. `open`: under way. `stopped`: under way when the run ended."""
ERASED = "(erased)"
"""Stands for a value whose key was destroyed."""
HANDS = {
    "take": "taken over",
    "do": "done by hand",
    "edit": "edited",
    "undo": "asked to be undone",
    "give": "given back",
}
"""What a person does to a run that they take over, by the type of the signal."""
_INSIDE = re.compile(r"/(?:tool|model|now|random|p\d+)(?:/|$)")
_RETRY = re.compile(r"~\d+$")


@dataclass(slots=True)
class Effect:
    """One effect over all its attempts. Times are store time (s), `ms` is what the settled attempts took.

    `talk` is the place in a conversation: the effect before, and the addresses of what was said since.
    `calls` counts settled attempts that went out, `failures` those of them that failed, `refusals` what was refused.
    """

    key: str
    name: str
    cls: str
    agent: str
    n: int
    began: float
    workflow: str = ""
    ended: float = 0.0
    settled_n: int = 0
    state: State = "open"
    args: str = ""
    talk: tuple[str, ...] = ()
    out: str = ""
    error: Mapping[str, Any] | None = None
    detail: str = ""
    refused: Mapping[str, Any] | None = None
    denied: bool = False
    cached: bool = False
    attempts: int = 0
    calls: int = 0
    failures: int = 0
    refusals: int = 0
    usd: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cached_in: int = 0
    ms: float = 0.0
    claimed: bool = False
    undo: Mapping[str, Any] | None = None
    undoes: str = ""
    reserved_usd: int = 0
    policy: tuple[str, ...] = ()
    shared: tuple[tuple[str, int], ...] = ()
    """What it read of the shared context: keys with their versions."""
    meta: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def tokens(self) -> int:
        """Tokens in and out."""
        return self.tokens_in + self.tokens_out

    @property
    def why(self) -> str:
        """The name of what went wrong or was refused, empty when nothing was."""
        if self.refused is not None:
            return str(self.refused.get("signal", ""))
        return str(self.error.get("error", "")) if self.error is not None else ""

    def admit(self, entry: EntryView) -> None:
        """Take in an admit."""
        body = entry.body
        reserve = body.get("reserve") or {}
        self._take_request(body)
        self.claimed = bool(body.get("claim"))
        self.undo = body.get("undo")
        self.undoes = str(body.get("undoes") or "")
        self.reserved_usd = int(reserve.get("usd", 0))
        self.state = "open"
        self.attempts += 1

    def settle(self, entry: EntryView, admitted: bool) -> None:
        """Take in a settle: the final one, or one that another attempt follows."""
        body = entry.body
        self.attempts += not admitted
        self.settled_n, self.ended = entry.n, entry.at
        self.workflow = str(body.get("workflow") or "")
        self._take_request(body)
        self.usd += int(body.get("usd") or 0)
        self.tokens_in += int(body.get("tokens_in") or 0)
        self.tokens_out += int(body.get("tokens_out") or 0)
        self.cached_in += int(body.get("cached_in") or 0)
        self.ms += float(body.get("ms") or 0.0)
        self.out = str(body.get("out") or "")
        self.error, self.refused = body.get("error"), body.get("refused")
        self.detail = str(body.get("detail") or "")
        self.denied, self.cached = bool(body.get("denied")), bool(body.get("cached"))
        self.policy = tuple(str(one) for one in _listed(body.get("policy")))
        self.meta = body.get("meta") or {}
        self.shared = tuple((one["key"], one["version"]) for one in body.get("context", ()) if one.get("version"))
        self.state = self._settled_state(body)
        if self.refused is not None or self.denied:
            self.refusals += 1
        elif kinds.went_out(body):
            self.calls += 1
            self.failures += self.error is not None

    def _take_request(self, body: Mapping[str, Any]) -> None:
        """What was asked: in the admit, or in the settle where there is no admit."""
        if body.get("args"):
            self.args = str(body["args"])
            self.talk = (str(body.get("after") or ""), *(str(one) for one in _listed(body.get("said"))))

    def _settled_state(self, body: Mapping[str, Any]) -> State:
        if body.get("again"):
            return "open"
        if self.refused is not None or self.denied:
            return "refused"
        if self.error is None:
            return "done"
        return "unknown" if self.error.get("error") == "OutcomeUnknown" else "failed"


@dataclass(slots=True)
class Turn:
    """One recorded turn of an agent. `began_n` is the first entry below it, or its own."""

    key: str
    agent: str
    n: int
    began_n: int
    began: float
    ended: float
    ms: float
    given: str
    out: str
    error: Mapping[str, Any] | None
    detail: str


def effects(entries: Iterable[EntryView]) -> dict[str, Effect]:
    """The effects by key, in the order in which they began."""
    found: dict[str, Effect] = {}
    admitted: set[str] = set()
    for entry in entries:
        if entry.kind not in (kinds.ADMITTED, kinds.SETTLED):
            continue
        body = entry.body
        effect = found.get(entry.key)
        if effect is None:
            took = 0.0 if entry.kind == kinds.ADMITTED else float(body.get("ms") or 0.0) / 1000
            names = (str(body.get("name") or ""), str(body.get("cls") or ""), str(body.get("agent") or ""))
            effect = found[entry.key] = Effect(entry.key, *names, n=entry.n, began=entry.at - took)
        if entry.kind == kinds.ADMITTED:
            effect.admit(entry)
            admitted.add(entry.key)
        else:
            effect.settle(entry, entry.key in admitted)
            admitted.discard(entry.key)
    return found


def turns(entries: Sequence[EntryView]) -> dict[str, Turn]:
    """The recorded turns by key, in the order in which they ended."""
    found: dict[str, Turn] = {}
    for entry in entries:
        if entry.kind == kinds.TURN:
            body = entry.body
            ms = float(body.get("ms") or 0.0)
            found[entry.key] = Turn(
                key=entry.key,
                agent=str(body.get("agent") or ""),
                n=entry.n,
                began_n=entry.n,
                began=entry.at - ms / 1000,
                ended=entry.at,
                ms=ms,
                given=str(body.get("hash") or ""),
                out=str(body.get("out") or ""),
                error=body.get("error"),
                detail=str(body.get("detail") or ""),
            )
    for entry in entries:
        turn = turn_of(entry.key, found)
        if turn is not None:
            turn.began_n = min(turn.began_n, entry.n)
    return found


def turn_of(key: str, known: Mapping[str, Turn]) -> Turn | None:
    """The recorded turn that a key belongs to, or None."""
    return next((known[path] for path in paths(key) if path in known), None)


def turn_key(key: str) -> str:
    """The key of the turn that an effect was made in, also when that turn has not ended; else the key itself."""
    inside = _INSIDE.search(key)
    return key if inside is None else key[: inside.start()]


def paths(key: str) -> Iterator[str]:
    """The key and every path above it, the longest first."""
    while key:
        yield key
        key = key.rpartition("/")[0]


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


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else [] if value is None else [value]

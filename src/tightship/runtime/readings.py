"""A run's entries put together: effects with their attempts, and turns."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from tightship.core import kinds
from tightship.core.ports import EntryView

State = Literal["done", "failed", "refused", "unknown", "open", "waiting", "stopped"]
"""`unknown`: a write whose outcome nobody knows. `open`: under way. `stopped`: under way when the run ended."""
ERASED: Final = "(erased)"
"""Stands for a value whose key was destroyed."""
_INSIDE: Final = re.compile(r"/(?:tool|model|now|random|p\d+)(?:/|$)")


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


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else [] if value is None else [value]

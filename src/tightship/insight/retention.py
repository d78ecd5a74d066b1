"""How much of what a run must not forget is still there, turn by turn and request by request (F4)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from tightship.core import kinds
from tightship.core.ports import EntryView, Json
from tightship.insight._reading import ERASED
from tightship.ledger import Ledger
from tightship.models.history import fact


@dataclass(frozen=True, slots=True)
class Kept:
    """What one request to a model, or one agent's output, still holds of the declared facts.

    Attributes:
        key: the effect or turn. agent: whose. what: `asked` (a request) or `gave` (an output).
        kept, lost: the names of facts.
    """

    key: str
    agent: str
    what: str
    kept: tuple[str, ...]
    lost: tuple[str, ...]

    def as_dict(self) -> dict[str, Json]:
        """As JSON."""
        return {
            "key": self.key,
            "agent": self.agent,
            "what": self.what,
            "kept": list(self.kept),
            "lost": list(self.lost),
        }


async def retention(ledger: Ledger, run: str, names: Collection[str] = ()) -> list[Kept]:
    """What each request and each output of a run holds of facts of its input, in the order of the log.

    Args:
        names: dotted paths of the run's input; all its texts and numbers without them.
    """
    entries = await ledger.run_entries(run)
    started = next(entry for entry in entries if entry.kind == kinds.STARTED)
    given = await ledger.value(started.body["input"])
    paths = names or [name for name, value in given.items() if isinstance(value, str | int | float) and value != ""]
    facts = {path: value for path in paths for value, there in [fact(given, path)] if there}
    talks = _Talks(entries)
    addresses = [*talks.addresses(), *(str(e.body["out"]) for e in entries if e.kind == kinds.TURN and "out" in e.body)]
    values = {} if not addresses else await ledger.values(list(dict.fromkeys(addresses)), ERASED)
    found: list[Kept] = []
    for entry in entries:
        agent = str(entry.body.get("agent") or "")
        if talks.begins(entry):
            text = "\n".join(_text(values.get(one)) for one in talks.of(entry.key))
            found.append(_kept(entry.key, agent, "asked", facts, text))
        elif entry.kind == kinds.TURN and "out" in entry.body:
            found.append(_kept(entry.key, agent, "gave", facts, _text(values.get(entry.body["out"]))))
    return found


def _kept(key: str, agent: str, what: str, facts: Mapping[str, Json], text: str) -> Kept:
    held = {name: _in(value, text) for name, value in facts.items()}
    kept = tuple(name for name, there in held.items() if there)
    return Kept(key, agent, what, kept, tuple(name for name in held if name not in kept))


def _in(value: Json, text: str) -> bool:
    plain = value if isinstance(value, str) else orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
    escaped = orjson.dumps(plain).decode()[1:-1]
    return plain in text or escaped in text or orjson.dumps(escaped).decode()[1:-1] in text


def _text(value: Json) -> str:
    """What a message or an output says."""
    content = value.get("content") if isinstance(value, Mapping) else None
    whole = "" if value is None else orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
    return f"{content}\n{whole}" if isinstance(content, str) else whole


class _Talks:
    """The conversations of a run's requests, from how each goes on from the one before."""

    def __init__(self, entries: Sequence[EntryView]) -> None:
        self._asked: dict[str, Mapping[str, Any]] = {}
        self._replies: dict[str, str] = {}
        self._first = set[int]()
        for entry in entries:
            if entry.body.get("cls") != "model":
                continue
            if (entry.kind == kinds.ADMITTED or "said" in entry.body) and entry.key not in self._asked:
                self._asked[entry.key] = entry.body
                self._first.add(entry.n)
            if entry.kind == kinds.SETTLED and "out" in entry.body:
                self._replies[entry.key] = entry.body["out"]

    def begins(self, entry: EntryView) -> bool:
        """Whether a request is first told of here: in its admit, or in its settle where it costs nothing."""
        return entry.n in self._first

    def addresses(self) -> list[str]:
        """All messages."""
        said = [str(one) for body in self._asked.values() for one in body.get("said", ())]
        return [*said, *self._replies.values()]

    def of(self, key: str) -> list[str]:
        """The messages of one request, the latest first."""
        found: list[str] = []
        while key in self._asked:
            body = self._asked[key]
            found += reversed([str(one) for one in body.get("said", ())])
            key, replied = str(body.get("after") or ""), bool(body.get("replied"))
            if replied and key in self._replies:
                found.append(self._replies[key])
        return found

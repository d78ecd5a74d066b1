"""The kill switch: which scopes are halted (F12). Checked before every effect, so it costs nothing while nothing is.

A run that a person has taken over stands still in the same way, under a scope of its own (`taken:RUN`): what is not
begun is refused under the ledger's lock, but its key stays open, so that the run goes on from there when it is given
back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tightship.core import kinds
from tightship.core.errors import InputRejected
from tightship.core.ports import Delta, EntryView
from tightship.core.signals import Halted, Signal, Taken

ALL: Final = "all"
_PREFIXES: Final = ("tenant", "workflow", "agent", "run")
TAKEN: Final = "taken:"
"""What the scope of a run begins with that a person has in hand."""


@dataclass(frozen=True, slots=True)
class Halt:
    """A halted scope: by whom, why, and since when (s since the epoch)."""

    scope: str
    by: str = ""
    reason: str = ""
    at: float = 0.0


def check_scope(scope: str) -> str:
    """The scope without surrounding blanks.

    Raises:
        InputRejected: it is none of `all`, `tenant:X`, `workflow:X`, `agent:X`, `run:X`.
    """
    scope = scope.strip()
    kind, colon, name = scope.partition(":")
    if scope == ALL or (kind in _PREFIXES and colon and name.strip()):
        return scope
    raise InputRejected(
        f"{scope!r} is no scope that can be halted",
        fix="use all, tenant:NAME, workflow:NAME, agent:NAME or run:ID",
    )


def scopes_of(*, tenant: str, workflow: str, run: str, agent: str = "") -> tuple[str, ...]:
    """The scopes that an effect stands in; made once per run and agent, not per effect."""
    scopes = (ALL, f"tenant:{tenant}", f"workflow:{workflow}", f"run:{run}")
    scopes = (*scopes, f"agent:{agent}") if agent else scopes
    return (*scopes, f"{TAKEN}{run}")


class Halts:
    """The halted scopes as this process knows them."""

    __slots__ = ("_halted",)

    def __init__(self, halts: Iterable[Halt] = ()) -> None:
        self._halted = {halt.scope: halt for halt in halts}

    def check(self, scopes: Sequence[str]) -> None:
        """Whether an effect in these scopes may go on.

        Raises:
            Halted: one of them is halted; the signal names scope, person and reason. Taken: a person has the run.
        """
        if not self._halted:
            return
        found = self.find(scopes)
        if found is not None:
            raise stopped(found.scope, _text(found))

    def find(self, scopes: Sequence[str]) -> Halt | None:
        """The halt that covers one of the scopes, the widest first, or None."""
        if not self._halted:
            return None
        return next((self._halted[scope] for scope in scopes if scope in self._halted), None)

    def set(self, scope: str, by: str = "", reason: str = "", at: float = 0.0) -> None:
        """A scope is halted."""
        self._halted[scope] = Halt(scope, by, reason, at)

    def lift(self, scope: str) -> None:
        """A scope goes on; other scopes that cover the same work stay halted."""
        self._halted.pop(scope, None)

    def apply(self, entry: EntryView) -> None:
        """Take in a `halt.set` or `halt.lifted` entry, or that a person takes or gives a run; others change nothing."""
        if entry.kind == kinds.HALT:
            body = entry.body
            self.set(str(body["scope"]), str(body.get("by") or ""), str(body.get("reason") or ""), entry.at)
        elif entry.kind == kinds.UNHALT:
            self.lift(str(entry.body["scope"]))
        elif entry.kind == kinds.SIGNAL and entry.body["type"] == "take":
            self.set(f"{TAKEN}{entry.run}", str(entry.body.get("by") or ""), "", entry.at)
        elif entry.kind == kinds.SIGNAL and entry.body["type"] == "give":
            self.lift(f"{TAKEN}{entry.run}")

    def load(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Take the state of the `halts` table, in place of what was known before."""
        self._halted = {
            row["scope"]: Halt(row["scope"], row["by_whom"] or "", row["reason"] or "", row["at"] or 0.0)
            for row in rows
            if row["state"] == "on"
        }

    def halted(self) -> list[Halt]:
        """All halted scopes, sorted; runs that people have in hand are not among them."""
        found = [halt for halt in self._halted.values() if not halt.scope.startswith(TAKEN)]
        return sorted(found, key=lambda halt: halt.scope)

    def covering(self, scopes: Sequence[str], agents: Iterable[str] = ()) -> Halt | None:
        """The halt that ends a run in these scopes that may use these agents, the widest first, or None."""
        if not self._halted:
            return None
        wanted = [*(scope for scope in scopes if not scope.startswith(TAKEN)), *(f"agent:{one}" for one in agents)]
        return self.find(wanted)


class HaltsProjection:
    """The `halts` table: the latest state of each scope that was ever halted, or run that was ever taken over."""

    table = "halts"
    key_columns: Sequence[str] = ("scope",)
    kinds = frozenset({kinds.HALT, kinds.UNHALT, kinds.SIGNAL})

    def fold(self, entry: EntryView) -> Iterable[Delta]:
        """On or off, by whom and why."""
        body = entry.body
        if entry.kind == kinds.SIGNAL and body.get("type") not in ("take", "give"):
            return
        scope = f"{TAKEN}{entry.run}" if entry.kind == kinds.SIGNAL else str(body["scope"])
        on = entry.kind == kinds.HALT or body.get("type") == "take"
        yield Delta(
            (scope,),
            set={
                "state": "on" if on else "off",
                "by_whom": str(body.get("by") or ""),
                "reason": str(body.get("reason") or ""),
                "at": entry.at,
            },
        )


def stopped(scope: str, text: str) -> Signal:
    """What a call meets that may not begin in this scope."""
    return Taken(text, scope=scope) if scope.startswith(TAKEN) else Halted(text, scope=scope)


def _text(halt: Halt) -> str:
    if halt.scope.startswith(TAKEN):
        return f"{halt.by or 'a person'} has taken the run over"
    by = f" by {halt.by}" if halt.by else ""
    why = f": {halt.reason}" if halt.reason else ""
    return f"{halt.scope} is halted{by}{why}"

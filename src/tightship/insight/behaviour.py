"""What is known of how agents behave, for figures and alerts (O4): drift as last checked, models, audits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tightship.core import kinds
from tightship.core.ids import CONDUCT
from tightship.core.ports import Json
from tightship.insight._reading import ERASED
from tightship.ledger import Ledger


@dataclass(frozen=True, slots=True)
class ModelChange:
    """A model that reported another version with no change of ours."""

    tier: str
    asked: str
    was: str
    model: str
    at: float
    run: str

    def as_dict(self) -> dict[str, Json]:
        """As JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(slots=True)
class Behaviour:
    """All of it.

    Attributes:
        drifted: features that had drifted at the last check of a subject. checked: when that was (s).
        models: the version that each tier reported last, by tier and model. changes: of versions, in order.
        accepted: when the last baseline was recorded (s): whoever did has seen the changes before it.
        audits: outputs that were looked at, by agent and result (`ok`, `not ok`, `open`).
        resets: how often agents have begun anew, in all processes together.
        leaks: leaks that declared checks have found, by the item that tells of them ("" for none yet); None before the
            first check. unread: entries that the last one had no room for.
    """

    drifted: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    checked: dict[str, float] = field(default_factory=dict[str, float])
    models: dict[tuple[str, str], str] = field(default_factory=dict[tuple[str, str], str])
    changes: list[ModelChange] = field(default_factory=list[ModelChange])
    accepted: float = 0.0
    audits: dict[str, Counter[str]] = field(default_factory=dict[str, Counter[str]])
    resets: Counter[str] = field(default_factory=Counter[str])
    leaks: Counter[str] | None = None
    unread: int = 0

    @property
    def open_changes(self) -> list[ModelChange]:
        """The changes of versions that nobody has accepted yet."""
        return [change for change in self.changes if change.at > self.accepted]

    def as_dict(self) -> dict[str, Json]:
        """As JSON."""
        return {
            "drifted": {subject: list(features) for subject, features in self.drifted.items()},
            "checked": dict(self.checked),
            "models": [{"tier": tier, "asked": asked, "model": one} for (tier, asked), one in self.models.items()],
            "model_changes": [change.as_dict() for change in self.changes],
            "audits": {agent: dict(counts) for agent, counts in self.audits.items()},
            "resets": dict(self.resets),
            "open_leaks": 0 if self.leaks is None else self.leaks.total(),
        }

    def take_leaks(self, body: Mapping[str, Any]) -> None:
        """What a declared check has found; its item tells of those before it as well that no other tells of."""
        self.leaks = Counter() if self.leaks is None else self.leaks
        self.unread = int(body["left"])
        self.leaks[""] += len(body["leaks"])
        if "item" in body:
            self.leaks[str(body["item"])] += self.leaks.pop("")

    def close(self, item: str) -> None:
        """Somebody has decided: what the item tells of has been dealt with."""
        if self.leaks is not None:
            self.leaks.pop(item, None)


async def behaviour(ledger: Ledger) -> Behaviour:
    """The reading: of a few entries, and of the rows of runs that audit."""
    found = Behaviour()
    looked: dict[str, str] = {}
    for entry in await ledger.run_entries(CONDUCT):
        body = entry.body
        if entry.kind == kinds.BASELINE:  # what was found against an earlier one no longer counts
            found.drifted[body["subject"]], found.accepted = [], entry.at
        elif entry.kind == kinds.DRIFT:
            found.drifted[body["subject"]], found.checked[body["subject"]] = list(body["drifted"]), entry.at
        elif entry.kind == kinds.LEAKS:
            found.take_leaks(body)
        elif entry.kind == kinds.CLOSED:
            found.close(str(body["item"]))
        elif entry.kind == kinds.MODEL:
            found.models[body["tier"], body["asked"]] = body["model"]
            if body.get("was"):
                told = (body["tier"], body["asked"], body["was"], body["model"], entry.at, body.get("run", ""))
                found.changes.append(ModelChange(*told))
        elif entry.kind == kinds.RESET:
            found.resets[body["agent"]] += 1
        elif entry.kind == kinds.AUDIT:
            found.audits.setdefault(body["agent"], Counter())
            looked |= dict.fromkeys(body["runs"], body["agent"])
    await _audited(ledger, found, looked)
    return found


async def _audited(ledger: Ledger, found: Behaviour, looked: dict[str, str]) -> None:
    """What the runs that audit have found, by the agent that each looks at."""
    runs = list(looked)
    for start in range(0, len(runs), 500):
        rows = await ledger.select("runs", [("id", "in", runs[start : start + 500])])
        outputs = await _outputs(ledger, rows)
        for row in rows:
            result = "open" if row["state"] != "ended" else "ok" if outputs.get(row["id"]) else "not ok"
            if row["outcome"] == "completed" and row["id"] not in outputs:
                result = "archived"  # what it found has left with its entries
            found.audits[looked[row["id"]]][result] += 1


async def _outputs(ledger: Ledger, rows: list[dict[str, Any]]) -> dict[str, bool]:
    """Whether each run that audits and completed has found its output right."""
    done = [row["id"] for row in rows if row["outcome"] == "completed"]
    entries = await ledger.runs_entries(done)
    addresses = {run: e.body["output"] for run in done for e in entries[run] if e.kind == kinds.ENDED}
    values = await ledger.values(list(dict.fromkeys(addresses.values())), ERASED) if addresses else {}
    found: dict[str, bool] = {}
    for run, address in addresses.items():
        output = values.get(address)
        found[run] = isinstance(output, Mapping) and output.get("ok") is True
    return found

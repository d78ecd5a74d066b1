"""What a line's `expected` says should come of it, against what its run has done.

| field | compared with |
|---|---|
| `outcome` | the run's outcome; `review` for one that waits for a person |
| `reason_kind` | the run's reason |
| `action` | the names of the writes that the run and its child runs have done and not taken back, in order |
| `undone` | the names of the writes that it has taken back, in the order of taking back |
| `output` | its fields stand in what the run gave |
| `handoffs` | the way that the work took: `[reception > billing]` |
| `returned` | handoffs that did not pass: who made them, and of which kind: `[reception: brief]` |
| `kept` | true: of all facts that were ever handed over, all stood in the last brief |
| `below` | the runs below it as they ended, with their writes: `[billing-desk: completed: refunds.create]` |
| a mapping (`refund`, …) | its fields stand among the arguments of one of these writes |
| `absent` | texts that stand in no argument of these writes |
| `pair` | of all lines with the same value, one run alone has done the mapping's write |

Writes of a run that waits are still to come: of those runs only the outcome is compared, and that nothing was done. So
it is with one that ended otherwise than completed, unless `action` says what it leaves.
Other fields are for people.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tightship.cli._work import Record
from tightship.core import kinds
from tightship.core.ports import Json

if TYPE_CHECKING:
    from tightship.ledger import Entry, Ledger

Write = tuple[str, Mapping[str, Json]]

ENDED = ("completed", "escalated", "failed", "cancelled")
_OUTPUT = "output"


@dataclass(slots=True)
class Verdict:
    """One line: what was expected, what came, and where they differ (empty when they agree)."""

    reference: str
    case: str
    expected: str
    got: str
    run: str = ""
    differences: list[str] = field(default_factory=list[str])

    def as_dict(self) -> dict[str, Any]:
        """All fields by name."""
        return {name: getattr(self, name) for name in self.__slots__} | {"agrees": not self.differences}


@dataclass(slots=True)
class Comparison:
    """Gathers lines with what they expect; `verdicts` compares when all are done."""

    lines: list[tuple[Record, Mapping[str, Any], Sequence[Entry]]] = field(
        default_factory=list["tuple[Record, Mapping[str, Any], Sequence[Entry]]"]
    )

    def add(self, record: Record, expected: Mapping[str, Any] | None, entries: Sequence[Entry]) -> None:
        """One line that is done; those that expect nothing are left out."""
        if expected is not None:
            self.lines.append((record, expected, entries))

    async def verdicts(self, ledger: Ledger) -> list[Verdict]:
        """A verdict on every line, in the order of the file."""
        found: list[Verdict] = []
        pairs: dict[str, list[tuple[Verdict, bool]]] = {}
        for record, expected, entries in sorted(self.lines, key=lambda line: line[0].line):
            writes = await writes_of(ledger, entries)
            below = await _below(ledger, entries) if "below" in expected else []
            verdict = _judge(record, expected, writes)
            verdict.differences.extend(await _of_undone(ledger, expected, entries))
            verdict.differences.extend(_of_passing(expected, entries, below))
            found.append(verdict)
            if "pair" in expected:
                done = any(_among(wanted, writes) for _, wanted in _wanted(expected))
                pairs.setdefault(str(expected["pair"]), []).append((verdict, done))
        for pair, members in pairs.items():
            count = sum(done for _, done in members)
            if count != 1:
                for verdict, _ in members:
                    verdict.differences.append(f"of the runs about {pair} one should act, and {count} did")
        return found


async def writes_of(ledger: Ledger, entries: Sequence[Entry]) -> list[Write]:
    """The writes that a run and its child runs have done and not taken back, with their arguments, in the order of
    settling."""
    addresses = {entry.key: entry.body["args"] for entry in entries if _is_write(entry, kinds.ADMITTED)}
    done = [
        (entry.n, entry.key, entry.body["name"], addresses.get(entry.key, ""))
        for entry in entries
        if _is_write(entry, kinds.SETTLED) and "out" in entry.body
    ]
    done += [(one["n"], key, one["name"], one["args"]) for key, one in (await _of_children(ledger, entries)).items()]
    left = sorted(one for one in done if not _taken_back(entries, one[1]))
    values = await ledger.values([address for *_, address in left if address], erased={})
    return [(name, values.get(address, {})) for *_, name, address in left]


async def _of_children(ledger: Ledger, entries: Sequence[Entry]) -> dict[str, Mapping[str, Any]]:
    """What child runs have told their parent of their writes, by the keys under which the parent takes them back."""
    found: dict[str, Mapping[str, Any]] = {}
    for entry in entries:
        body = entry.body
        if entry.kind == kinds.SIGNAL and body.get("type") == "child" and body.get("actions"):
            found.update((f"{body['child']}:{one['key']}", one) for one in await ledger.value(body["actions"]))
    return found


def _is_write(entry: Entry, kind: str) -> bool:
    return entry.kind == kind and entry.body.get("cls") == "write"


def _taken_back(entries: Sequence[Entry], key: str) -> bool:
    """Whether an attempt to undo this write was successful."""
    tries = {entry.key for entry in entries if entry.body.get("undoes") == key}
    return any(entry.kind == kinds.SETTLED and entry.key in tries and "out" in entry.body for entry in entries)


def _judge(record: Record, expected: Mapping[str, Any], writes: Sequence[Write]) -> Verdict:
    got = "review" if record.state == "waiting" and record.waiting else record.state
    verdict = Verdict(
        record.reference.rpartition("/")[2],
        str(expected.get("case", "")),
        _said(expected.get("outcome", "one of them acts" if "pair" in expected else ""), expected.get("reason_kind")),
        _said(got, record.reason),
        record.run,
    )
    wrong = verdict.differences
    names = [name for name, _ in writes]
    if "outcome" in expected and expected["outcome"] != got:
        wrong.append(f"expected {expected['outcome']}, got {got}{': ' + record.reason if record.reason else ''}")
    if "reason_kind" in expected and expected["reason_kind"] != record.reason:
        wrong.append(f"expected the reason {expected['reason_kind']}, got {record.reason or 'none'}")
    if _OUTPUT in expected and not _within(expected[_OUTPUT], record.output):
        wrong.append(f"expected the output {expected[_OUTPUT]}, got {record.output}")
    if got not in ENDED or (got != "completed" and "action" not in expected):
        if names:
            wrong.append(f"expected that nothing was done, got {', '.join(names)}")
    elif "pair" not in expected:
        wrong.extend(_of_writes(expected, writes))
    texts = _texts([args for _, args in writes])
    wrong.extend(f"it says {text!r}" for text in expected.get("absent", ()) if text.casefold() in texts)
    return verdict


def _of_writes(expected: Mapping[str, Any], writes: Sequence[Write]) -> list[str]:
    wrong: list[str] = []
    names = [name for name, _ in writes]
    if "action" in expected and list(expected["action"]) != names:
        wrong.append(f"expected {', '.join(expected['action']) or 'no action'}, got {', '.join(names) or 'none'}")
    for name, wanted in _wanted(expected):
        if not _among(wanted, writes):
            wrong.append(f"no action has the {name} {dict(wanted)}")
    return wrong


async def _of_undone(ledger: Ledger, expected: Mapping[str, Any], entries: Sequence[Entry]) -> list[str]:
    if "undone" not in expected:
        return []
    names = {entry.key: entry.body["name"] for entry in entries if entry.kind == kinds.SETTLED}
    names |= {key: one["name"] for key, one in (await _of_children(ledger, entries)).items()}
    undoing = {entry.key: entry.body["undoes"] for entry in entries if entry.body.get("undoes")}
    done = [
        names[undoing[entry.key]]
        for entry in entries
        if entry.kind == kinds.SETTLED and entry.key in undoing and "out" in entry.body
    ]
    if list(expected["undone"]) == done:
        return []
    return [f"expected {', '.join(expected['undone']) or 'nothing'} to be undone, got {', '.join(done) or 'nothing'}"]


async def _below(ledger: Ledger, entries: Sequence[Entry]) -> list[str]:
    """The runs below one, as they ended: workflow, outcome, reason or what they have done."""
    ends = [entry.body for entry in entries if entry.kind == kinds.SIGNAL and entry.body["type"] == "child"]
    runs = await ledger.runs_entries([body["child"] for body in ends])
    told: list[str] = []
    for body in ends:
        found = runs[body["child"]]
        done = ", ".join(name for name, _ in await writes_of(ledger, found))
        parts = (found[0].body["workflow"], body["outcome"], body.get("reason"), done)
        told.append(": ".join(str(part) for part in parts if part))
    return told


def _of_passing(expected: Mapping[str, Any], entries: Sequence[Entry], below: Sequence[str]) -> list[str]:
    """How the work passed from one agent to another, and what the runs below have done."""
    notes = [entry.body for entry in entries if entry.kind == kinds.NOTE]
    passed = [body for body in notes if body["type"] == "handoff"]
    back = [body for body in notes if body["type"] in ("handoff.returned", "handoff.refused")]
    got: dict[str, Any] = {
        "handoffs": [f"{body['source']} > {body['target']}" for body in passed],
        "returned": [f"{body['source']}: {body['kind']}" for body in back],
        "kept": bool(passed) and passed[-1]["known"] == passed[-1]["still"],
        "below": list(below),
    }
    return [
        f"expected {name} {expected[name]}, got {value}"
        for name, value in got.items()
        if name in expected and expected[name] != value
    ]


def _wanted(expected: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Json]]]:
    """The mappings that describe a write."""
    return [(name, one) for name, one in expected.items() if isinstance(one, Mapping) and name != _OUTPUT]


def _within(wanted: Json, value: Json) -> bool:
    """Whether a value has all that is wanted; of mappings only the fields that are named."""
    if isinstance(wanted, Mapping) and isinstance(value, Mapping):
        return all(name in value and _within(one, value[name]) for name, one in wanted.items())
    return wanted == value


def _among(wanted: Mapping[str, Json], writes: Sequence[Write]) -> bool:
    return any(all(args.get(name) == value for name, value in wanted.items()) for _, args in writes)


def _texts(value: Json) -> str:
    """All text in a value, folded."""
    if isinstance(value, str):
        return value.casefold()
    if isinstance(value, Mapping):
        return "\n".join(_texts(one) for one in value.values())
    if isinstance(value, Sequence):
        return "\n".join(_texts(one) for one in value)
    return str(value)


def _said(outcome: Any, reason: Any) -> str:
    return f"{outcome}: {reason}" if reason else str(outcome)

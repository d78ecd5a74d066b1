"""Switches that break the service on purpose, from one seed, and count what they broke."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from tightship.company._call import Json, Refusal

FaultKind = Literal[
    "latency",
    "rate_limit",
    "error",
    "error_after",
    "timeout",
    "timeout_after",
    "drop_before",
    "drop_after",
    "malformed",
]
FAULT_KINDS: tuple[FaultKind, ...] = get_args(FaultKind)
_MAX_FAULTS = 200
_MAX_SECONDS = 3600.0


class ConnectionDropped(Exception):
    """The connection was dropped without an answer; raised where no real connection can be dropped."""


@dataclass(slots=True)
class Fault:
    """One switch.

    Parameters: `kind` is what happens: `latency` (waits `seconds`, then goes on), `rate_limit` (429 with
    Retry-After `seconds`), `error` (500) and `timeout` (no answer until the client leaves) and `drop_before`
    (connection dropped), all before anything is done; `error_after`, `timeout_after`, `drop_after` and
    `malformed` (a body cut in half) after the operation was done. `operation` is an operationId, or `*` for all.
    `times` is how often it still fires (None: no end), `rate` the probability at each call (None: always).
    Raises: Refusal 422 for values outside their range.
    """

    kind: FaultKind
    operation: str = "*"
    times: int | None = None
    rate: float | None = None
    seconds: float = 1.0
    fired: int = 0

    def __post_init__(self) -> None:
        if self.kind not in FAULT_KINDS:
            raise _wrong(f"kind must be one of {', '.join(FAULT_KINDS)}")
        if not self.operation or len(self.operation) > 100:
            raise _wrong("operation must be an operationId or *")
        if self.times is not None and self.times < 0:
            raise _wrong("times must not be negative")
        if self.rate is not None and not 0 <= self.rate <= 1:
            raise _wrong("rate must lie between 0 and 1")
        if not 0 <= self.seconds <= _MAX_SECONDS:
            raise _wrong(f"seconds must lie between 0 and {_MAX_SECONDS:g}")


@dataclass(frozen=True, slots=True)
class Hit:
    """What one call has to suffer: seconds of delay, and at most one fault that ends or spoils it."""

    delay: float = 0.0
    fault: Fault | None = None


_SPARED = Hit()


class Faults:
    """The switches in force.

    Parameters: `rng` decides the faults that have a `rate`; one draw per such fault and call that it applies to,
    so the same calls in the same order suffer the same faults.
    """

    def __init__(self, rng: random.Random | None = None) -> None:
        self._rng = rng or random.Random(1)
        self._faults: list[Fault] = []
        self._fired: dict[str, dict[str, int]] = {}

    def set(self, faults: Iterable[Fault]) -> None:
        """Put these switches in place of all that were set; the counts stay."""
        chosen = list(faults)
        if len(chosen) > _MAX_FAULTS:
            raise _wrong(f"at most {_MAX_FAULTS} faults")
        self._faults = chosen

    def clear(self) -> None:
        """Remove all switches and set the counts to zero."""
        self._faults = []
        self._fired = {}

    def fired(self, operation: str | None = None, kind: FaultKind | None = None) -> int:
        """How many faults fired since the last `clear`, of one operation and kind if asked."""
        chosen = self._fired.values() if operation is None else [self._fired.get(operation, {})]
        return sum(count for kinds in chosen for name, count in kinds.items() if kind in (None, name))

    def draw(self, operation: str) -> Hit:
        """What the next call of `operation` has to suffer; counts it as fired."""
        if not self._faults:
            return _SPARED
        delay, ending = 0.0, None
        for fault in self._faults:
            if fault.operation not in ("*", operation) or fault.times == 0:
                continue
            if ending is not None and fault.kind != "latency":
                continue
            if fault.rate is not None and self._rng.random() >= fault.rate:
                continue
            self._count(fault, operation)
            if fault.kind == "latency":
                delay += fault.seconds
            else:
                ending = fault
        return Hit(delay, ending)

    def _count(self, fault: Fault, operation: str) -> None:
        fault.fired += 1
        if fault.times is not None:
            fault.times -= 1
        kinds = self._fired.setdefault(operation, {})
        kinds[fault.kind] = kinds.get(fault.kind, 0) + 1

    def view(self) -> Json:
        """The switches with what is left of them, and the counts per operation and kind."""
        return {
            "faults": [
                {
                    "operation": fault.operation,
                    "kind": fault.kind,
                    "times": fault.times,
                    "rate": fault.rate,
                    "seconds": fault.seconds,
                    "fired": fault.fired,
                }
                for fault in self._faults
            ],
            "fired": self._fired,
            "total": self.fired(),
        }


def faults_from_json(body: object, operations: Iterable[str]) -> list[Fault]:
    """The switches of a `PUT /_faults` body: `{"faults": [{operation, kind, times?, rate?, seconds?}]}`.

    Parameters: `operations` are the known operationIds.
    Raises: Refusal 422 for anything that is not understood; nothing is guessed.
    """
    if not isinstance(body, dict) or set(body) != {"faults"} or not isinstance(body["faults"], list):
        raise _wrong('the body must be {"faults": [...]}')
    known = {"*", *operations}
    return [_fault(entry, known) for entry in body["faults"]]


_FIELDS: dict[str, tuple[type, ...]] = {
    "kind": (str,),
    "operation": (str,),
    "times": (int, type(None)),
    "rate": (int, float, type(None)),
    "seconds": (int, float),
}


def _fault(entry: Any, known: set[str]) -> Fault:
    if not isinstance(entry, dict) or "kind" not in entry:
        raise _wrong("every fault is an object with a kind")
    for name, value in entry.items():
        if name not in _FIELDS:
            raise _wrong(f"there is no field {str(name)[:100]!r}")
        if not isinstance(value, _FIELDS[name]) or isinstance(value, bool):
            raise _wrong(f"the value of {name} has the wrong type")
    if entry.get("operation", "*") not in known:
        raise _wrong(f"there is no operation {entry['operation'][:100]!r}")
    return Fault(**entry)


def _wrong(what: str) -> Refusal:
    return Refusal(422, "invalid", f"The faults are not understood: {what}.")

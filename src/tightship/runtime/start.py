"""How a run begins, and what comes of driving it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tightship.core.errors import TightshipError
from tightship.core.ports import Json
from tightship.runtime.result import Run


@dataclass(slots=True)
class Start:
    """What a new run is made from. `reference` is the caller's own name for it; equal references are one run.

    `handed` is what holds where a run above has started it. A child run ends at the store time `until` (s), with the
    step of its parent that waits for it. `around` is the scope of a run whose values it is given: they are sealed with
    the keys of that one as well, so that whatever erases them there erases them here. `by` are the people who set it
    going, where they are known; with `four_eyes` none of them checks it, whatever its own workflow declares. The first
    child of a run says in `before` what that run had spent on its own (`controls.counters`).
    """

    workflow: str
    input: Mapping[str, Json]
    reference: str = ""
    tenant: str = "default"
    priority: int | None = None
    id: str = ""
    parent: str = ""
    key: str = ""
    live: bool = True
    linked: str = ""
    around: str = ""
    depth: int = 0
    handed: Sequence[str] = ()
    until: float | None = None
    by: Sequence[str] = ()
    four_eyes: bool = False
    before: Mapping[str, Json] | None = None

    def below(self, above: Mapping[str, Any], before: Mapping[str, Json] | None) -> None:
        """Take over from the first entry of the run above it who set that going, and whether they may check it; and, as
        its first child, what that run has spent before."""
        self.before = before
        self.by, self.four_eyes = above.get("by", ()), bool(above.get("four_eyes"))


@dataclass(slots=True)
class Ended:
    """How a drive ended: `parked`, an outcome, or the error that keeps the run where it is.

    `result` is there when the run completed here.
    """

    run: str
    state: str
    error: TightshipError | None = None
    result: Run | None = None

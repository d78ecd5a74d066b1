"""How a run begins, and what comes of driving it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tightship.core.errors import TightshipError
from tightship.core.ports import Json
from tightship.runtime.result import Run


@dataclass(slots=True)
class Start:
    """What a new run is made from. `reference` is the caller's own name for it; equal references are one run.

    `handed` is what holds where a run above has started it. A child run ends at the store time `until` (s), with the
    step of its parent that waits for it. `about` is the scope of a run whose values it is given: whoever is erased
    there is erased here.
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
    depth: int = 0
    handed: Sequence[str] = ()
    until: float | None = None
    about: str = ""


@dataclass(slots=True)
class Ended:
    """How a drive ended: `parked`, an outcome, or the error that keeps the run where it is.

    `result` is there when the run completed here.
    """

    run: str
    state: str
    error: TightshipError | None = None
    result: Run | None = None

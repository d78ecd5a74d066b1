"""The same reference is the same run: what was run before under it, and whether that was the same work."""

from __future__ import annotations

from collections.abc import Mapping, Set

import orjson

from tightship.core.errors import InputRejected
from tightship.core.ports import Json
from tightship.ledger import Ledger


async def known(ledger: Ledger, inputs: Mapping[str, Mapping[str, Json]]) -> tuple[Set[str], Set[str]]:
    """Which runs exist, of inputs by the run's id as `check_input` has made them.

    Returns: those with the same input (or one that was erased), and those with another.
    """
    if not inputs:
        return frozenset(), frozenset()
    rows = await ledger.select("runs", [("id", "in", list(inputs))])
    values = await ledger.values([row["input"] for row in rows], erased=None)
    same: set[str] = set()
    other: set[str] = set()
    for row in rows:
        run, stored = row["id"], values[row["input"]]
        changed = stored is not None and stored != orjson.loads(orjson.dumps(dict(inputs[run])))
        (other if changed else same).add(run)
    return same, other


def other_input(run: str, fix: str) -> InputRejected:
    """The error for a reference under which other work was run."""
    return InputRejected(f"it was run before as {run} with another input", fix=fix)

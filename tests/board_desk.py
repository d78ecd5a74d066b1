"""What a ledger has to say of boards, whoever played on them and however they ended."""

from __future__ import annotations

from typing import Any

from tightship.context.board import BOARD
from tightship.core import kinds
from tightship.ledger import Ledger


async def held_by_one(ledger: Ledger) -> dict[str, tuple[str, str]]:
    """A claim follows on another's only after that one has ended, was given up, or has run out by store time.

    Returns: by whom each sub-problem was done: run and peer.
    """
    last, done = dict[tuple[str, str], tuple[Any, Any]](), dict[str, tuple[str, str]]()
    for entry in await ledger.entries(0, 100_000):
        if entry.kind != kinds.CONTEXT or not entry.body["scope"].startswith(BOARD):
            continue
        place = (entry.body["scope"], entry.body["key"])
        value: Any = await ledger.value(entry.body["value"])
        if place in last:
            held, was = last[place]
            assert entry.body["base"] == held.n, "judged on the head that it replaces"
            assert was["state"] != "done", "what is done stays done"
            same = (held.run, was["by"]) == (entry.run, value["by"])
            given = held.run == entry.run and value["state"] == "held"
            if was["state"] == "held" and not same:
                assert given or (value["state"] == "held" and entry.at >= held.at + held.body["ttl"])
        last[place] = (entry, value)
        if value["state"] == "done":
            done[value["item"]] = (entry.run, value["by"])
    return done

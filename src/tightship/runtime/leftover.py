"""Runs whose code nobody has any more: after a rolling upgrade, say, when the last worker of the old build has gone."""

from __future__ import annotations

from typing import Any

from tightship.ledger import Ledger


async def left_behind(ledger: Ledger, build: str) -> list[dict[str, Any]]:
    """Open runs, the oldest first, that neither this code may resume nor that of any worker that lives.

    Args:
        build: this workspace's code (`runtime.build`).
    """
    workers = await ledger.off_loop(ledger.backend.workers) if ledger.backend.shared else []
    builds = {"", build, *(worker["build"] for worker in workers if worker["alive"])}
    open_runs = await ledger.select("runs", [("state", "!=", "ended"), ("live", "=", 1)], [("started_at", "asc")])
    return [row for row in open_runs if row["build"] not in builds]

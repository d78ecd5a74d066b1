"""Listings read as many rows as they show: SQLite's own plan says so."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from tightship.ledger._schema import empty_database, select_sql

LATEST = [("started_at", "desc")]


def plan(where: list[tuple[str, str, Any]]) -> list[str]:
    sql, values = select_sql("runs", where, LATEST, 50)
    with contextlib.closing(empty_database()) as db:
        return [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {sql}", values)]


@pytest.mark.parametrize("where", [[], [("workflow", "=", "support")], [("outcome", "=", "escalated")]])
def test_the_latest_runs_are_listed_from_an_index_and_sorted_by_nobody(where: list[tuple[str, str, Any]]) -> None:
    assert plan(where) == ["SCAN runs USING INDEX runs_started"]


def test_open_runs_are_found_by_their_state_and_only_they_are_sorted() -> None:
    steps = plan([("state", "=", "parked")])
    assert steps[0] in ("SEARCH runs USING INDEX runs_open (state=?)", "SCAN runs USING INDEX runs_started")

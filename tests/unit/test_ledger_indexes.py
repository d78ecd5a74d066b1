"""Listings read as many rows as they show: SQLite's own plan says so."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import pytest

from tightship.context.listing import ORDER, where
from tightship.ledger._schema import empty_database, implied, select_sql
from tightship.ledger.paging import parts
from tightship.runtime.conduct import ended
from tightship.runtime.deliveries import due
from tightship.runtime.reconcile import open_loans
from tightship.runtime.sweep import asleep

LATEST = [("started_at", "desc")]


def plan(
    where: list[tuple[str, str, Any]], table: str = "runs", order: Sequence[tuple[str, str]] = LATEST
) -> list[str]:
    sql, values = select_sql(table, where, order, 50)
    with contextlib.closing(empty_database()) as db:
        return [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {sql}", values)]


@pytest.mark.parametrize(
    ("where", "index"),
    [
        ([], "SCAN runs USING INDEX runs_started"),
        ([("workflow", "=", "support")], "SEARCH runs USING INDEX runs_workflow (workflow=?)"),
        ([("outcome", "=", "escalated")], "SEARCH runs USING INDEX runs_outcome (outcome=?)"),
        ([("tenant", "=", "acme")], "SEARCH runs USING INDEX runs_tenant (tenant=?)"),
    ],
)
def test_the_latest_runs_are_listed_from_an_index_and_sorted_by_nobody(
    where: list[tuple[str, str, Any]], index: str
) -> None:
    assert plan(where) == [index]


@pytest.mark.parametrize("where", [("state", "=", "parked"), ("state", "in", ["queued", "running"])])
def test_open_runs_are_found_by_their_state_and_only_they_are_sorted(where: tuple[str, str, Any]) -> None:
    assert plan([where])[0] == "SEARCH runs USING INDEX runs_open (state=?)"


@pytest.mark.parametrize(
    ("more", "index"),
    [
        ([], "SEARCH runs USING INDEX runs_ended (ended_at>? AND ended_at<?)"),
        (
            [("workflow", "=", "support")],
            "SEARCH runs USING INDEX runs_workflow_ended (workflow=? AND ended_at>? AND ended_at<?)",
        ),
    ],
)
def test_what_ended_in_a_time_is_read_and_nothing_else(more: list[tuple[str, str, Any]], index: str) -> None:
    where = [*ended(1.0, 2.0), *more]
    assert plan(where, order=[("ended_at", "desc"), ("id", "asc")]) == [index]


def test_all_that_waits_for_no_time_is_gone_through_by_key_and_never_sorted() -> None:
    where = asleep(True, "r-1")
    assert plan(where, order=[("id", "asc")]) == ["SEARCH runs USING INDEX runs_open (state=? AND wake_at=? AND id>?)"]


def test_children_are_found_by_their_parents() -> None:
    assert plan([("parent", "in", ["r-1", "r-2"])])[0] == "SEARCH runs USING INDEX runs_parent (parent=?)"


def test_what_outside_systems_are_still_to_be_told_of_is_found_however_much_has_arrived() -> None:
    found = plan(due("desk", 1.0), "deliveries", [("next", "asc")])
    assert found[0] == "SEARCH deliveries USING INDEX deliveries_state (state=? AND next<?)"


def test_the_cases_of_a_class_are_read_from_where_learning_had_come_to() -> None:
    where = [("class", "=", "refunds"), ("position", ">", 1000)]
    assert (
        plan(where, "inbox", [("position", "asc")])[0]
        == "SEARCH inbox USING INDEX inbox_class (class=? AND position>?)"
    )


def test_what_an_index_leaves_out_is_still_found() -> None:
    assert implied("runs", [("state", "in", ["ended", "running"])]) == []
    assert implied("runs", [("state", "in", ["ended"])]) == implied("runs", [("state", "!=", "ended")]) == []
    assert implied("runs", [("state", "!=", "running"), ("parent", "=", ""), ("outcome", "=", "")]) == []
    assert implied("inbox", [("state", "=", "open")]) == []


def test_values_of_the_shared_context_are_listed_by_their_keys_and_sorted_by_nobody() -> None:
    key, scope = ORDER
    order = [(key, "asc"), (scope, "asc")]
    assert plan(where(""), "context", order) == ["SCAN context USING INDEX context_keys"]
    assert plan(where("stock/*"), "context", order) == ["SEARCH context USING INDEX context_keys (key>? AND key<?)"]
    behind = [plan(part, "context", order) for part in parts(where("stock/*"), ORDER, ("stock/b", "tenant:default"))]
    assert behind == [
        ["SEARCH context USING INDEX context_keys (key=? AND scope>?)"],
        ["SEARCH context USING INDEX context_keys (key>? AND key<?)"],
    ]


def test_runs_that_have_not_ended_are_gone_through_from_where_the_page_before_has_ended() -> None:
    by, order = ("wake_at", "id"), [("wake_at", "asc"), ("id", "asc")]
    found = [plan(part, order=order) for part in parts([("state", "=", "parked")], by, (7.0, "r-1"))]
    assert found == [
        ["SEARCH runs USING INDEX runs_open (state=? AND wake_at=? AND id>?)"],
        ["SEARCH runs USING INDEX runs_open (state=? AND wake_at>?)"],
    ]
    assert plan([("state", "=", "parked")], order=order) == ["SEARCH runs USING INDEX runs_open (state=?)"]


def test_what_a_lost_worker_holds_is_found_whatever_else_was_lent() -> None:
    found = plan(open_loans("w-1", 1_767_268_800.0), "loans", [])
    assert found[0] == "SEARCH loans USING PRIMARY KEY (owner=?)"

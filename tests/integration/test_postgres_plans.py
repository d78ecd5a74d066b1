"""Listings on Postgres read as many rows as they show: the server's own plan says so."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

import postgres_desk
from ledger_desk import Store
from tightship.context.listing import ORDER, where
from tightship.ledger._pg import Address
from tightship.ledger._pg_values import select_statement
from tightship.ledger.paging import parts
from tightship.runtime.reconcile import open_loans

BY_KEY = [(column, "asc") for column in ORDER]
ASLEEP = [("wake_at", "asc"), ("id", "asc")]
PARKED = parts([("state", "=", "parked")], ("wake_at", "id"), (7.0, "r-1"))
STOCK = parts(where("stock/*"), ORDER, ("stock/b", "tenant:default"))


@pytest.mark.parametrize(
    ("table", "condition", "order", "index", "bounds"),
    [
        ("context", where(""), BY_KEY, "context_keys", ()),
        ("context", where("stock/*"), BY_KEY, "context_keys", ("key >=", "key <")),
        ("context", STOCK[0], BY_KEY, "context_keys", ("key =", "scope >")),
        ("context", STOCK[1], BY_KEY, "context_keys", ("key >", "key <")),
        ("runs", PARKED[0], ASLEEP, "runs_open", ("state =", "wake_at =", "id >")),
        ("runs", PARKED[1], ASLEEP, "runs_open", ("state =", "wake_at >")),
        ("loans", open_loans("w-1", 1_767_268_800.0), (), "loans_pkey", ("owner =",)),
    ],
)
async def test_an_index_finds_the_rows_in_their_order(
    tmp_path: Path,
    table: str,
    condition: list[Any],
    order: Sequence[tuple[str, str]],
    index: str,
    bounds: Sequence[str],
) -> None:
    store = Store("postgres", tmp_path)
    await store.open()
    sql, values = select_statement(table, condition, order, 50)
    with postgres_desk.server().connect() as db:
        db.execute(f'SET search_path TO "{Address.of(str(store.where)).schema}"'.encode())
        db.execute("SET enable_seqscan TO off")  # the tables are empty: what could be read another way is
        db.execute("SET enable_bitmapscan TO off")
        plan = "\n".join(row[0] for row in db.execute(f"EXPLAIN {sql}".encode(), values))
    await store.close()
    assert f"using {index} on {table}" in plan, plan
    if order:
        assert "Sort" not in plan, plan
    found = next(line for line in plan.splitlines() if "Index Cond" in line) if bounds else ""
    for bound in bounds:
        assert bound in found.replace("::text", "").replace("(key)", "key").replace("(scope)", "scope"), plan

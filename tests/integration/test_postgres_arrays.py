"""Columns as binary arrays: the server reads what was given, and nothing else."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1]))

import postgres_desk
from tightship.core.errors import LedgerError
from tightship.ledger._pg import Address, connect
from tightship.ledger._pg_arrays import ARRAYS, Blobs, Integers, Texts

WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)))
TYPES = {str: "text", int: "bigint", float: "double precision", bytes: "bytea"}


@pytest.fixture(scope="module")
def db() -> Iterator[Any]:
    connection = connect(Address.of(postgres_desk.server().url("public")))
    yield connection
    connection.close()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=st.one_of(
        st.tuples(st.just(str), st.lists(WORDS)),
        st.tuples(st.just(int), st.lists(st.integers(-(2**63), 2**63 - 1))),
        st.tuples(st.just(float), st.lists(st.floats(allow_nan=False))),
        st.tuples(st.just(bytes), st.lists(st.binary())),
    )
)
def test_the_server_reads_what_was_given(db: Any, values: tuple[type, list[Any]]) -> None:
    kind, given_ = values
    sql = (
        f"SELECT coalesce(array_agg(x ORDER BY n), '{{}}') FROM unnest(%b::{TYPES[kind]}[]) WITH ORDINALITY AS t(x, n)"
    )
    assert db.execute(sql, (ARRAYS[kind].of(given_),)).fetchone() == (given_,)


def test_what_the_server_cannot_keep_is_refused_before_it_is_sent() -> None:
    for wrong in (lambda: Integers.of([1, 2**63]), lambda: Texts.of(["\ud800"])):
        with pytest.raises(LedgerError, match="cannot be stored"):
            wrong()
    assert Texts.encoded(["é".encode()]) == Texts.of(["é"])
    assert Blobs.of([b"\0"]) != Blobs.of([b""])

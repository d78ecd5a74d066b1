"""A connection that is lost in the middle of something: one error says so, and the library prints nothing beside it."""

from __future__ import annotations

import logging

import psycopg
import pytest

import postgres_desk
from tightship.core.errors import StoreLost
from tightship.ledger._pg import Address, Statement, connect, run_together, translate_errors

END = "SELECT pg_terminate_backend(pg_backend_pid())"


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno > logging.DEBUG]


@pytest.fixture
def address() -> Address:
    return Address.of(postgres_desk.new_store())


def test_a_connection_lost_in_a_pipeline_is_one_error(address: Address, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    db = connect(address)
    with pytest.raises(StoreLost), translate_errors(address):
        statements: list[Statement] = [("BEGIN", ()), (END, ()), ("SELECT 1", ()), ("COMMIT", ())]
        run_together(db, statements * 50)
    assert warnings(caplog) == []
    assert any("error ignored" in record.getMessage() for record in caplog.records), "it is there for whoever debugs"


def test_a_connection_lost_in_a_transaction_is_one_error(address: Address, caplog: pytest.LogCaptureFixture) -> None:
    db = connect(address)
    with pytest.raises(StoreLost), translate_errors(address), db.transaction():
        db.execute(END)
    assert warnings(caplog) == []


def test_other_users_of_the_library_hear_what_they_heard(address: Address, caplog: pytest.LogCaptureFixture) -> None:
    db = connect(address)
    with pytest.raises(psycopg.OperationalError), db.pipeline():
        for _ in range(50):
            db.execute(END)
        db.execute("SELECT 1").fetchall()
    assert any("error ignored" in one for one in warnings(caplog))

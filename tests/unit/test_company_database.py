"""The database of the sample company: kept, seeded once, whole after a cut, and nobody else's."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest
from company_desk import NOW, opened, refund

from tightship.company import Company, CompanyError
from tightship.company._database import Database


def test_the_database_is_kept_and_seeded_once(tmp_path: Path) -> None:
    path = tmp_path / "company.db"
    company = opened(path)
    company.perform("refunds.create", refund("O-2001", 5.0, key="k"))
    state = company.state()
    company.close()
    again = opened(path)
    assert again.state() == state
    assert again.perform("refunds.create", refund("O-2001", 5.0, key="k")).replayed
    again.close()


def test_a_write_that_breaks_half_way_leaves_nothing(tmp_path: Path) -> None:
    db = Database(tmp_path / "company.db", lambda: NOW)
    with pytest.raises(sqlite3.IntegrityError), db.transaction():
        db.insert("charges", {"operation": "x", "usd": "1.0", "at": NOW})
        db.insert("charges", {"operation": "x", "usd": None, "at": NOW})
    with db.transaction():
        db.insert("charges", {"operation": "y", "usd": "1.0", "at": NOW})
    assert [row["operation"] for row in db.all("SELECT operation FROM charges")] == ["y"]
    db.close()


def test_a_start_that_was_cut_off_before_seeding_is_made_good(tmp_path: Path) -> None:
    path = tmp_path / "company.db"
    opened(path).close()
    with sqlite3.connect(path) as raw:
        tables = ("messages", "tickets", "refunds", "payments", "orders", "customers", "purchase_orders", "stock")
        for table in (*tables, "trades", "instruments", "counterparties", "traders"):
            raw.execute(f"DELETE FROM {table}")
    raw.close()
    whole, mended = opened(), opened(path)
    assert mended.state() == whole.state()
    whole.close()
    mended.close()


def test_a_database_that_is_not_the_company_s_is_refused_and_left_alone(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.db"
    with sqlite3.connect(foreign) as raw:
        raw.execute("CREATE TABLE mine (x)")
    raw.close()
    text = tmp_path / "text.db"
    text.write_text("not a database, but long enough to look like one\n" * 100)
    before = foreign.read_bytes(), text.read_bytes()
    for path in (foreign, text, tmp_path / "missing" / "company.db"):
        with pytest.raises(CompanyError, match=re.escape(str(path))):
            Company(path)
    assert (foreign.read_bytes(), text.read_bytes()) == before

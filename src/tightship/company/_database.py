"""The company's SQLite database: one connection, used from one thread, short statements only."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

from tightship.company._call import Answer, Call, CompanyError, Json, not_found

APPLICATION_ID = 0x54534370  # "TSCp": tells this database from any other SQLite file
Row = sqlite3.Row


class Database:
    """Opens, creates and queries the database.

    Parameters: `path` is a file or `:memory:`; `clock` gives seconds since 1970 and is the only source of time.
    Raises: CompanyError when the file cannot be opened or belongs to another program.
    """

    def __init__(self, path: str | Path, clock: Callable[[], float]) -> None:
        self.clock = clock
        try:
            self._connection = sqlite3.connect(str(path), isolation_level=None, timeout=1.0)
        except sqlite3.Error as error:
            raise CompanyError(f"cannot open the company's database {path}: {error}") from error
        try:
            self._prepare()
        except sqlite3.Error as error:
            self.close()
            raise CompanyError(f"cannot use {path} as the company's database: {error}") from error
        except CompanyError as error:
            self.close()
            raise CompanyError(f"cannot use {path} as the company's database: {error}") from error

    def _prepare(self) -> None:
        connection = self._connection
        connection.row_factory = sqlite3.Row
        tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        marked = connection.execute("PRAGMA application_id").fetchone()[0]
        if tables and marked != APPLICATION_ID:
            raise CompanyError("the file belongs to another program")
        # A killed process loses nothing in WAL mode; only a power cut could, and this is a practice world.
        for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}")
        if not tables:
            script = resources.files("tightship.company").joinpath("schema.sql").read_text(encoding="utf-8")
            connection.executescript(f"BEGIN; PRAGMA application_id = {APPLICATION_ID}; {script} COMMIT;")

    def close(self) -> None:
        """Close the connection; closing twice is harmless."""
        self._connection.close()

    @contextmanager
    def transaction(self) -> Generator[None, None, None]:
        """All statements inside are kept, or none if an exception leaves the block."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:  # a full disk has already undone it
                self._connection.execute("ROLLBACK")
            raise

    def run(self, sql: str, *values: object) -> int:
        """Execute one statement; the number of rows that it changed."""
        return self._connection.execute(sql, values).rowcount

    def insert(self, table: str, values: Mapping[str, object]) -> None:
        """Insert one row; table and column names come from the program, never from a caller."""
        marks = ", ".join("?" * len(values))
        sql = f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks})"
        self._connection.execute(sql, tuple(values.values()))

    def update(self, table: str, row_id: str, values: Mapping[str, object]) -> None:
        """Set columns of the row whose `id` (`sku` in stock) is given; names come from the program."""
        sets = ", ".join(f"{name} = ?" for name in values)
        self._connection.execute(f"UPDATE {table} SET {sets} WHERE {_key(table)} = ?", (*values.values(), row_id))

    def row(self, table: str, what: str, row_id: str) -> Row:
        """The row whose `id` (`sku` in stock) is given; `what` it is called in the refusal. Raises: Refusal 404."""
        row = self.one(f"SELECT * FROM {table} WHERE {_key(table)} = ?", row_id)
        if row is None:
            raise not_found(what, row_id)
        return row

    def one(self, sql: str, *values: object) -> Row | None:
        """The first row, or None."""
        return self._connection.execute(sql, values).fetchone()

    def scalar(self, sql: str, *values: object) -> Any:
        """The first column of the only row."""
        return self._connection.execute(sql, values).fetchone()[0]

    def all(self, sql: str, *values: object) -> list[Row]:
        """All rows."""
        return self._connection.execute(sql, values).fetchall()

    def page(self, table: str, filters: Mapping[str, object], call: Call) -> tuple[list[Row], str | None]:
        """One page of a table in order of creation, and the cursor of the next one or None.

        Parameters: `filters` maps an SQL expression of the program to the value that it must equal; None is no
        filter. `call` carries `limit` and `cursor`.
        """
        limit = int(call.params.get("limit", 50))
        wanted = {name: value for name, value in filters.items() if value is not None}
        where = " AND ".join(["n > ?", *(f"{name} = ?" for name in wanted)])
        rows = self.all(
            f"SELECT * FROM {table} WHERE {where} ORDER BY n LIMIT ?",
            int(call.params.get("cursor", 0)),
            *wanted.values(),
            limit + 1,
        )
        following = str(rows[limit - 1]["n"]) if len(rows) > limit else None
        return rows[:limit], following

    def listing(self, table: str, filters: Mapping[str, object], call: Call, view: Callable[[Row], Json]) -> Answer:
        """A page as it is served: each row as `view` shows it."""
        rows, following = self.page(table, filters, call)
        return Answer({"items": [view(row) for row in rows], "next": following})


def _key(table: str) -> str:
    return "sku" if table == "stock" else "id"

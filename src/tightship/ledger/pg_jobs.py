"""The tables of Procrastinate, which carries a shared store's jobs, in the store's own schema.

They hold no truth: whatever is lost with them is found by the looks that every worker takes.
"""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, Any, Final

from tightship.core.errors import StoreError, StoreReadOnly
from tightship.ledger._pg import Address, connect, script, translate_errors

if TYPE_CHECKING:
    import psycopg

GENERAL: Final = "general"
"""What takes the place of a build in the name of the queue that every worker listens to."""


def prepare_jobs(address: Address) -> None:
    """Make the tables, or bring them up to the Procrastinate that is installed; one process at a time.

    Raises:
        StoreReadOnly: this user may not make them. StoreError and its kinds: as the server answers.
    """
    db = connect(address)
    try:
        with translate_errors(address):
            if _missing(db):
                _apply(db, address)
    except StoreReadOnly as error:
        raise StoreReadOnly(
            f"the tables of the jobs cannot be made: {error.message}",
            where=address.shown,
            fix=f"GRANT CREATE ON SCHEMA {address.schema} to this user, or start one worker as the user that made the"
            " schema",
        ) from None
    finally:
        db.close()


def queues(address: Address, build: str) -> tuple[str, str]:
    """The queue of a build's workers, and the one of all workers of this store."""
    db = connect(address)
    try:
        with translate_errors(address):
            row = db.execute("SELECT job_queue(%s), job_queue(%s)", (build, GENERAL)).fetchone()
    finally:
        db.close()
    assert row is not None
    return row[0], row[1]


def forget_jobs(address: Address) -> None:
    """Delete jobs that nobody will end, and what ended a day ago."""
    db = connect(address)
    try:
        with translate_errors(address):
            db.execute(script("forget_jobs"))
    finally:
        db.close()


def _scripts() -> list[str]:
    """The names of Procrastinate's own migrations, in order."""
    folder = resources.files("procrastinate.sql") / "migrations"
    return sorted(one.name for one in folder.iterdir() if one.name.endswith(".sql"))


def _missing(db: psycopg.Connection[Any]) -> list[str]:
    """The migrations that these tables have not seen; all of them where there are no tables."""
    known = db.execute("SELECT to_regclass('job_migrations')").fetchone()
    if known is None or known[0] is None:
        return _scripts()
    seen = {row[0] for row in db.execute("SELECT name FROM job_migrations")}
    return [name for name in _scripts() if name not in seen]


def _apply(db: psycopg.Connection[Any], address: Address) -> None:
    lock = address.lock("migrate")
    db.execute("SELECT pg_advisory_lock(%s, %s)", lock)
    try:
        missing = _missing(db)
        if len(missing) == len(_scripts()):
            _refuse_foreign(db, address)
            with db.transaction():
                db.execute(script("job_migrations"))
                db.execute(resources.files("procrastinate.sql").joinpath("schema.sql").read_bytes())
                _note(db, missing)
        else:
            for name in missing:
                with db.transaction():
                    db.execute((resources.files("procrastinate.sql") / "migrations" / name).read_bytes())
                    _note(db, [name])
    finally:
        if not db.closed:
            db.execute("SELECT pg_advisory_unlock(%s, %s)", lock)


def _note(db: psycopg.Connection[Any], names: list[str]) -> None:
    db.execute("INSERT INTO job_migrations (name) SELECT unnest(%s::text[])", (names,))


def _refuse_foreign(db: psycopg.Connection[Any], address: Address) -> None:
    found = db.execute("SELECT to_regclass('procrastinate_jobs')").fetchone()
    if found is not None and found[0] is not None:
        raise StoreError(
            f"the schema {address.schema!r} has tables of a Procrastinate that is not this program's",
            where=address.shown,
            fix="give this workspace a schema of its own: ?schema=NAME in the store's URL",
        )

"""Postgres plumbing: URLs, connections that come back, errors in the tree's terms. psycopg is imported when needed.

A password is in the URL alone: it is in no error, no log and no entry.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, LiteralString, TypeVar, cast
from urllib.parse import parse_qsl, quote, urlencode, urlsplit
from zlib import crc32

from tightship.core.errors import (
    LedgerError,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreLost,
    StoreMissing,
    StoreReadOnly,
    StoreVersionError,
    TightshipError,
)
from tightship.ledger._pg_arrays import dumpers
from tightship.ledger._pg_patience import Patience, connection_class
from tightship.ledger._sql import script as script_of

if TYPE_CHECKING:
    import psycopg

SCHEMA: Final = "tightship"
OLDEST: Final = 15
"""The oldest major version of the server that is taken."""
IDLE_SECONDS: Final = 10
"""How long a transaction may wait for its client: one whose process is frozen must not keep the store locked."""
LOCK_SECONDS: Final = 30
"""How long a statement waits for a lock before it gives up."""
RETRY_SECONDS: Final = 5.0
"""How long a lost connection is sought again before whoever waits is told."""
_SCHEMA_NAME = re.compile(r"[a-z_][a-z0-9_]{0,57}")
_CONNECTION: Final = {
    "connect_timeout": 10,
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
    "client_encoding": "UTF8",
    "application_name": "tightship",
}
"""What a URL may say otherwise. A server that is gone is noticed within about ten seconds."""
_SESSION: Final = (
    'SET search_path TO "{schema}"; '
    "SET timezone TO 'UTC'; SET statement_timeout TO 0;"
    f" SET lock_timeout TO '{LOCK_SECONDS}s'; SET idle_in_transaction_session_timeout TO '{IDLE_SECONDS}s';"
    " SET default_transaction_isolation TO 'read committed'; SET default_transaction_deferrable TO off"
)
"""What the settings of the server or of the role may have made otherwise."""
_FIX_URL: Final = "postgresql://USER:PASSWORD@HOST:5432/DATABASE?schema=tightship"
_T = TypeVar("_T")
Statement = tuple[LiteralString, Sequence[Any]]


def script(name: str) -> LiteralString:
    """The text of `sql/postgres/NAME.sql`."""
    return cast(LiteralString, script_of(name, "postgres"))


@dataclass(frozen=True, slots=True)
class Address:
    """Where a store is: what the client library connects with, the schema, and how it is named to people."""

    parameters: dict[str, Any] = field(repr=False)
    schema: str
    shown: str

    @classmethod
    def of(cls, url: str) -> Address:
        """Read a URL: `postgresql://…`, with `schema=NAME` among its options where it is not `tightship`.

        Raises:
            StoreError: it is none, psycopg is not installed, or the schema's name is not a plain one.
        """
        driver = load_driver()
        from psycopg.conninfo import conninfo_to_dict

        options: list[tuple[str, str]] = []
        try:
            parts = urlsplit(url)
            query = parts.query.replace("+", "%2B")  # libpq takes a plus for a plus
            options = parse_qsl(query, keep_blank_values=True)
            schema = next((value for name, value in reversed(options) if name == "schema"), SCHEMA)
            rest = urlencode([(name, value) for name, value in options if name != "schema"], quote_via=quote)
            # not urlunsplit, which drops the slashes before an empty host: `postgresql:///`, where PGHOST says it
            plain = f"{parts.scheme}://{parts.netloc}{parts.path}" + (f"?{rest}" if rest else "")
            given = conninfo_to_dict(plain)
        except (ValueError, driver.Error):  # its message may hold a part of the password
            raise StoreError(f"the store's URL cannot be read{_unknown(url, options)}", fix=_FIX_URL) from None
        if not _SCHEMA_NAME.fullmatch(schema) or schema.startswith("pg_"):
            raise StoreError(
                f"{schema[:80]!r} cannot be the name of the store's schema",
                fix="small letters, digits and underscores, at most 58 of them",
            )
        place = "/".join(_said(given, *names) for names in (("host", "PGHOST"), ("dbname", "PGDATABASE"))).rstrip("/")
        shown = f"postgresql://{place}" + ("" if schema == SCHEMA else f"?schema={schema}")
        return cls({**_CONNECTION, **given}, schema, shown)

    @property
    def conninfo(self) -> str:
        """What libpq connects with; it holds the password."""
        from psycopg.conninfo import make_conninfo

        return make_conninfo(**self.parameters)

    def beside(self, suffix: str) -> Address:
        """The same database, another schema."""
        return Address(self.parameters, f"{self.schema}{suffix}", self.shown)

    @property
    def workers(self) -> int:
        """The first number of every worker's advisory lock; the second is the worker's own."""
        return _signed(crc32(f"tightship workers {self.schema}".encode()))

    def lock(self, purpose: str) -> tuple[int, int]:
        """The two numbers of the advisory lock for a purpose; the database's own, so schemas have locks apart."""
        return _signed(crc32(f"tightship {self.schema}".encode())), _signed(crc32(purpose.encode()))


def _said(given: Mapping[str, Any], name: str, variable: str) -> str:
    """What a URL says, else the variable from which the client library takes it."""
    return str(given.get(name) or os.environ.get(variable, ""))


def _unknown(url: str, options: Sequence[tuple[str, str]]) -> str:
    """The option that the client library does not know, where it is none and no part of an unquoted password."""
    from psycopg.pq import Conninfo

    known = {"schema", "ssl", *(option.keyword.decode() for option in Conninfo.get_defaults())}
    strange = next((name for name, _ in options if name not in known), "")
    return f": it has no option {strange[:40]!r}" if strange and "@" not in url.partition("?")[2] else ""


def _signed(number: int) -> int:
    return number - (1 << 32) if number >> 31 else number


def load_driver() -> Any:
    """The client library.

    Raises:
        StoreError: it is not installed.
    """
    try:
        import psycopg
    except ImportError as error:
        raise StoreError(
            f"the Postgres store needs psycopg, which cannot be imported: {error}",
            fix="pip install 'tightship[postgres]'",
        ) from None
    return psycopg


def session_settings(schema: str) -> bytes:
    """What every session of ours is set to; the schema's name is a plain one (`Address.of`)."""
    return _SESSION.format(schema=schema).encode()


def connect(address: Address, patience: Patience | None = None) -> psycopg.Connection[Any]:
    """A connection whose commits are on the disk when they return.

    Args:
        address: where to. patience: how long the server may say nothing.

    Raises:
        StoreError and its kinds: as the server answers; StoreLost when it does not.
    """
    load_driver()
    with translate_errors(address):
        db = connection_class().connect(**address.parameters, autocommit=True)
        try:
            db.patience = patience or Patience()  # type: ignore[attr-defined]
            for kind, dumper in dumpers():
                db.adapters.register_dumper(kind, dumper)
            db.execute(session_settings(address.schema))
            row = db.execute("SELECT current_setting('synchronous_commit')").fetchone()
            if row is None or row[0] not in ("on", "remote_apply"):
                db.execute("SET synchronous_commit TO on")
        except BaseException:
            db.close()
            raise
    return db


class Link:
    """A connection that is made anew after it was lost. Whoever uses it holds its lock."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.patience = Patience()
        self._db: psycopg.Connection[Any] | None = None
        self._pid = 0
        self._lock = threading.RLock()
        self._closed = threading.Event()
        self._ending = False

    @property
    def closed(self) -> bool:
        """Whether it is being closed for good."""
        return self._closed.is_set()

    @contextlib.contextmanager
    def held(self) -> Generator[psycopg.Connection[Any]]:
        """The connection, for this thread alone; lost ones are made anew.

        Raises:
            StoreError and its kinds: as the server answers, in the block as well.
        """
        with self._lock, translate_errors(self.address):
            yield self.live()

    @contextlib.contextmanager
    def still(self, session: object) -> Generator[psycopg.Connection[Any]]:
        """The connection, as long as it is the one that has this session: a transaction does not outlive it.

        Raises:
            StoreLost: it was lost. StoreError and its kinds: as the server answers, in the block as well.
        """
        with self._lock, translate_errors(self.address):
            db = self._db
            if db is None or db is not session or self.lost:
                raise StoreLost(where=self.address.shown, fix="try again")
            yield db

    def live(self) -> psycopg.Connection[Any]:
        """The connection, made anew where it was lost."""
        if self.closed:
            raise StoreError("the store is closed", where=self.address.shown)
        if self._db is None or self._db.closed or self._db.broken:
            self.drop()
            self._db = connect(self.address, self.patience)
            self._pid = self._db.info.backend_pid
        return self._db

    @property
    def lost(self) -> bool:
        """Whether nothing can be asked of the connection any more."""
        return self._db is None or self._db.closed or self._db.broken

    @property
    def session(self) -> object:
        """What stays the same as long as the connection does."""
        return self._db

    @property
    def backend_pid(self) -> int:
        """The server's process that serves it; 0 when there is no connection. Safe from any thread."""
        return self._pid

    def drop(self) -> None:
        """Close the connection; the next use makes another."""
        if self._db is not None:
            with contextlib.suppress(Exception):
                self._db.close()
            self._db, self._pid = None, 0

    def patiently(self, work: Callable[[psycopg.Connection[Any]], _T]) -> _T:
        """Do something that may be done twice; when the connection is lost meanwhile, on another one.

        Raises:
            StoreError and its kinds: as the server answers; of a lost connection when the time is over.
        """
        end = time.monotonic() + RETRY_SECONDS
        pause = 0.02
        while True:
            try:
                with self.held() as db:
                    return work(db)
            except StoreLost:
                self.drop()
                if time.monotonic() + pause > end or self._ending or self._closed.wait(pause):
                    raise
                pause = min(pause * 2, 0.5)

    def wait(self, seconds: float) -> bool:
        """Wait, or until it is being closed; whether it is."""
        return self._closed.wait(seconds)

    def closing(self) -> None:
        """It is about to be closed: whoever waits for the server gives up within some seconds."""
        self._ending = True
        self.patience.closing()

    def close(self) -> None:
        """Close it for good."""
        self.closing()
        self._closed.set()
        with self._lock:
            self.drop()


def run_together(db: psycopg.Connection[Any], statements: Sequence[Statement]) -> list[list[tuple[Any, ...]]]:
    """Several statements up to a commit in one round trip; what each gives. The first error ends them.

    After an error the connection must not be used again: psycopg believes that it has prepared statements whose turn
    never came, and every later use of one fails.
    """
    with db.pipeline():
        cursors = [db.execute(sql, values) for sql, values in statements]
    if cursors[-1].statusmessage != "COMMIT":
        raise StoreError("the server rolled back what it was to commit", fix="try again")
    return [cursor.fetchall() if cursor.description else [] for cursor in cursors]


# --- errors --------------------------------------------------------------------------------------------


class _Consequences(threading.local):
    """How deep this thread is in `translate_errors`."""

    depth = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Note for debugging alone what the library could not tidy up behind an error: the error itself is raised."""
        if self.depth and str(record.msg).startswith("error ignored"):
            record.levelno, record.levelname = logging.DEBUG, logging.getLevelName(logging.DEBUG)
        return True


_consequences = _Consequences()


@functools.cache
def _listen_to_the_driver() -> None:
    for name in ("psycopg", "psycopg.transaction"):  # a filter sees what is logged under its name alone
        logging.getLogger(name).addFilter(_consequences)


@contextlib.contextmanager
def translate_errors(address: Address) -> Generator[None]:
    """Turn psycopg's errors into the tree's, naming the store and the way out.

    What it logs of its own tidying up (a pipeline or a transaction whose connection is gone) is no warning: it would
    stand on a terminal beside the error that says the same. What other users of the library do is left alone.
    """
    driver = load_driver()
    _listen_to_the_driver()
    _consequences.depth += 1
    try:
        yield
    except (driver.Error, UnicodeError, OverflowError) as error:
        raise translate(error, address) from None
    finally:
        _consequences.depth -= 1


_BY_STATE: Final[dict[str, tuple[type[TightshipError], str, str]]] = {
    "28P01": (StoreError, "the server does not take this user and password", "correct them in the store's URL"),
    "28000": (
        StoreError,
        "the server does not let this user in",
        "correct the store's URL, or the server's pg_hba.conf",
    ),
    "3D000": (StoreMissing, "there is no such database", "create it, or correct the store's URL"),
    "42501": (StoreReadOnly, "this user may not do that", "GRANT it, or use the user that made the schema"),
    "53100": (StoreFull, "the server's disk is full", "free space on it; nothing was lost"),
    "53300": (StoreError, "the server has no connection left", "raise its max_connections, or end other clients"),
    "25006": (
        StoreReadOnly,
        "the server takes no writes: it is a standby, or set to read only",
        "use the primary's URL",
    ),
    "57P03": (
        StoreLost,
        "the server takes no connection yet: it starts, or recovers from a crash",
        "wait for it; its log says what keeps it",
    ),
    "55P03": (
        StoreError,
        f"another process kept the store locked for {LOCK_SECONDS} seconds",
        "wait for it to end, then try again",
    ),
}
_BY_CLASS: Final[dict[str, tuple[type[TightshipError], str, str]]] = {
    "08": (StoreLost, "the connection to the server was lost", "see that the server runs; then try again"),
    "57P": (StoreLost, "the server ended the connection", "see that it runs; then try again"),
    "25P03": (StoreLost, "this process was held up in a transaction", "try again"),
    "53": (StoreError, "the server is out of a resource", "look into its log"),
    "58": (StoreFull, "the server's disk refused", "check its space, quota and health"),
    "40": (StoreError, "the transaction was in another's way", "try again"),
    "XX": (StoreCorrupt, "the database is damaged", "`tightship audit verify` says where; restore it from your backup"),
    "42P01": (
        StoreCorrupt,
        "the schema is not the one that was made here",
        "`tightship audit verify` says where; restore the store from your backup",
    ),
    "42703": (
        StoreCorrupt,
        "the schema is not the one that was made here",
        "`tightship audit verify` says where; restore the store from your backup",
    ),
}
_BY_TEXT: Final = (
    ("password authentication failed", "28P01"),
    ("no password supplied", "28P01"),
    ("permission denied", "42501"),
    ("no pg_hba.conf entry", "28000"),
    ("the database system is", "57P03"),
    ('role "', "28000"),
    ('database "', "3D000"),
    ("too many clients", "53300"),
    ("remaining connection slots", "53300"),
)
"""libpq gives no code for what a server says while it lets nobody in."""


def translate(error: Any, address: Address) -> TightshipError:
    """The error of the tree for an error of psycopg: a StoreError, or a LedgerError when a value does not fit."""
    driver = load_driver()
    where = address.shown
    if not isinstance(error, driver.Error):
        return LedgerError(f"a value cannot be stored: {type(error).__name__}")
    text = str(error)
    state: str = error.sqlstate or next((code for part, code in _BY_TEXT if "FATAL" in text and part in text), "")
    said = (error.diag.message_primary or "").strip()
    found = _BY_STATE.get(state)
    for size in (5, 3, 2):
        found = found or _BY_CLASS.get(state[:size])
    if found is not None:
        kind, message, fix = found
        return kind(f"{message} ({said})" if said else message, where=where, fix=fix)
    if state[:2] in ("22", "23", "54"):
        return LedgerError(f"a value does not fit its column: {said}")
    if isinstance(error, driver.OperationalError | driver.InterfaceError) and not state:
        return StoreLost(_reason(text, address), where=where, fix="see that the server runs, and correct the URL")
    if isinstance(error, driver.DataError | driver.ProgrammingError) and not state:
        return LedgerError(f"a value cannot be stored: {text.splitlines()[0] if text else type(error).__name__}")
    return StoreError(f"the database refused: {said or type(error).__name__}", where=where, fix="look into its log")


def _reason(text: str, address: Address) -> str:
    """Why there is no connection, as the client library says it, without the password."""
    secret = str(address.parameters.get("password") or "")
    line = " ".join((text.splitlines() or [""])[0].split())
    if secret and secret in line:
        line = line.replace(secret, "…")
    return f"the server cannot be reached: {line}" if line else "the server cannot be reached"


def too_old(version: int, address: Address) -> StoreVersionError:
    """The error for a server that is too old."""
    return StoreVersionError(
        f"the server is PostgreSQL {version // 10_000}.{version % 10_000}, and {OLDEST} is the oldest that is taken:"
        " nothing was written",
        where=address.shown,
        fix=f"upgrade it to PostgreSQL {OLDEST} or newer (pg_upgrade, or pg_dump and a new server), or use another one",
    )

"""How the tables stood when entries left for an archive: what rebuilding and verifying start from.

A `snapshot` entry names a page of a table's rows each; the last one of an archive names all of them, up to which
position of each log they were folded, and which entries have left. Pages are public values: addressed by their plain
hash, which stands in a leaf of the Merkle tree, and the tables hold references only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import orjson

from tightship.core import kinds
from tightship.core.errors import Archived, StoreMissing, TamperError
from tightship.ledger.entries import Entry, decode
from tightship.ledger.projections import Deltas
from tightship.ledger.scratch import Scratch, in_order

if TYPE_CHECKING:
    from tightship.ledger.archive_folder import Archives
    from tightship.ledger.ledger import Ledger

LOG: Final = "default"
"""The log that has the entries of archives, of all logs."""
ROWS: Final = 500
"""Rows of a page."""


@dataclass(frozen=True, slots=True)
class Folded:
    """What the entry of an archive says.

    Attributes:
        n: its position. folder: where the archive was put. manifest: SHA-256 of its manifest, hex.
        before: store time (s); what is younger has not left. detail: the address of what follows.
        upto: by log, the last position that the tables were folded up to.
        archived: by log, the position up to which entries have left, but for those that stay.
        stay: by log, the positions of those.
        tables: by table, its columns and the addresses of its pages.
    """

    n: int
    folder: str
    manifest: str
    before: float
    detail: str = ""
    upto: dict[str, int] = field(default_factory=dict[str, int])
    archived: dict[str, int] = field(default_factory=dict[str, int])
    stay: dict[str, frozenset[int]] = field(default_factory=dict[str, frozenset[int]])
    tables: dict[str, tuple[list[str], list[str]]] = field(default_factory=dict[str, tuple[list[str], list[str]]])

    @property
    def pages(self) -> set[str]:
        """The addresses of all pages."""
        return {address for _, pages in self.tables.values() for address in pages}


def latest(ledger: Ledger) -> Folded | None:
    """What the last archive's entry says, or None where nothing was ever archived. It blocks.

    Raises:
        TamperError, StoreMissing: the entry or its value is not what was written.
    """
    rows = ledger.backend.select("archives", (), [("n", "desc")], 1)
    n = rows[0]["n"] if rows else _look_for(ledger)
    return recorded(ledger, n) if n else None


def _look_for(ledger: Ledger) -> int:
    """The position of the last archive's entry, from the log itself, where entries are gone; else 0."""
    for log in ledger.backend.heads():
        first = ledger.backend.entries(log, 0, 1)
        if first and first[0][0] > 1:
            found = (entry.n for page in ledger.pages(LOG) for entry in page if is_archive(entry))
            return max(found, default=0)
    return 0


def is_archive(entry: Entry) -> bool:
    """Whether it is the entry that makes an archive count."""
    return entry.kind == kinds.SNAPSHOT and "table" not in entry.body


def recorded(ledger: Ledger, n: int) -> Folded:
    """What the entry of an archive at this position says. It blocks.

    Raises:
        TamperError, StoreMissing: the entry or its value is not what was written.
    """
    rows = ledger.backend.entries(LOG, n - 1, 1)
    entry = decode(LOG, n, rows[0][1]) if rows and rows[0][0] == n else None
    if entry is None or not is_archive(entry):
        raise TamperError(f"entry {n} of log {LOG!r} is not of an archive, as the table `archives` says")
    body = entry.body
    try:
        index = public(ledger, body["detail"])
        return Folded(
            n,
            body["folder"],
            body["manifest"],
            body["before"],
            body["detail"],
            body["upto"],
            body["archived"],
            {log: frozenset(stay) for log, stay in index["stay"].items()},
            {table: (known["columns"], known["pages"]) for table, known in index["tables"].items()},
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise TamperError(f"entry {n} of log {LOG!r} is no entry of an archive: {error!r}") from None


def public(ledger: Ledger, address: str) -> Any:
    """A public value; its address, which is its hash, is checked."""
    scope, data = ledger.sealed([address]).get(address, ("", None))
    if data is None:
        raise StoreMissing(f"payload {address} is not in the store", fix="restore the store from your backup")
    return orjson.loads(ledger.vault.open(address, scope, data))


def begin(ledger: Ledger, folded: Folded, scratch: Scratch) -> None:
    """Fill tables with the rows that a snapshot has. It blocks.

    Raises:
        TamperError, StoreMissing: a page is not what was written.
    """
    for table, (columns, pages) in folded.tables.items():
        if table in ledger.folder.tables:
            for address in pages:
                scratch.seed(table, columns, ([_float(value) for value in row] for row in public(ledger, address)))
    scratch.positions.update(folded.upto)


def fold(
    ledger: Ledger, scratch: Scratch, progress: Callable[[int], None] | None = None, archives: Archives | None = None
) -> None:
    """Fold the logs into tables: from where the last archive says how they stood, or all with archives. It blocks.

    Raises:
        TamperError: entries are missing, or not what was written.
    """
    heads, known = ledger.backend.heads(), latest(ledger)
    if known is not None and archives is None:
        begin(ledger, known, scratch)
    logs = [_whole(ledger, scratch, log, head, known, archives) for log, (_, head) in heads.items()]
    for page in in_order(logs):
        scratch.fold(page)
        if progress is not None:
            progress(scratch.folded)


def _whole(
    ledger: Ledger, scratch: Scratch, log: str, head: int, known: Folded | None, archives: Archives | None
) -> Iterator[list[Entry]]:
    """A log's entries behind where the tables stand, none of which may be missing."""
    at = scratch.positions.get(log, 0)
    if known is not None and archives is not None:
        for page in archives.pages(log, known.archived.get(log, 0)):
            yield page
            at = page[-1].n
    for page in ledger.pages(log, at, head):
        for entry in page:
            if entry.n != (at := at + 1):
                raise TamperError(
                    f"entries {at} to {entry.n - 1} of log {log!r} are missing", fix="run `tightship audit verify`"
                )
        yield page


def check_here(ledger: Ledger, run: str, entries: Sequence[Entry]) -> None:
    """Whether a run that has no beginning among its entries has left. It blocks.

    Raises:
        Archived: it has; the error says where to.
    """
    if any(entry.kind == kinds.STARTED for entry in entries):
        return
    rows = ledger.backend.select("runs", [("id", "=", run), ("state", "=", "ended")], (), 1)
    if not rows:
        return
    archives = ledger.backend.select("archives", [("before", ">", rows[0]["ended_at"])], [("n", "asc")], 1)
    if archives:
        raise Archived(
            f"the entries of run {run} have left the store for an archive",
            where=archives[0]["folder"],
            fix="its row, costs and outcome are still here; the folder has its entries as C2SP bundles, and its values",
        )


def check_value(ledger: Ledger, address: str) -> None:
    """Whether a value that is not stored may have left. It blocks.

    Raises:
        Archived: values have left; the error says where the last ones went to.
    """
    archives = ledger.backend.select("archives", (), [("n", "desc")], 1)
    if archives:
        raise Archived(
            f"the value {address} has left the store for an archive",
            where=archives[0]["folder"],
            fix="`audit export --plain --archive DIR` opens what archives hold",
        )


def deltas(ledger: Ledger) -> Deltas:
    """The projections as the log gives them, in memory: for small ledgers from which nothing has left."""
    found: Deltas = {}
    logs = [ledger.pages(log, 0, head) for log, (_, head) in ledger.backend.heads().items()]
    for page in in_order(logs):
        for entry in page:
            ledger.folder.fold(entry, found)
    return found


def pages_of(rows: Iterator[Sequence[Any]]) -> Iterator[list[list[Any]]]:
    """Rows as the values of pages."""
    while page := [[_json(value) for value in row] for row in islice(rows, ROWS)]:
        yield page


def _json(value: Any) -> Any:
    """JSON has no infinite numbers; no column holds a list."""
    return [repr(value)] if isinstance(value, float) and not math.isfinite(value) else value


def _float(value: Any) -> Any:
    return float(value[0]) if isinstance(value, list) else value

"""The checks of an audit, one after the other over one snapshot. Everything here blocks: call it from a thread."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from tightship.core.errors import PayloadErased, StoreError, StoreMissing, TamperError, TightshipError
from tightship.ledger import folded
from tightship.ledger._reading import LogReader
from tightship.ledger._schema import SCHEMA_VERSION, check_structure, empty_database, projection_tables, schema
from tightship.ledger._verify_log import Left, LogCheck
from tightship.ledger._wal import kept_aside
from tightship.ledger.archive_folder import MANIFEST, VALUES, ArchiveFolder, Archives
from tightship.ledger.backend import Row
from tightship.ledger.entries import Entry, payload_crc
from tightship.ledger.findings import AuditReport, Progress
from tightship.ledger.keyring import KEYS_VERSION, FileKeyStore, KeyStore, empty_keystore
from tightship.ledger.ledger import Ledger
from tightship.ledger.public_keys import PUBLIC_KEYS, lines_of
from tightship.ledger.scratch import Scratch, in_order, same_row
from tightship.ledger.sequencer import keys_of, signer_of
from tightship.ledger.sqlite import SqliteBackend
from tightship.ledger.vault import Vault

KEYS: Final = "keys/keys.db"
_SHOWN = 80


def verify_store(ledger: Ledger, progress: Progress, archives: Sequence[Path] = ()) -> AuditReport:
    """Check everything that the ledger's store holds, and these archives of it."""
    return _Verifier(ledger, progress, archives).run()


def examine_files(folder: Path, error: TightshipError) -> AuditReport:
    """What can be said of a store that does not open: why, and what SQLite finds in its two files."""
    report = AuditReport()
    where = Path(error.where or folder / "ledger.db")
    report.add(where.name if where.parent == folder else str(where), "opening", error.message)
    for name, version, make in (
        ("ledger.db", SCHEMA_VERSION, empty_database),
        (KEYS, KEYS_VERSION, empty_keystore),
    ):
        path = folder / name
        if not path.exists():
            continue
        uri = f"file:{quote(str(path))}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True)) as db, closing(make()) as fresh:
            for found in check_structure(db, fresh, version):
                report.add(name, "structure", found)
    return report


class _Verifier:
    def __init__(self, ledger: Ledger, progress: Progress, archives: Sequence[Path]) -> None:
        self.ledger = ledger
        self._folders = archives
        self._archives: Archives | None = None
        self._archived: folded.Folded | None = None
        self.progress = progress
        self.report = AuditReport()
        self.began = time.time()
        self.snapshot = ledger.backend.snapshot()
        self.scratch = Scratch(ledger.folder)
        self.vault = Vault(ledger.vault.keyring.reader())
        self.file = self.snapshot.name
        self.names: dict[int, str] = {}

    def run(self) -> AuditReport:
        """Every check, each for itself: what one cannot read does not keep the others from looking."""
        checks: list[tuple[str, str, Callable[[], None]]] = [
            (self.file, "structure", self._structure),
            (self.file, "archives", self._find_archived),
            *((str(folder), "archive", partial(self._archive, folder)) for folder in self._folders),
            (self.file, "logs", self._logs),
            (self.file, "payloads", self._payloads),
            (self.file, "projections", self._projections),
            (KEYS, "keys", self._keys),
            (PUBLIC_KEYS, "public keys", self._public_keys),
            ("payloads", "files", self._files),
        ]
        try:
            for file, place, check in checks:
                self.progress(place, 0, 0)
                try:
                    check()
                except TightshipError as error:
                    self.report.add(file, place, f"cannot be read: {error.message}")
        finally:
            self.snapshot.close()
            self.scratch.close()
        return self.report

    # --- the file --------------------------------------------------------------------------------

    def _structure(self) -> None:
        for found in self.snapshot.structure():
            self.report.add(self.file, "structure", found)
        backend = self.ledger.backend
        if not isinstance(backend, SqliteBackend):
            return
        aside = kept_aside(backend.path)
        for path in aside:
            self.report.add(
                path.name,
                "write-ahead log",
                "an earlier process left this log with a frame that does not hold: its last commit was cut off, or the "
                "disk has damaged it; remove the file once you have made sure that nothing is missing",
            )
        if not aside:
            for suspicion in backend.suspicions:
                self.report.add(f"{self.file}-wal", "write-ahead log", suspicion)

    # --- archives -----------------------------------------------------------------------------------

    def _find_archived(self) -> None:
        """What has left by the log's own word; the roots that were signed bear that entry out, as any other."""
        rows = list(self.snapshot.projection("archives"))
        if rows:
            self._archived = folded.recorded(self.ledger, rows[-1][0])
            for address in sorted(self._archived.pages - self.snapshot.stored(list(self._archived.pages))):
                place = f"log {folded.LOG!r}, entry {self._archived.n}"
                self.report.add(self.file, place, f"names payload {address}, a page of a table, which is not there")

    def _archive(self, root: Path) -> None:
        """An archive: each file, each entry, each value; and that the log speaks of it."""
        folder = ArchiveFolder(root)
        column = list(schema()["archives"].defaults).index("manifest")
        if folder.manifest not in {row[column] for row in self.snapshot.projection("archives")}:
            self.report.add(str(root), MANIFEST, "no entry of the log speaks of this archive, or it was changed")
            return
        folder.check(keys_of(self.ledger), lambda done: self.progress("archive", done, 0))
        for raw, scope, sealed, _ in folder.sealed():
            self.report.archives += 1
            try:
                self.vault.open(raw.hex(), scope, sealed)
            except PayloadErased:
                self.report.erased += 1
            except (TamperError, StoreMissing) as error:
                self.report.add(str(root), VALUES, error.message)
        self._archives = self._archives or Archives(())
        self._archives.folders.append(folder)

    def _left(self, log: str) -> Left:
        known = self._archived
        if known is None:
            return Left()
        return Left(known.archived.get(log, 0), known.stay.get(log, frozenset()), self._archives)

    # --- logs, entries, tiles, checkpoints -----------------------------------------------------------

    def _logs(self) -> None:
        total, done = self.snapshot.counts()["entries"], 0

        def step(count: int) -> None:
            nonlocal done
            done += count
            self.progress("entries", done, max(total, done))

        latest = self.snapshot.latest_payloads()
        if self._archived is not None:  # what is older may be named by entries that have left
            floor = latest.get(self._archived.detail, 0)
            latest = {address: row for address, row in latest.items() if row > floor}
        unnamed = set(latest)
        known: set[int] = set()
        for row in self.snapshot.logs():
            log_id, name, head = row
            place = f"logs, row {log_id!r}"
            if not (isinstance(log_id, int) and _is_text(name) and isinstance(head, int)):
                self.report.add(self.file, place, f"holds {_show(row)}, not id, name and head")
                continue
            known.add(log_id)
            self.names[log_id] = name
            left = self._left(name)
            LogCheck(self.ledger, self.snapshot, self.scratch, self.report, log_id, name, head, unnamed, left).run(step)
        for log_id in self.snapshot.log_ids():
            if log_id not in known:
                self.report.add(self.file, f"entries of log {log_id}", "there is no log of that id")
        self._strays(known)
        if unnamed and not self.report.found:  # else it is of an entry that is damaged
            first = min(latest[address] for address in unnamed)
            self.report.add(
                self.file,
                f"payloads, from row {first} on",
                f"{len(unnamed)} of the latest payloads are named by no entry: the end of a log was cut off",
            )

    def _strays(self, known: set[int]) -> None:
        """Tiles and checkpoints of logs that there are not."""
        for table in ("tiles", "checkpoints"):
            for log_id in self.snapshot.logs_of(table):
                if log_id not in known:
                    self.report.add(self.file, f"{table}, log {log_id!r}", "there is no log of that id")

    # --- payloads ----------------------------------------------------------------------------------

    def _payloads(self) -> None:
        total = self.snapshot.counts()["payloads"]
        for page in self.snapshot.payloads():
            for row in page:
                self.report.payloads += 1
                self._payload(row)
            self.progress("payloads", self.report.payloads, max(total, self.report.payloads))

    def _payload(self, row: Row) -> None:
        row_id, raw, scope, data, crc = row
        file, place = self.file, f"payloads, row {row_id}"
        if not (isinstance(raw, bytes) and len(raw) == 32 and _is_text(scope) and isinstance(data, bytes | None)):
            self.report.add(file, place, f"is no payload: {_show(row)}")
            return
        address = raw.hex()
        if data is None:
            self.report.files += 1
            file, place = f"payloads/{address[:2]}/{address[2:]}", f"payload {address}"
            data = self._file(address)
            if data is None:
                self.report.add(file, place, f"the file is missing (payloads, row {row_id})")
                return
        sound = payload_crc(raw, scope, data) == crc
        if not sound:
            self.report.add(file, place, f"payload {address} is not what was written: its checksum does not hold")
        try:
            self.vault.open(address, scope, data)
        except PayloadErased:
            self.report.erased += 1
        except (TamperError, StoreMissing) as error:
            if sound:
                self.report.add(file, place, error.message)

    def _file(self, address: str) -> bytes | None:
        try:
            return self.ledger.disk.read(address)
        except OSError:
            return None

    def _files(self) -> None:
        """Files that no row names: what a crash between a file and its entry has left."""
        if self.ledger.path is None:
            return
        # what is younger may be of an entry that is being appended
        old = [path for path in (self.ledger.path / "payloads").glob("*/*") if path.stat().st_mtime < self.began - 60]
        paths = iter(old)
        while part := list(islice(paths, 64)):
            names = {path.parent.name + path.name: path for path in part}
            stored = self.snapshot.stored([name for name in names if _is_address(name)])
            for name, path in names.items():
                if name not in stored:
                    relative = str(path.relative_to(self.ledger.path))
                    self.report.add(relative, "file", "no payload has this name; it may be removed", "note")

    # --- projections -------------------------------------------------------------------------------

    def _projections(self) -> None:
        self._fold()
        self._projection("bundle_runs", "")
        for table in projection_tables():
            if table in self.ledger.folder.tables:
                self._projection(table, "; `tightship audit rebuild` makes it anew from the log")
            elif next(self.snapshot.projection(table), None) is not None:
                self.report.add(self.file, table, "was not compared: nothing here folds it", "note")

    def _fold(self) -> None:
        """Fold all entries beside the store, in the order in which they were committed."""
        # what is wrong with an entry was reported when its log was read
        known = self._archived
        if known is not None and not self.report.archived:
            known = None  # all that has left was looked at: fold it again
        elif known is not None:
            folded.begin(self.ledger, known, self.scratch)
        for page in in_order([self._history(log_id, name, known) for log_id, name in self.names.items()]):
            self._fold_page(page)
            self.progress("projections", self.scratch.folded, self.report.entries)

    def _history(self, log_id: int, name: str, known: folded.Folded | None) -> Iterator[list[Entry]]:
        """A log's entries behind where the tables stand."""
        at = 0 if known is None else known.upto.get(name, 0)
        if known is None and self._archives is not None and self._archived is not None:
            at = self._archived.archived.get(name, 0)
            yield from self._archives.pages(name, at)
        for page in LogReader(self.snapshot, log_id, name, lambda place, message: None).entries():
            yield [entry for entry in page if entry.n > at]

    def _fold_page(self, entries: list[Entry]) -> None:
        try:
            self.scratch.fold(entries)
        except Exception as error:
            if len(entries) > 1:
                for entry in entries:
                    self._fold_page([entry])
            else:
                place = f"log {entries[0].log!r}, entry {entries[0].n}"
                message = f"the body of this {entries[0].kind} entry is not what its kind has: {error!r}"
                self.report.add(self.file, place, message)

    def _projection(self, table: str, fix: str) -> None:
        """Compare a table with what the log gives; both come in order of their key."""
        columns = list(schema()[table].defaults)
        keys = [columns.index(column) for column in schema()[table].key]
        ours, theirs = self.scratch.rows(table), self.snapshot.projection(table)
        a, b = next(ours, None), next(theirs, None)
        while a is not None or b is not None:
            self.report.rows += b is not None
            key_a = None if a is None else [a[at] for at in keys]
            key_b = None if b is None else [b[at] for at in keys]
            if a is not None and b is not None and key_a == key_b:
                column = same_row(a, b)
                if column is not None:
                    self.report.add(
                        self.file,
                        f"{table}, row {_show(key_b)}, column {columns[column]}",
                        f"holds {_show(b[column])}, the log gives {_show(a[column])}{fix}",
                    )
                a, b = next(ours, None), next(theirs, None)
            elif b is None or (key_a is not None and _before(key_a, key_b)):
                self.report.add(self.file, f"{table}, row {_show(key_a)}", f"is missing{fix}")
                a = next(ours, None)
            else:
                self.report.add(self.file, f"{table}, row {_show(key_b)}", f"is not in the log{fix}")
                b = next(theirs, None)

    # --- keys --------------------------------------------------------------------------------------

    def _keys(self) -> None:
        store = self.vault.keyring.store
        for found in store.check():
            self.report.add(KEYS, "structure", found)
        erased = {row[0] for row in self.scratch.rows("erasures")}
        destroyed: set[str] = set()
        for name in self._each_key(store):
            destroyed.add(name)
            if name not in erased:
                self.report.add(KEYS, f"keys, row {_show(name)}", "was destroyed, and the log says nothing of it")
        for name in sorted(erased - destroyed):
            self.report.add(
                KEYS,
                f"keys, row {_show(name)}",
                "the log says that it was destroyed, and it was not; the next start of an executor does so",
            )

    def _each_key(self, store: KeyStore) -> Iterator[str]:
        """Open every key; gives the names of those that were destroyed."""
        after, bad = "", 0
        while page := store.page(after, 1000):
            for row in page:
                self.report.keys += 1
                after = row.name
                try:
                    self.vault.keyring.unwrap(row)
                except PayloadErased:
                    if row.created:
                        self.report.add(KEYS, f"keys, row {_show(row.name)}", "a destroyed key has no time")
                    yield row.name
                except TamperError as error:
                    bad += 1
                    self.report.add(KEYS, f"keys, row {_show(row.name)}", error.message)
            self.progress("keys", self.report.keys, 0)
        if bad and bad == self.report.keys:
            where = "keys/master.key" if isinstance(store, FileKeyStore) else KEYS
            self.report.explain(where, "master key", "no key opens with it: it is damaged, or another store's")

    def _public_keys(self) -> None:
        """The published keys are those that sign, and all of them are there."""
        published = self.ledger.backend.public_keys()
        for origin in published:
            try:
                signer_of(self.ledger, origin)
            except (StoreError, TamperError) as error:
                self.report.add(PUBLIC_KEYS, f"key of {_show(origin)}", error.message)
        if self.ledger.path is None:
            return
        path = self.ledger.path / PUBLIC_KEYS
        if path.exists() and path.read_bytes() != lines_of(published).encode():
            self.report.add(PUBLIC_KEYS, "file", "is not written as we write it")


def _is_text(value: object) -> bool:
    """Text as we would have written it: no byte of it is damaged."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_address(name: str) -> bool:
    try:
        return len(bytes.fromhex(name)) == 32
    except ValueError:
        return False


def _before(a: list[Any], b: list[Any] | None) -> bool:
    """Whether a key comes before another; damaged ones of another type come last."""
    if b is None:
        return True
    for ours, theirs in zip(a, b, strict=True):
        if type(ours) is not type(theirs):
            return True
        if ours != theirs:
            return ours < theirs
    return False


def _show(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"

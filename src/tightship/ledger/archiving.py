"""Old entries leave the store for a folder, with their proofs (`tightship store archive`).

In this order, so that whatever ends the process, every entry is in the store or in a whole archive that the log names:

1. Decide over one snapshot what leaves (`archive_plan`).
2. Write the folder under another name, every file fsync'd; read it back and verify it.
3. Append how the tables stood, and the entry that names archive and positions: from here on it counts.
4. Give the folder its name. Drop bundles and values, a few in each transaction.

A process that was cut off before 3 has changed nothing; one that was cut off later is completed by the next call,
which finds the archive that the log names and verifies it again before it drops anything.
"""

from __future__ import annotations

import errno
import functools
import shutil
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any, Final

from tightship.core import kinds
from tightship.core.errors import LedgerError, StoreError, StoreFull, StoreReadOnly
from tightship.ledger import folded
from tightship.ledger._schema import schema
from tightship.ledger.archive_folder import (
    MANIFEST,
    VALUES,
    ArchiveFolder,
    FolderWriter,
    line_of,
    name_of,
    sync_folder,
)
from tightship.ledger.archive_plan import Plan, Planner, runs_behind
from tightship.ledger.backend import Moment
from tightship.ledger.bundles import WIDTH, entries_of_row
from tightship.ledger.entries import POSITION_MASK, Draft, log_crc
from tightship.ledger.findings import Progress
from tightship.ledger.ledger import Ledger
from tightship.ledger.locks import ExecutorLock, Lock
from tightship.ledger.memory import MemoryBackend
from tightship.ledger.merkle.tiles import ENTRIES, TILE_WIDTH, Tile, TileTree, encode_bundle, tiles_of
from tightship.ledger.references import addresses_in
from tightship.ledger.sequencer import BackendTiles, keys_of, signer_of, stated_origin
from tightship.ledger.vault import PUBLIC, encode

DRAFT: Final = ".archiving"
"""What the name of a folder has until it is whole."""
_VALUES_AT_ONCE: Final = 200
_MARGIN: Final = 600.0
"""Seconds before a month in which a worker may count a call into it: it knows the month by its own clock."""


@dataclass(slots=True)
class ArchiveReport:
    """What has left, or would.

    Attributes:
        folder: the archive. logs: by log, the first and the last position whose bundles leave.
        entries, values, runs: how many. stays: entries up to there that stay. waiting: runs that stay.
        completed: an archive that an earlier call was cut off at.
    """

    folder: Path
    logs: dict[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])
    entries: int = 0
    values: int = 0
    runs: int = 0
    stays: int = 0
    waiting: int = 0
    manifest: str = ""
    completed: bool = False
    dry_run: bool = False

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON."""
        names = ("entries", "values", "runs", "stays", "waiting", "manifest", "completed", "dry_run")
        logs = {log: list(span) for log, span in self.logs.items()}
        return {"folder": str(self.folder), "logs": logs, **{name: getattr(self, name) for name in names}}


async def archive(
    ledger: Ledger,
    folder: Path,
    before: float,
    by: str,
    progress: Progress = lambda stage, done, total: None,
    *,
    dry_run: bool = False,
) -> ArchiveReport:
    """Put what is older into a folder, and drop it from the store. Others may go on executing.

    Only one process may do so at a time: the caller holds a lock.

    Args:
        folder: new or empty; or that of an archive that was cut off, which is completed.
        before: store time (s); what is younger stays.
        by: who archives.
        progress: told how far it is, from another thread.
        dry_run: only say what would leave.

    Raises:
        ValueError: the time has not come. LedgerError: there is nothing to archive, or the folder is no place for it.
        TamperError, StoreError: the store or the folder is not what was written; nothing was dropped.
        StoreFull, StoreReadOnly: the folder's disk.
    """
    if isinstance(ledger.backend, MemoryBackend):
        raise StoreError("a store in memory is not archived", where=ledger.backend.where)
    if before > ledger.world.clock.now():
        raise ValueError("entries can leave only up to a time that is past")
    await ledger.off_loop(_check_loans, ledger, before)
    folder = folder.resolve()
    known = await ledger.off_loop(folded.latest, ledger)
    if known and not dry_run and await ledger.off_loop(_is_to_be_completed, ledger, known, folder):
        return await _complete(ledger, known, folder, progress)
    if not dry_run:
        await ledger.off_loop(_check_place, ledger, folder)
    moment = await ledger.off_loop(ledger.backend.snapshot)
    planner = await ledger.off_loop(Planner, ledger, moment, before, progress)
    try:
        plan = await ledger.off_loop(planner.make)
        report = _report(plan, folder)
        report.dry_run = dry_run
        if not plan.entries:
            raise LedgerError(
                "there is nothing to archive: no whole bundle of 256 entries is that old and has left its runs behind",
                fix="name a later time with --before; runs that have not ended stay, and so do the latest entries",
            )
        if dry_run:
            return report
        report.manifest = await ledger.off_loop(_write, ledger, moment, planner, folder, before, progress)
        await _record(ledger, planner, report, before, by)
        await ledger.off_loop(_give_name, folder)
    finally:
        await ledger.off_loop(planner.close)
        await ledger.off_loop(moment.close)
    await _drop(ledger, await ledger.off_loop(folded.latest, ledger), folder, progress)
    return report


def archive_lock(where: Path | str, folder: Path) -> Lock:
    """The lock of whoever archives the store in a folder or at a URL: one process at a time."""
    if isinstance(where, str):
        from tightship.ledger.pg_lock import ServerLock

        return ServerLock(where, "archive")
    return ExecutorLock(folder / "archive.lock")


def _report(plan: Plan, folder: Path) -> ArchiveReport:
    logs = {log: (plan.first[log], plan.last[log]) for log in plan.logs}
    stays = sum(len(plan.stay[log]) for log in plan.stay)
    return ArchiveReport(folder, logs, plan.entries, plan.values, plan.runs, stays, plan.waiting)


# --- the folder ---------------------------------------------------------------------------------------


def _check_loans(ledger: Ledger, before: float) -> None:
    """What workers spent of a month's budgets stays while they hold loans of it: it says what a lost one had left."""
    now = datetime.fromtimestamp(ledger.world.clock.now(), UTC)
    month = datetime(now.year, now.month, 1, tzinfo=UTC)
    if "loans" not in ledger.folder.tables or before <= month.timestamp() - _MARGIN:
        return
    held = ledger.backend.select("loans", [("owner", "!=", ""), ("closed", "=", 0)], (), None)
    if any(str(row["period"]).startswith(f"{month:%Y-%m}") for row in held):
        raise LedgerError(
            "workers hold loans of this month's budgets, and what they have spent of these has to stay",
            where=ledger.backend.where,
            fix=f"name an earlier time: --before {month - timedelta(days=1):%Y-%m-%d}",
        )


def _check_place(ledger: Ledger, folder: Path) -> None:
    if ledger.path is not None and folder.is_relative_to(ledger.path.resolve()):
        raise LedgerError(
            "an archive does not lie in the store that its entries leave", where=str(folder), fix="name another folder"
        )
    try:
        if folder.exists() and any(folder.iterdir()):
            raise LedgerError(
                "the folder is not empty, and nothing is written over",
                where=str(folder),
                fix="name a new folder; nothing has left for an archive that the log does not name",
            )
    except OSError as error:
        raise StoreReadOnly(f"the folder cannot be used: {error.strerror}", where=str(folder)) from None


def _write(ledger: Ledger, moment: Moment, planner: Planner, folder: Path, before: float, progress: Progress) -> str:
    """Write the folder under its draft's name, and verify it; returns its manifest's SHA-256."""
    draft = _draft(folder)
    try:
        if draft.exists():
            shutil.rmtree(draft)
        manifest = _fill(ledger, moment, planner, FolderWriter(draft), before, progress)
        _check(ledger, draft, manifest, progress)
        sync_folder(folder.parent)
    except OSError as error:
        kind = StoreFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else StoreReadOnly
        raise kind(
            f"the archive cannot be written: {error.strerror}; nothing has left the store",
            where=str(folder),
            fix="free space there or name another folder, and run the command again",
        ) from None
    return manifest


def _draft(folder: Path) -> Path:
    return folder.with_name(folder.name + DRAFT)


def _give_name(folder: Path) -> None:
    """The folder's own name, now that the log speaks of it."""
    try:
        if folder.exists():
            folder.rmdir()
        _draft(folder).rename(folder)
        sync_folder(folder.parent)
    except OSError as error:
        raise StoreReadOnly(
            f"the archive is whole, and cannot be renamed: {error.strerror}",
            where=str(_draft(folder)),
            fix="rename it yourself, and run the command again",
        ) from None


def _fill(
    ledger: Ledger, moment: Moment, planner: Planner, writer: FolderWriter, before: float, progress: Progress
) -> str:
    plan, done = planner.plan, 0
    logs: dict[str, Any] = {}
    for log in plan.logs:
        name, log_id, seed = name_of(log), plan.ids[log], log_crc(log)
        last = ledger.backend.checkpoint(log_id)
        if last is None:
            raise StoreError(f"log {log!r} has no checkpoint", where=ledger.backend.where)
        size, note = last
        verifier = signer_of(ledger, stated_origin(note)).verifier
        writer.write(f"{name}.vkey", f"{verifier.vkey}\n".encode())
        writer.write(f"{name}/checkpoint", note.encode())
        tree = TileTree(BackendTiles(ledger.backend, log_id), size)
        for tile in tiles_of(size):
            writer.write(f"{name}/{tile.path}", tree.tile(tile))
        for row in moment.bundles(log_id):
            n = row[0] & POSITION_MASK
            if plan.first[log] <= n <= plan.last[log]:
                data = encode_bundle(entries_of_row(log, seed, row))
                writer.write(f"{name}/{Tile(ENTRIES, (n - 1) // TILE_WIDTH).path}", data)
                progress("archived", done := done + WIDTH, 0)
        logs[log] = {"first": plan.first[log], "last": plan.last[log]}
    writer.stream(VALUES, map(line_of, planner.values()))
    return writer.finish({"logs": logs, "before": before, "values": plan.values})


def _check(ledger: Ledger, folder: Path, manifest: str, progress: Progress) -> ArchiveFolder:
    """The folder as it can be read back is the archive of that manifest, with the roots that the store's key signs."""
    found = ArchiveFolder(folder)
    if found.manifest != manifest:
        raise LedgerError(
            "this is another archive than the one that is to be completed", where=str(folder), fix="name its folder"
        )
    found.check(keys_of(ledger), lambda done: progress("verified", done, 0))
    return found


# --- the log ------------------------------------------------------------------------------------------


async def _record(ledger: Ledger, planner: Planner, report: ArchiveReport, before: float, by: str) -> None:
    """Append the tables' rows, and the entry that makes the archive count."""
    tables: dict[str, Any] = {}
    await ledger.off_loop(_check_unneeded, ledger, planner.plan, _draft(report.folder))
    for table in ledger.folder.tables:
        addresses: list[str] = []
        pages = folded.pages_of(planner.scratch.rows(table))
        while (page := await ledger.off_loop(next, pages, None)) is not None:
            payload = ledger.vault.seal(PUBLIC, await ledger.off_loop(encode, page))
            body = {"table": table, "detail": payload.address}
            await ledger.append(Draft("", kinds.SNAPSHOT, "", body, payloads=(payload,)))
            addresses.append(payload.address)
        tables[table] = {"columns": list(schema()[table].defaults), "pages": addresses}
    plan = planner.plan
    await ledger.off_loop(_check_unneeded, ledger, plan, _draft(report.folder))
    index = ledger.vault.seal(PUBLIC, encode({"tables": tables, "stay": plan.stay, "upto": plan.upto}))
    body = {
        "by": by,
        "before": before,
        "folder": str(report.folder),
        "manifest": report.manifest,
        "upto": plan.upto,
        "archived": plan.last,
        "entries": plan.entries,
        "values": plan.values,
        "detail": index.address,
    }
    await ledger.append(Draft("", kinds.SNAPSHOT, "", body, payloads=(index,)))


def _check_unneeded(ledger: Ledger, plan: Plan, draft: Path) -> None:
    """Nothing that was appended since the plan goes on from a run that is to leave.

    Raises:
        LedgerError: a run was forked or linked to, or something else was put to it, or there is another archive;
            nothing has left.
    """
    for log, (_, head) in ledger.backend.heads().items():
        for page in ledger.pages(log, plan.upto.get(log, 0), head):
            for entry in page:
                if folded.is_archive(entry):
                    raise LedgerError(
                        "another process has archived this store meanwhile; nothing has left for this archive",
                        where=str(draft),
                        fix="run the command again",
                    )
                needed = [run for run in (entry.run, *runs_behind(entry)) if run in plan.gone]
                if needed:
                    raise LedgerError(
                        f"run {needed[0]} is needed again: something was put to it meanwhile; nothing has left",
                        where=str(draft),
                        fix="run the command again",
                    )


# --- dropping -----------------------------------------------------------------------------------------


def _is_to_be_completed(ledger: Ledger, known: folded.Folded, folder: Path) -> bool:
    """Whether the folder is that of the last archive, or bundles are still there that it has."""
    if _is_of(folder, known):
        return True
    moment = ledger.backend.snapshot()
    try:
        for log_id, log, _ in moment.logs():
            first = next(moment.bundles(log_id), None)
            if first is not None and first[0] & POSITION_MASK <= known.archived.get(log, 0):
                return True
    finally:
        moment.close()
    return False


def _is_of(folder: Path, known: folded.Folded) -> bool:
    """Whether the folder holds this archive."""
    return (folder / MANIFEST).exists() and ArchiveFolder(folder).manifest == known.manifest


async def _complete(ledger: Ledger, known: folded.Folded, folder: Path, progress: Progress) -> ArchiveReport:
    if await ledger.off_loop(_is_of, _draft(folder), known):
        await ledger.off_loop(_give_name, folder)
    if not await ledger.off_loop((folder / MANIFEST).exists):
        raise LedgerError(
            "an earlier archiving was cut off while entries were dropped, and is to be completed first",
            where=known.folder,
            fix=f"run the command again with --to {known.folder}, or where that folder is now",
        )
    report = ArchiveReport(folder, manifest=known.manifest, completed=True)
    found = await ledger.off_loop(_check, ledger, folder, known.manifest, progress)
    report.logs, report.values = found.logs, found.values
    report.stays = sum(map(len, known.stay.values()))
    await _drop(ledger, known, folder, progress)
    return report


async def _drop(ledger: Ledger, known: folded.Folded | None, folder: Path, progress: Progress) -> None:
    """Drop values first: the bundles that are still there say that it is not finished."""
    if known is None:
        raise StoreError("the archive's entry is not there", where=ledger.backend.where)
    await ledger.off_loop(_check_nobody_goes_on, ledger, known)
    values = ArchiveFolder(folder).sealed()
    after = dict(known.upto)
    late = await ledger.off_loop(_named_since, ledger, after)
    while part := await ledger.off_loop(_some, values):
        gone = await _drop_some(ledger, part, after, late)
        progress("dropped", gone, 0)
    await _forget_pages(ledger, known, after, late)
    dropped = 0
    for log, last in known.archived.items():
        stay = known.stay.get(log, frozenset())
        while some := await ledger.job(functools.partial(ledger.backend.drop_bundles, log, last, stay)):
            progress("dropped", dropped := dropped + some, 0)
    await ledger.job(ledger.backend.trim)


def _check_nobody_goes_on(ledger: Ledger, known: folded.Folded) -> None:
    """Nobody goes on from a run that leaves: until an archive is complete, what is in it can still be forked.

    Raises:
        LedgerError: a run that has not ended does, or a baseline that stands is made of it; nothing was dropped now.
    """
    behind: dict[str, list[str]] = {}
    for log, (_, head) in ledger.backend.heads().items():
        for page in ledger.pages(log, known.upto.get(log, 0), head):
            for entry in page:
                if found := runs_behind(entry):
                    behind[entry.run if entry.kind == kinds.STARTED else entry.body["subject"]] = found
    ended = ledger.backend.select("runs", [("id", "in", sorted(behind)), ("state", "=", "ended")], (), None)
    for run in behind.keys() - {row["id"] for row in ended}:
        for entry in ledger.backend.entries_of(behind[run]):
            if entry.n <= known.archived.get(entry.log, 0) and entry.n not in known.stay.get(entry.log, ()):
                raise LedgerError(
                    f"{run} goes on from run {entry.run}, which is to leave: nothing was dropped now",
                    where=known.folder,
                    fix="run the same command again when it has ended (a baseline: when another one stands)",
                )


async def _drop_some(ledger: Ledger, addresses: list[str], after: dict[str, int], late: set[str]) -> int:
    """Drop these values but those that are named late, then their files; returns how many."""
    gone = await ledger.job(functools.partial(ledger.backend.drop_payloads, addresses, after, late))
    await ledger.job(functools.partial(ledger.backend.drop_files, gone))
    return len(gone)


async def _forget_pages(ledger: Ledger, known: folded.Folded, after: dict[str, int], late: set[str]) -> None:
    """Drop the pages of the archive before, which nothing starts from any more."""
    rows = await ledger.select("archives", [("n", "<", known.n)], [("n", "desc")], 1)
    earlier = (await ledger.off_loop(folded.recorded, ledger, rows[0]["n"])).pages - known.pages if rows else set()
    pages = iter(sorted(earlier))
    while part := list(islice(pages, _VALUES_AT_ONCE)):
        await _drop_some(ledger, part, after, late)


def _named_since(ledger: Ledger, after: dict[str, int]) -> set[str]:
    """What entries behind these positions name; the positions go forward, so that little is read under a lock."""
    found: set[str] = set()
    for log, (_, head) in ledger.backend.heads().items():
        for page in ledger.pages(log, after.get(log, 0), head):
            for entry in page:
                found.update(addresses_in(entry.data))
        after[log] = head
    return found


def _some(values: Any) -> list[str]:
    return [raw.hex() for raw, *_ in islice(values, _VALUES_AT_ONCE)]


__all__ = ["DRAFT", "ArchiveReport", "archive", "archive_lock"]

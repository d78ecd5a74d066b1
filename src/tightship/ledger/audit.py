"""Is what is stored what was written? Verify, prove, export, rebuild: what `tightship audit` offers.

All of it streams: memory does not grow with the ledger. `progress` is called from another thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import orjson

from tightship.core.errors import (
    LedgerError,
    PayloadErased,
    StoreError,
    StoreMissing,
    StoreReadOnly,
    TamperError,
    UnknownName,
)
from tightship.core.ports import Projection
from tightship.ledger import folded
from tightship.ledger._verify import examine_files, verify_store
from tightship.ledger.archive_folder import Archives, missing, name_of
from tightship.ledger.entries import Entry, decode
from tightship.ledger.findings import AuditReport, Finding, Progress
from tightship.ledger.ledger import DEFAULT_LOG, Ledger
from tightship.ledger.merkle.export import export_log
from tightship.ledger.merkle.keys import NoteVerifier
from tightship.ledger.merkle.proof import build_bundle
from tightship.ledger.merkle.tiles import TILE_WIDTH
from tightship.ledger.references import addresses_of
from tightship.ledger.sequencer import BackendTiles, cover, signer_of, stated_origin
from tightship.ledger.vault import Vault

_T = TypeVar("_T")


def _silent(stage: str, done: int, total: int) -> None:
    """Nobody watches."""


async def verify(
    ledger: Ledger, progress: Progress = _silent, *, integrate: bool = True, archives: Sequence[Path] = ()
) -> AuditReport:
    """Check the whole store: file structure, entries, hashes, checkpoints, payloads, keys, projections.

    Works beside a process that executes: it reads one snapshot. A store that was taken back as a whole to an earlier
    state (file, keys and all) is consistent in itself; only somebody who kept a later checkpoint can tell.

    Args:
        ledger: the store's ledger.
        progress: told how far it is.
        integrate: when nothing is damaged and no process executes, put entries that no checkpoint covers under one.
        archives: folders with what has left the store, to be checked as well.
    """
    report = await _in_thread(ledger, verify_store, ledger, progress, archives)
    if report.ok and report.uncovered and integrate and not ledger.backend.read_only:
        report.integrated = await cover(ledger)
    return report


async def verify_folder(
    folder: Path, projections: Iterable[Projection], progress: Progress = _silent, *, integrate: bool = True
) -> AuditReport:
    """`verify` for a store that may be too damaged to be opened: then what keeps it from opening is what is found.

    Args:
        folder: the store's folder.
        projections: those of its workspace.
        progress, integrate: as `verify` has them.

    Raises:
        StoreMissing: there is no store. StoreReadOnly: the folder cannot be used.
    """
    try:
        ledger = await Ledger.open(folder, projections=projections, create=False)
    except (StoreMissing, StoreReadOnly):
        raise
    except (StoreError, TamperError) as error:
        return await asyncio.to_thread(examine_files, folder, error)
    try:
        return await verify(ledger, progress, integrate=integrate)
    finally:
        await ledger.close()


async def prove(ledger: Ledger, n: int, log: str = DEFAULT_LOG, archives: Sequence[Path] = ()) -> str:
    """One entry with the proof that it stands in the log: C2SP tlog-proof text, which needs no store to be checked.

    Args:
        n: the entry's position. Proofs count from 0: the text says `index n - 1`.
        archives: folders with what has left the store.

    Raises:
        UnknownName: there is no such entry. Archived: it has left. LedgerError: no checkpoint covers it yet.
        TamperError: what is stored does not prove it.
    """
    return await _in_thread(ledger, _prove, ledger, n, log, archives)


def _prove(ledger: Ledger, n: int, log: str, archives: Sequence[Path]) -> str:
    log_id, head = _log(ledger, log)
    found = _reader(ledger, log, archives)(n - 1, 1) if 0 < n <= head else []
    if not found:
        raise UnknownName(f"the log {log!r} has no entry {n}", fix=f"its entries are 1 to {head}")
    last = ledger.backend.checkpoint(log_id)
    if last is None or last[0] < n:
        raise LedgerError(
            f"no checkpoint covers entry {n} yet",
            fix="run `tightship audit verify`, which puts new entries under one while nothing executes",
        )
    return build_bundle(BackendTiles(ledger.backend, log_id), n - 1, found[0], last[1], _verifier(ledger, last[1]))


@dataclass(slots=True)
class ExportReport:
    """What was written.

    Attributes:
        folder: where. logs: entries by log. uncovered: entries that no checkpoint covers, which were left out.
        values: payloads that were opened and written out. erased: those that nobody can open any more.
    """

    folder: Path
    logs: dict[str, int] = field(default_factory=dict[str, int])
    uncovered: int = 0
    values: int = 0
    erased: int = 0

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON."""
        return {
            "folder": str(self.folder),
            "logs": dict(self.logs),
            "uncovered": self.uncovered,
            "values": self.values,
            "erased": self.erased,
        }


async def export(
    ledger: Ledger,
    folder: Path,
    progress: Progress = _silent,
    *,
    plain: bool = False,
    integrate: bool = True,
    archives: Sequence[Path] = (),
) -> ExportReport:
    """Write the logs as others read them: per log `NAME/` (C2SP tlog-tiles), `NAME.jsonl` and `NAME.vkey`.

    Args:
        folder: new, or an earlier export, which is brought up to date.
        progress: told how far it is.
        plain: write the opened values of the entries' payloads beside each entry of the JSON lines. They leave the
            vault for good: what is erased later stays readable there.
        integrate: put new entries under a checkpoint first, when no process executes.
        archives: folders with what has left the store.

    Raises:
        TamperError: entries, tiles and checkpoint do not fit together. LedgerError: the folder holds something else.
        StoreReadOnly: it cannot be written.
    """
    if integrate:
        await cover(ledger)
    return await _in_thread(ledger, _export, ledger, folder, progress, plain, archives)


def _export(ledger: Ledger, folder: Path, progress: Progress, plain: bool, archives: Sequence[Path]) -> ExportReport:
    report = ExportReport(folder)
    heads = ledger.backend.heads()
    total, done = sum(head for _, head in heads.values()), 0
    try:
        for log, (log_id, head) in heads.items():
            last = ledger.backend.checkpoint(log_id)
            size = 0 if last is None else last[0]
            report.uncovered += head - size
            if last is None:
                continue
            verifier = _verifier(ledger, last[1])
            target = folder / name_of(log)
            export_log(
                target,
                checkpoint=last[1],
                keys=[verifier],
                tiles=BackendTiles(ledger.backend, log_id),
                entries=(read := _reader(ledger, log, archives)),
                progress=lambda count, before=done: progress("tiles", before + count, total),
            )
            target.with_name(f"{target.name}.vkey").write_text(f"{verifier.vkey}\n", "utf-8")
            _write_lines(
                target.with_name(f"{target.name}.jsonl"),
                log,
                size,
                _Values(ledger, archives) if plain else None,
                report,
                read,
            )
            report.logs[log] = size
            done += size
            progress("entries", done, total)
    except OSError as error:
        raise StoreReadOnly(f"the export cannot be written: {error.strerror}", where=str(folder)) from None
    return report


def _reader(ledger: Ledger, log: str, folders: Sequence[Path]) -> Callable[[int, int], Sequence[bytes]]:
    """Entries by index, from the store and from archives.

    Raises:
        Archived: one has left for an archive that is not among these.
    """
    known, archives = folded.latest(ledger), Archives(folders)
    left = known.archived.get(log, 0) if known else 0

    def read(start: int, count: int) -> list[bytes]:
        rows = ledger.backend.entries(log, start, count)
        there = [n for n, _ in rows] == list(range(start + 1, start + 1 + len(rows)))
        if (there and len(rows) == count) or start >= left:
            return [data for _, data in rows] if there else []
        found = archives.entries(log, start, count)
        if not found:
            raise missing(log, start + 1)
        return found

    return read


class _Values:
    """Opens payloads from the store and from archives, which are gone through once for where they are."""

    def __init__(self, ledger: Ledger, folders: Sequence[Path]) -> None:
        self._ledger, self._vault = ledger, Vault(ledger.vault.keyring.reader())
        self._left = {
            raw.hex(): (scope, data) for one in Archives(folders).folders for raw, scope, data, _ in one.sealed()
        }

    def of(self, entry: Entry, report: ExportReport) -> dict[str, Any]:
        """The entry's payloads by address, opened; of those that were erased, the addresses."""
        values: dict[str, Any] = {}
        erased: list[str] = []
        wanted = list(dict.fromkeys(addresses_of(entry)))
        sealed = {address: self._left[address] for address in wanted if address in self._left}
        for address, (scope, data) in {**sealed, **self._ledger.sealed(wanted)}.items():
            try:
                values[address] = orjson.loads(self._vault.open(address, scope, data or b""))
            except PayloadErased:
                erased.append(address)
        report.values += len(values)
        report.erased += len(erased)
        return {"values": values, "erased": erased} if erased else {"values": values}


def _write_lines(
    path: Path,
    log: str,
    size: int,
    values: _Values | None,
    report: ExportReport,
    read: Callable[[int, int], Sequence[bytes]],
) -> None:
    draft = path.with_name(f"{path.name}.new")
    with draft.open("wb") as file:
        for start in range(0, size, TILE_WIDTH):
            for n, data in enumerate(read(start, min(TILE_WIDTH, size - start)), start=start + 1):
                entry = decode(log, n, data)
                line = entry.as_dict()
                if values is not None:
                    line |= values.of(entry, report)
                file.write(orjson.dumps(line) + b"\n")
    draft.rename(path)


@dataclass(slots=True)
class RebuildReport:
    """The projections as they stand after a rebuild: rows by table."""

    tables: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON."""
        return {"tables": dict(self.tables)}


async def rebuild(ledger: Ledger, progress: Progress = _silent, archives: Sequence[Path] = ()) -> RebuildReport:
    """Make every projection anew from the log; with archives from its first entry, also where entries have left.

    Raises:
        TamperError: an entry is damaged; nothing was changed.
    """
    total = sum(head for _, head in (await ledger.off_loop(ledger.backend.heads)).values())
    return RebuildReport(
        await ledger.rebuild(
            lambda done: progress("entries", done, max(done, total)), Archives(archives) if archives else None
        )
    )


def _log(ledger: Ledger, log: str) -> tuple[int, int]:
    found = ledger.backend.heads().get(log)
    if found is None:
        raise UnknownName(f"there is no log {log!r}", fix=f"there are: {', '.join(ledger.backend.heads()) or 'none'}")
    return found


def _verifier(ledger: Ledger, note: str) -> NoteVerifier:
    return signer_of(ledger, stated_origin(note)).verifier


async def _in_thread(ledger: Ledger, function: Callable[..., _T], *args: Any) -> _T:
    """Off the loop; in memory here and now, so that a simulation stays deterministic."""
    if not ledger.in_threads:
        return function(*args)
    return await asyncio.to_thread(function, *args)


__all__ = [
    "AuditReport",
    "ExportReport",
    "Finding",
    "Progress",
    "RebuildReport",
    "export",
    "prove",
    "rebuild",
    "verify",
    "verify_folder",
]

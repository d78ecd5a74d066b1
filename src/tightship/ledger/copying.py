"""A whole store from one place to another, byte for byte: entries, values, keys, tiles, checkpoints, readings.

Either all of it is there afterwards or nothing: a folder is made under another name and renamed at the end, a database
is written in one transaction. Keys go first, since a ledger without its keys could not be opened; they are wrapped by
the same master key, so a copy that was cut off finds them there and goes on.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson

from tightship.core.errors import StoreError, TamperError
from tightship.core.ports import Projection
from tightship.ledger.audit import verify
from tightship.ledger.backend import Moment, Row
from tightship.ledger.entries import payload_crc
from tightship.ledger.findings import AuditReport, Progress
from tightship.ledger.ledger import Ledger
from tightship.ledger.locks import executor_lock
from tightship.ledger.master_key import MASTER_VARIABLE

DRAFT: Final = ".copying"
"""What the name of a folder has until it is whole."""
_KEYS_AT_ONCE: Final = 1000
_FIX: Final = "`tightship audit verify` on the source says what is damaged; restore it from your backup"


@dataclass(slots=True)
class CopyReport:
    """What was copied: entries by log, payloads, keys; and what the copy's audit checked."""

    logs: dict[str, int] = field(default_factory=dict[str, int])
    payloads: int = 0
    keys: int = 0
    checked: int = 0

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON."""
        return {"logs": dict(self.logs), "payloads": self.payloads, "keys": self.keys, "checked": self.checked}


async def copy_store(
    source: Path | str,
    target: Path | str,
    folder: Path,
    name: str,
    projections: Iterable[Projection],
    progress: Progress,
) -> CopyReport:
    """Copy a store and verify the copy.

    Args:
        source, target: a folder or a URL each.
        folder: where the master key's file is when a database is on either side.
        name: the workspace's name, which a database keeps.
        projections: those of the workspace.
        progress: told how far it is, from another thread.

    Raises:
        ExecutorBusy: somebody executes on the source. StoreMissing: there is no source.
        StoreError: the target is not empty, or the copy is not the source.
    """
    projections = tuple(projections)
    place = target if isinstance(target, str) else await asyncio.to_thread(_draft_of, target)
    given = await Ledger.open(source, None, projections, create=False, folder=folder, name=name)
    try:
        lock = executor_lock(source, source if isinstance(source, Path) else folder)
        await asyncio.to_thread(lock.acquire)
        try:
            _nobody_executes(given)
            _is_sound(await verify(given, progress, integrate=False), given.backend.where)
            await asyncio.to_thread(_bring_master, source, place, folder)
            report = await _fill(given, place, folder, name, progress)
            await _check(given, place, folder, name, projections, progress, report)
        finally:
            lock.release()
    finally:
        await given.close()
    if isinstance(target, Path) and isinstance(place, Path):
        await asyncio.to_thread(place.rename, target)
    return report


def _draft_of(target: Path) -> Path:
    """The folder that becomes the target; what an earlier copy has left of it is thrown away."""
    if target.exists():
        raise StoreError(
            "there is something already, and nothing is written over", where=str(target), fix="name a new folder"
        )
    draft = target.with_name(f"{target.name}{DRAFT}")
    shutil.rmtree(draft, ignore_errors=True)
    (draft / "keys").mkdir(parents=True, mode=0o700)
    return draft


def _bring_master(source: Path | str, target: Path | str, folder: Path) -> None:
    """Give the target the source's master key, where it is a file of its own."""
    if os.environ.get(MASTER_VARIABLE):
        return
    ours = (source if isinstance(source, Path) else folder) / "keys" / "master.key"
    theirs = (target if isinstance(target, Path) else folder) / "keys" / "master.key"
    if theirs.exists() or not ours.exists():
        return  # another key than the source's is found out when the copy is opened
    theirs.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    theirs.touch(0o600)
    theirs.write_bytes(ours.read_bytes())


def _nobody_executes(source: Ledger) -> None:
    working = [row["id"] for row in source.backend.workers() if row["alive"]]
    if working:
        raise StoreError(
            f"{len(working)} workers execute on this workspace",
            where=source.backend.where,
            fix="stop them, and copy then",
        )


async def _fill(source: Ledger, place: Path | str, folder: Path, name: str, progress: Progress) -> CopyReport:
    target = await Ledger.open(place, None, (), folder=folder, name=name)
    try:
        if await target.off_loop(target.backend.heads):
            raise StoreError(
                "the target is not empty, and nothing is written over",
                where=target.backend.where,
                fix="name a new folder, or another schema with ?schema=NAME",
            )
        report = CopyReport()
        await target.job(lambda: _copy_all(source, target, report, progress))
        return report
    finally:
        await target.close()


def _copy_all(source: Ledger, target: Ledger, report: CopyReport, progress: Progress) -> None:
    """On the target's writer: keys, then everything else in one transaction."""
    moment = source.backend.snapshot()
    try:
        _copy_keys(source, target, report, progress)
        for origin, vkey in source.backend.public_keys().items():
            target.backend.publish(origin, vkey)
        logs = moment.logs()
        report.logs = {name: head for _, name, head in logs}
        last = 0
        for _, log, head in logs:
            for _, data in source.backend.entries(log, head - 1, 1):
                last = max(last, orjson.loads(data)["at"])
        target.backend.load(_tables(source, target, moment, logs, report, progress), last)
    finally:
        moment.close()


def _copy_keys(source: Ledger, target: Ledger, report: CopyReport, progress: Progress) -> None:
    after = ""
    while rows := source.vault.keyring.store.page(after, _KEYS_AT_ONCE):
        after = rows[-1].name
        if target.vault.keyring.store.put(rows):
            raise StoreError(
                "the target's keystore holds other keys of the same names",
                where=target.backend.where,
                fix="name a new folder, or another schema with ?schema=NAME",
            )
        report.keys += len(rows)
        progress("keys", report.keys, 0)


def _tables(
    source: Ledger, target: Ledger, moment: Moment, logs: list[Row], report: CopyReport, progress: Progress
) -> Iterator[tuple[str, Iterable[Row]]]:
    """Every table with its rows, in the schema's order of columns."""
    total = sum(row[2] for row in logs)
    yield "logs", logs
    yield "entries", _entries(moment, logs, total, progress)
    yield "kept", (row for log_id, _, _ in logs for page in moment.kept(log_id) for row in page)
    yield "bundles", (row for log_id, _, _ in logs for row in moment.bundles(log_id))
    for table in ("bundle_runs", "tiles", "checkpoints"):
        yield table, moment.projection(table)
    yield "payloads", _payloads(source, target, moment, report, progress)
    for table in source.folder.tables:
        yield table, moment.projection(table)


def _entries(moment: Moment, logs: list[Row], total: int, progress: Progress) -> Iterator[Row]:
    done = 0
    for log_id, _, _ in logs:
        for page in moment.entries(log_id):
            yield from page
            done += len(page)
            progress("entries", done, max(total, done))


def _payloads(source: Ledger, target: Ledger, moment: Moment, report: CopyReport, progress: Progress) -> Iterator[Row]:
    """Rows of payloads; large ones come out of files, and go into files, as either store has them."""
    total, limit = moment.counts()["payloads"], target.backend.file_from
    for page in moment.payloads():
        for row_id, raw, scope, data, crc in page:
            address = raw.hex()
            sealed = source.disk.read(address) if data is None else bytes(data)
            if sealed is None or payload_crc(raw, scope, sealed) != crc:
                raise TamperError(
                    f"payload {address} is not what was written",
                    fix="`tightship audit verify` says what else is damaged",
                )
            if limit is not None and len(sealed) > limit:
                target.disk.write(address, sealed)
                yield (row_id, raw, scope, None, crc)
            else:
                yield (row_id, raw, scope, sealed, crc)
        report.payloads += len(page)
        progress("payloads", report.payloads, max(total, report.payloads))


async def _check(
    source: Ledger,
    place: Path | str,
    folder: Path,
    name: str,
    projections: Iterable[Projection],
    progress: Progress,
    report: CopyReport,
) -> None:
    """Audit the copy, readings included, and compare heads and signed roots."""
    copy = await Ledger.open(place, None, projections, create=False, folder=folder, name=name)
    try:
        audit = await verify(copy, progress, integrate=False)
        report.checked = audit.entries
        for log, (log_id, head) in (await copy.off_loop(copy.backend.heads)).items():
            theirs = await source.off_loop(source.backend.checkpoint, log_id)
            if report.logs.get(log) != head or await copy.off_loop(copy.backend.checkpoint, log_id) != theirs:
                raise StoreError(f"the copy's log {log!r} is not the source's", where=copy.backend.where)
        _is_sound(audit, copy.backend.where)
    finally:
        await copy.close()


def _is_sound(audit: AuditReport, where: str) -> None:
    if not audit.ok:
        raise StoreError(f"the store does not verify: {audit.findings[0]}", where=where, fix=_FIX)

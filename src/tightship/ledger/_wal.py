"""What a write-ahead log holds, checked before SQLite reads it.

After a crash SQLite takes the log up to the first frame whose checksum does not hold, and drops the rest without a
word: right for a commit that was cut off, wrong for a disk that has flipped a byte, since commits that were
acknowledged go with it. So the log of a dead process is read here first (file format: sqlite.org/fileformat2.html,
section 4). A commit that stands whole behind a broken frame and its transaction proves damage, since it was begun
only after the one before was on the disk; then nothing is opened. Where a broken frame may be either, the log is
set aside as evidence, and `audit verify` reports it until somebody has looked.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import sqlite3
import struct
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from tightship.core.errors import StoreCorrupt, StoreReadOnly

_HEADER: Final = 32
_FRAME: Final = 24
_MAGIC: Final = {0x377F0682: "<", 0x377F0683: ">"}
_VERSION: Final = 3_007_000
_LOOKS: Final = 20
_LOOK_AGAIN: Final = 0.02
ASIDE: Final = ".cut-"
"""What the name of a log that was set aside has after the log's own."""


@dataclass(frozen=True, slots=True)
class WalReport:
    """What was found: `broken`, the first frame (from 1, 0 is the header) that does not hold; None when all do."""

    frames: int
    kept: int
    """frames that SQLite will read: up to the last whole commit"""
    broken: int | None = None
    lost_commits: int = 0
    """whole commits behind the transaction that holds the broken frame"""


def check_before_writing(path: Path, keep: bool = True) -> list[str]:
    """Look at the write-ahead log that a dead process has left beside this database; [] when all is well.

    Args:
        path: the database.
        keep: copy a suspicious log aside; not where nothing may be written.

    Returns: what is suspicious, in words; the log has been copied aside then.

    Raises:
        StoreCorrupt: commits that were acknowledged cannot be read. StoreReadOnly: the copy cannot be written.
    """
    wal = Path(f"{path}-wal")
    try:
        if wal.stat().st_size <= _HEADER or _alive(path.parent / "executor.lock"):
            return []
        report = _settled_report(wal)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StoreReadOnly(f"the write-ahead log cannot be checked: {error.strerror}", where=str(wal)) from None
    if report.broken is None:
        return []
    place = f"frame {report.broken} of {report.frames}" if report.broken else "the header"
    if report.lost_commits or report.broken == 0:
        raise StoreCorrupt(
            f"the write-ahead log is damaged at {place}: "
            + ("later commits" if report.lost_commits else "its commits")
            + " would be lost",
            where=str(wal),
            fix="restore the store from your backup; to go on without them, move this file away",
        )
    kept = f". The log was kept as {_set_aside(wal).name}" if keep else ""
    suspicion = (
        f"{wal.name}: {place} does not hold, so that its commit was not taken over: it was cut off before anybody "
        f"was told that it stands (a power failure), or the disk has damaged it{kept}"
    )
    logging.getLogger(__name__).warning(suspicion)
    return [suspicion]


def _settled_report(wal: Path) -> WalReport:
    """A broken frame counts only when it stays so: another command may be in the middle of writing it."""
    before: WalReport | None = None
    for _ in range(_LOOKS):
        report = scan(wal)
        if report.broken is None or report == before:
            return report
        before = report
        time.sleep(_LOOK_AGAIN)
    return WalReport(0, 0)  # it keeps changing: its process lives


def kept_aside(path: Path) -> list[Path]:
    """Logs of this database that were set aside and not removed since."""
    return sorted(path.parent.glob(f"{path.name}-wal{ASIDE}*"))


def scan(wal: Path) -> WalReport:
    """Compare what SQLite will take over from a write-ahead log with what else there is in it."""
    with wal.open("rb") as file:
        header = file.read(_HEADER)
        if len(header) < _HEADER:
            return WalReport(0, 0)
        magic, version, page, _, *rest = struct.unpack(">8I", header)
        order = _MAGIC.get(magic, "")
        known = order and version == _VERSION and 512 <= page <= 65_536 and not page & (page - 1)
        if not known or _checksum(order, header[:24], (0, 0)) != (rest[2], rest[3]):
            return WalReport(0, 0, broken=0)
        frames = (os.fstat(file.fileno()).st_size - _HEADER) // (_FRAME + page)
        kept = _recovered(wal, page)
        broken, commits = _look_behind(file, order, page, (rest[0], rest[1]), kept)
    # the first commit behind the broken frame may be that of the transaction that was cut off
    return WalReport(frames, kept, broken, max(0, commits - 1))


def _recovered(wal: Path, page: int) -> int:
    """How many frames SQLite takes over. It is asked on a copy, which is much faster than to sum up the frames here."""
    with tempfile.TemporaryDirectory(prefix="tightship-") as folder:
        path = Path(folder) / "copy"
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.executescript(
                f"PRAGMA synchronous=OFF; PRAGMA page_size={page}; PRAGMA journal_mode=WAL; CREATE TABLE t (x)"
            )
        shutil.copyfile(wal, f"{path}-wal")
        with contextlib.closing(sqlite3.connect(path)) as db:
            with contextlib.suppress(sqlite3.DatabaseError):  # the copy has none of the other pages
                db.execute("PRAGMA synchronous=OFF")
                db.execute("PRAGMA user_version").fetchone()
            # mxFrame of the index that recovery has built (sqlite.org/walformat.html, section 2.1)
            index = Path(f"{path}-shm").read_bytes()[16:20]
    return int.from_bytes(index, sys.byteorder)


def _look_behind(file: BinaryIO, order: str, page: int, salts: tuple[int, int], kept: int) -> tuple[int | None, int]:
    """The first frame behind the kept ones that does not hold, and whole commits from there on (2 are enough)."""
    before = _sums_of(file, page, kept)
    broken: int | None = None
    commits, number, chained = 0, kept, True
    file.seek(_HEADER + kept * (_FRAME + page))
    while commits < 2 and len(data := file.read(_FRAME + page)) == _FRAME + page:
        number += 1
        _, commit, salt1, salt2, sum1, sum2 = struct.unpack_from(">6I", data)
        current = (salt1, salt2) == salts
        if salt1 != salts[0] and salt2 != salts[1]:
            if broken is None:
                break  # from here on it is what an earlier use of the log has left
            continue
        whole = _checksum(order, data[:8] + data[_FRAME:], before) == (sum1, sum2)
        chained = chained and current and whole
        if broken is None and not chained:
            broken = number
        if broken is not None and current and commit and (whole or number == broken):
            commits += 1
        before = (sum1, sum2)
    return broken, commits


def _sums_of(file: BinaryIO, page: int, frame: int) -> tuple[int, int]:
    """The checksums that a frame states (those of the header for frame 0): what the next one goes on from."""
    file.seek(24 if frame == 0 else _HEADER + (frame - 1) * (_FRAME + page) + 16)
    first, second = struct.unpack(">2I", file.read(8))
    return first, second


def _checksum(order: str, data: bytes, sums: tuple[int, int]) -> tuple[int, int]:
    """SQLite's running sums over pairs of words."""
    s0, s1 = sums
    words = iter(struct.unpack(f"{order}{len(data) // 4}I", data))
    for first, second in zip(words, words, strict=True):
        s0 = (s0 + first + s1) & 0xFFFFFFFF
        s1 = (s1 + second + s0) & 0xFFFFFFFF
    return s0, s1


def _alive(lock: Path) -> bool:
    """Whether a process executes on this store: then the log is its own, and being written."""
    try:
        handle = os.open(lock, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def _set_aside(wal: Path) -> Path:
    number = 1
    while (aside := wal.with_name(f"{wal.name}{ASIDE}{number}")).exists():
        number += 1
    try:
        shutil.copyfile(wal, aside)
    except OSError as error:
        raise StoreReadOnly(
            f"a damaged write-ahead log cannot be kept: {error.strerror}",
            where=str(aside),
        ) from None
    return aside

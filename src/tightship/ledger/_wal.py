"""What a write-ahead log holds, checked before SQLite reads it.

After a crash SQLite takes the log up to the first frame whose checksum does not hold, and drops the rest without a
word: right for a commit that was cut off, wrong for a disk that has flipped a byte, since commits that were
acknowledged go with it. So the log of a dead process is read here first (file format: sqlite.org/fileformat2.html,
section 4). A commit that stands whole behind a broken frame and its transaction proves damage, since it was begun
only after the one before was on the disk; then nothing is opened. Where a broken frame may be either, the log is
set aside as evidence, and `audit verify` reports it until somebody has looked.
"""

from __future__ import annotations

import fcntl
import logging
import operator
import os
import shutil
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
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
class _Frame:
    """A frame as it lies in the file. `current` says that its salts are this log's, `near` that one of them is."""

    commit: bool
    current: bool
    near: bool
    whole: bool
    """its checksum follows from the one stored in the frame before"""
    chained: bool
    """the frames before it are whole as well"""


@dataclass(frozen=True, slots=True)
class WalReport:
    """What was found: `broken`, the first frame (from 1, 0 is the header) that does not hold; None when all do."""

    frames: int
    kept: int
    """frames that SQLite will read: up to the last whole commit"""
    broken: int | None = None
    lost_commits: int = 0
    """whole commits behind the transaction that holds the broken frame"""


def check_before_writing(path: Path) -> list[str]:
    """Look at the write-ahead log that a dead process has left beside this database; [] when all is well.

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
        raise StoreReadOnly(f"the write-ahead log cannot be read: {error.strerror}", where=str(wal)) from None
    if report.broken is None:
        return []
    place = f"frame {report.broken} of {report.frames}" if report.broken else "the header"
    if report.lost_commits or report.broken == 0:
        raise StoreCorrupt(
            f"the write-ahead log is damaged at {place}: "
            + (f"at least {report.lost_commits} later commits" if report.lost_commits else "its commits")
            + " would be lost",
            where=str(wal),
            fix="restore the store from your backup; to go on without them, move this file away",
        )
    aside = _set_aside(wal)
    suspicion = (
        f"{wal.name}: {place} does not hold, so that its commit was not taken over: it was cut off before anybody "
        f"was told that it stands (a power failure), or the disk has damaged it. The log was kept as {aside.name}"
    )
    logging.getLogger(__name__).warning(suspicion)
    return [suspicion]


def _settled_report(wal: Path) -> WalReport:
    """A broken frame counts only when it stays so: another command may be in the middle of writing it."""
    report: WalReport | None = None
    for _ in range(_LOOKS):
        before, report = report, _scan_file(wal)
        if report.broken is None or report == before:
            break
        time.sleep(_LOOK_AGAIN)
    assert report is not None
    return report


def _scan_file(wal: Path) -> WalReport:
    with wal.open("rb") as file:
        return scan(file)


def kept_aside(path: Path) -> list[Path]:
    """Logs of this database that were set aside and not removed since."""
    return sorted(path.parent.glob(f"{path.name}-wal{ASIDE}*"))


def scan(file: BinaryIO) -> WalReport:
    """Check every frame of a write-ahead log against its checksum."""
    header = file.read(_HEADER)
    size = os.fstat(file.fileno()).st_size
    magic, version, page, _, salt1, salt2, sum1, sum2 = struct.unpack(">8I", header)
    order = _MAGIC.get(magic)
    if (
        order is None
        or version != _VERSION
        or not 512 <= page <= 65_536
        or page & (page - 1)
        or _checksum(order, header[:24], (0, 0)) != (sum1, sum2)
    ):
        return WalReport(0, 0, broken=0)
    kept = number = 0
    broken: int | None = None
    commits_behind = 0
    for number, frame in enumerate(_frames(file, order, page, (salt1, salt2), (sum1, sum2)), start=1):
        if broken is None:
            if frame.chained and frame.current:
                kept = number if frame.commit else kept
            elif frame.near:
                broken = number
                commits_behind = int(frame.commit and frame.current)
            else:
                break  # from here on it is what an earlier use of the log has left
        elif frame.current and frame.whole and frame.commit:
            commits_behind += 1
    # the first commit at or behind the broken frame may be of the transaction that was cut off
    return WalReport((size - _HEADER) // (_FRAME + page), kept, broken, max(0, commits_behind - 1))


def _frames(
    file: BinaryIO,
    order: str,
    page: int,
    salts: tuple[int, int],
    start: tuple[int, int],
) -> Iterator[_Frame]:
    before, chained = start, True
    while len(data := file.read(_FRAME + page)) == _FRAME + page:
        _, commit, salt1, salt2, sum1, sum2 = struct.unpack_from(">6I", data)
        current = (salt1, salt2) == salts
        near = salt1 == salts[0] or salt2 == salts[1]
        whole = near and _checksum(order, data[:8] + data[_FRAME:], before) == (
            sum1,
            sum2,
        )
        chained = chained and whole and current
        yield _Frame(commit > 0, current, near, whole, chained)
        before = (sum1, sum2)


def _checksum(order: str, data: bytes, start: tuple[int, int]) -> tuple[int, int]:
    """SQLite's running sum over pairs of words, `s0 += x[0] + s1; s1 += x[1] + s0` for each, as two dot products."""
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    first, second, (a, b, c, d) = _weights(len(words))
    s0 = a * start[0] + b * start[1] + sum(map(operator.mul, first, words))
    s1 = c * start[0] + d * start[1] + sum(map(operator.mul, second, words))
    return s0 & 0xFFFFFFFF, s1 & 0xFFFFFFFF


@cache
def _weights(words: int) -> tuple[list[int], list[int], tuple[int, int, int, int]]:
    """How much each word, and each of the two starting sums, counts in the two sums at the end (modulo 2^32)."""
    mask = 0xFFFFFFFF
    first, second = [0] * words, [0] * words
    # the sums after the last step, in terms of the sums before the step that is looked at
    a, b, c, d = 1, 0, 0, 1
    for at in range(words - 2, -1, -2):
        # s0' = s0 + s1 + x;  s1' = s0 + 2 s1 + x + y
        first[at], second[at] = (a + b) & mask, (c + d) & mask
        first[at + 1], second[at + 1] = b, d
        a, b, c, d = (
            (a + b) & mask,
            (a + 2 * b) & mask,
            (c + d) & mask,
            (c + 2 * d) & mask,
        )
    return first, second, (a, b, c, d)


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

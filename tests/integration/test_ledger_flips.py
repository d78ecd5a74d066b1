"""A byte that a disk has flipped, anywhere in a store: it is found and located, or it was in space that holds nothing.

Each flip is made in a fresh copy of a real store. What the rows say is read without the ledger, by SQLite alone.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from ledger_desk import Store, dump, fill, flip, note, projections, script
from tightship.core.errors import StoreError, TightshipError
from tightship.ledger import Ledger
from tightship.ledger.audit import verify
from tightship.ledger.sequencer import Sequencer

SEED = 20260101


@dataclass
class Sample:
    """A store that nobody has open, and its files."""

    folder: Path

    def files(self) -> list[Path]:
        names = ["ledger.db", "ledger.db-wal", "keys/keys.db", "keys/master.key", "log.vkey"]
        paths = [self.folder / name for name in names]
        return [path for path in paths if path.exists()] + sorted((self.folder / "payloads").glob("*/*"))

    def copy(self, to: Path) -> Sample:
        shutil.copytree(self.folder, to, ignore=shutil.ignore_patterns("*-shm"))
        return Sample(to)


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    """Where copies lie: in memory, where the machine has such a folder, since each is made durable many times."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else tmp_path))
    yield folder / "copy"
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    """A store that was closed in order: bundles, tiles, checkpoints, entries that are not packed, files, an erasure."""

    async def make() -> Path:
        store = Store("sqlite", tmp_path_factory.mktemp("whole"))
        ledger = await store.open()
        await fill(ledger, runs=72)
        await Sequencer(ledger).close()
        # entries that no checkpoint covers: only their rows' checksums speak for them
        await asyncio.gather(*(ledger.append(note(f"r-{n:03d}", n=n)) for n in range(40)))
        report = await verify(ledger, integrate=False)
        assert report.ok, report.findings
        kinds = (report.tiles, report.checkpoints, report.files, report.erased, report.uncovered, report.keys)
        assert all(kinds), "something of everything is in it"
        assert ledger.backend._read("SELECT count(*) FROM bundles") == [(2,)]  # type: ignore[union-attr]
        await store.close()
        return store.folder / "store"

    return Sample(asyncio.run(make()))


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    """A store whose process was killed: what was acknowledged last lies in the write-ahead log alone."""
    folder = tmp_path_factory.mktemp("killed") / "store"
    text = (
        "async def main():\n"
        "    ledger = await Ledger.open(STORE, None, projections())\n"
        "    await fill(ledger, runs=8, effects=1)\n"
        "    from tightship.ledger.sequencer import Sequencer\n"
        "    await Sequencer(ledger).run_once()\n"
        "    for n in range(6): await ledger.append(note(n=n))\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run(script(folder, text), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (folder / "ledger.db-wal").stat().st_size > 100_000
    return Sample(folder)


async def examine(folder: Path) -> str | None:
    """What the audit says of a store: the first place that it names, or None when all is well."""
    try:
        ledger = await Ledger.open(folder, None, projections(), create=False)
    except StoreError as error:
        assert error.where or "key" in error.message, f"no place is named: {error}"
        return str(error)
    try:
        report = await verify(ledger, integrate=False)
    finally:
        await ledger.close()
    if report.ok:
        return None
    assert all(found.file and found.place and found.message for found in report.findings)
    return str(report.findings[0])


def same_content(sample: Sample, before: dict[str, object]) -> bool:
    """Whether every row of every table, and every other file, is byte for byte what it was."""
    return contents(sample) == before


def contents(sample: Sample) -> dict[str, object]:
    parts: dict[str, object] = {
        str(path.relative_to(sample.folder)): path.read_bytes()
        for path in sample.files()
        if path.suffix != ".db" and not path.name.endswith("-wal")
    }
    for name in ("ledger.db", "keys/keys.db"):
        parts[name] = dump(sample.folder / name)
    return parts


def check_flip(sample: Sample, scratch: Path, before: dict[str, object], path: Path, at: int, mask: int) -> str:
    """Flip one byte of a copy; returns what was said of it, or `harmless`.

    It fails when nothing was said although something has changed.
    """
    try:
        said = asyncio.run(examine(_flipped(sample, scratch, path, at, mask).folder))
        if said is None:
            shutil.rmtree(scratch)
            unchanged = same_content(_flipped(sample, scratch, path, at, mask), before)
            assert unchanged, f"nothing was found: byte {at} of {path} ^ {mask:#04x}"
        return said or "harmless"
    finally:
        shutil.rmtree(scratch)


def _flipped(sample: Sample, scratch: Path, path: Path, at: int, mask: int) -> Sample:
    copy = sample.copy(scratch)
    flip(copy.folder / path, at, mask)
    return copy


def places(sample: Sample, count: int, choose: Callable[[random.Random, int], int]) -> list[tuple[Path, int, int]]:
    """Random bytes of all files, most of them in the two databases, some in each."""
    chance = random.Random(SEED)
    files = sample.files()
    weights = [{"ledger.db": 12, "keys.db": 4}.get(path.name, 1) for path in files]
    picked: list[tuple[Path, int, int]] = []
    for number in range(count):
        path = files[number] if number < len(files) else chance.choices(files, weights)[0]
        at = choose(chance, path.stat().st_size)
        picked.append((path.relative_to(sample.folder), at, chance.choice([1 << chance.randrange(8), 0xFF])))
    return picked


def anywhere(chance: random.Random, size: int) -> int:
    return chance.randrange(size)


def test_random_flips_over_the_whole_store(whole: Sample, scratch: Path) -> None:
    before = contents(whole)
    said = [check_flip(whole, scratch, before, *place) for place in places(whole, 200, anywhere)]
    found = [text for text in said if text != "harmless"]
    assert len(found) > 100, "most of a store holds something"


def test_flips_where_the_structure_lies(whole: Sample, scratch: Path) -> None:
    """The header of the file and of each page: cell pointers, free blocks, record headers, types and lengths."""
    before = contents(whole)

    def near_a_header(chance: random.Random, size: int) -> int:
        page = chance.randrange(max(size // 4096, 1)) * 4096
        return min(
            page + (chance.randrange(108) if not page or chance.random() < 0.5 else chance.randrange(4096)), size - 1
        )

    for place in places(whole, 80, near_a_header):
        check_flip(whole, scratch, before, *place)


def test_every_byte_of_the_files_header_that_matters(whole: Sample, scratch: Path) -> None:
    before = contents(whole)
    for name in ("ledger.db", "keys/keys.db"):
        for at in range(100):
            check_flip(whole, scratch, before, Path(name), at, 1 << (at % 8))


def test_flips_in_a_write_ahead_log_lose_nothing_silently(killed: Sample, scratch: Path) -> None:
    """A flip there makes SQLite drop what was acknowledged: that must never pass for a commit that was cut off."""
    before = contents(killed)
    wal = Path("ledger.db-wal")
    size = (killed.folder / wal).stat().st_size
    frame = 24 + 4096
    last = 32 + (size - 32) // frame * frame
    chance = random.Random(SEED)
    spots = [*range(32), *(32 + at for at in range(24)), *(last - frame + at for at in range(24)), last - 1]
    spots += [chance.randrange(32, last) for _ in range(60)]
    for at in spots:
        said = check_flip(killed, scratch, before, wal, at, 1 << chance.randrange(8))
        assert said == "harmless" or "write-ahead log" in said


def test_a_killed_store_is_whole(killed: Sample, scratch: Path) -> None:
    copy = killed.copy(scratch)
    assert asyncio.run(examine(copy.folder)) is None
    assert not list(copy.folder.glob("*.cut-*"))


def test_errors_of_a_damaged_store_are_errors_of_the_tree(whole: Sample, scratch: Path) -> None:
    """Whatever the damage, reading and appending end in an error that a person can read."""
    chance = random.Random(SEED)
    size = (whole.folder / "ledger.db").stat().st_size

    async def use(folder: Path) -> None:
        ledger = await Ledger.open(folder, None, projections(), create=False)
        try:
            await ledger.select("runs")
            await ledger.run_entries("r-001")
            for entry in await ledger.entries(limit=5000):
                await ledger.values([entry.body[name] for name in ("args", "out") if name in entry.body], erased=None)
            await ledger.append(note())
        finally:
            await ledger.close()

    for _ in range(60):
        copy = whole.copy(scratch)
        for _ in range(40):
            flip(copy.folder / "ledger.db", chance.randrange(size), 0xFF)
        try:
            asyncio.run(use(copy.folder))
        except TightshipError as error:
            assert error.message
        shutil.rmtree(copy.folder)

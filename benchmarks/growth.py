"""Whether the store's size slows it down: listing runs, resuming one, appending, at 10,000 to 1,000,000 stored runs.

Run as a part of Tightship's own side: `python -m benchmarks.growth MEASUREMENT --store DIR --size SIZE`. A store is
filled in bulk with copies of one run that was really made: their entries are in the Merkle tree and in bundles, the
checkpoint is signed, and each has its row, its key and a sealed value of its own (which nobody opens).
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import harness, ours
from benchmarks.harness import Job, Outcome
from benchmarks.ours_postgres import on_postgres, store_url
from tightship import Agent, Workflow, Workspace
from tightship.core import kinds
from tightship.core.ids import encode
from tightship.ledger import Draft, Ledger
from tightship.ledger.bundles import WIDTH, bundle_crc, pack
from tightship.ledger.entries import POSITION_BITS, encode_head, entry_crc, log_crc, payload_crc
from tightship.ledger.keyring import WrappedKey
from tightship.ledger.merkle.checkpoint import Checkpoint, sign_checkpoint
from tightship.ledger.merkle.tiles import MemoryTiles, integrate
from tightship.ledger.merkle.tree import EMPTY_ROOT, leaf_hashes
from tightship.ledger.sequencer import HOT, origin_of, signer_of
from tightship.runtime.workspace import projections

MODULE = "benchmarks.growth"
SIZES = {"full": (10_000, 100_000, 1_000_000), "quick": (500, 5_000)}
MASTER = "dGlnaHRzaGlwIGJlbmNobWFyayBtYXN0ZXIga2V5ISE="
LOG, LOG_ID = "default", 1
KEYS_AT_ONCE = 10_000
LEAVES_AT_ONCE = 65_536
TIMES = 40
"""How often a list and an append are timed; the median counts."""
Row = tuple[Any, ...]


def _workspace(path: Path, holding: asyncio.Event | None = None) -> Workspace:
    """One agent; while `holding`, it says so and stays."""
    ws = Workspace.open(path)

    async def worker(ctx: Any, given: dict[str, Any]) -> dict[str, object]:
        if holding is not None:
            holding.set()
            await asyncio.Event().wait()
        return {"number": 1, "text": "done"}

    agent = Agent("worker", owner="bench", purpose="work", python="bench:worker", output=ours.ANSWER)
    ws.add(agent, functions={"worker": worker})
    ws.add(Workflow("work", owner="bench", purpose="work", input={"run": "str"}, steps=["worker"]))
    return ws


# --- filling ------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Copies:
    """Rows of so many copies of one run."""

    count: int
    run: str
    tails: list[tuple[str, list[bytes]]]
    """Kind and entry of the run, its position and time cut off, split where its id and nonce stood."""
    row: dict[str, Any]
    began: int = field(default_factory=lambda: int((time.time() - 86_400) * 1000))
    """When the first began, ms since the epoch; each begins 1 ms or less after the one before."""
    tiles: MemoryTiles = field(default_factory=MemoryTiles)
    root: bytes = EMPTY_ROOT

    @property
    def entries(self) -> int:
        """How many entries they have."""
        return self.count * len(self.tails)

    @property
    def last(self) -> int:
        """Store time of the last entry, microseconds."""
        return self._at(self.count - 1) + len(self.tails)

    def _at(self, number: int) -> int:
        return self.began * 1000 + number * 50

    def name(self, number: int) -> str:
        """The id of a copy; later ones sort later."""
        return f"r-{encode(((self.began << 32) + (number << 8)).to_bytes(10, 'big'))}"

    def data(self) -> Iterator[tuple[str, bytes]]:
        """Run and leaf of each entry, in order."""
        n = 0
        for number in range(self.count):
            run = self.name(number)
            nonce = os.urandom(12).hex().encode()
            for place, (_, (before, between, after)) in enumerate(self.tails):
                n += 1
                head = encode_head(n, self._at(number) + place)
                yield run, b"".join((head, before, run.encode(), between, nonce, after))

    def tables(self, ledger: Ledger, order: list[str]) -> Iterator[tuple[str, Iterator[Row]]]:
        """Every table that is not empty, as `load` takes it; bundles are made on the way, and the tree with them."""
        seed, packed = log_crc(LOG), max(0, (self.entries - HOT) // WIDTH * WIDTH)
        hot: list[Row] = []
        runs: list[Row] = []

        def bundles() -> Iterator[Row]:
            part: list[tuple[str, bytes]] = []
            leaves: list[bytes] = []
            size = 0
            for n, (run, data) in enumerate(self.data(), start=1):
                leaves.append(data)
                if len(leaves) == LEAVES_AT_ONCE or n == self.entries:
                    size = self._grow(size, leaves)
                    leaves = []
                row_id = LOG_ID << POSITION_BITS | n
                if n > packed:
                    hot.append((row_id, run, data.decode(), entry_crc(seed, run.encode(), data)))
                    continue
                part.append((run, data))
                if len(part) == WIDTH:
                    first = row_id - WIDTH + 1
                    stored = pack([data for _, data in part])
                    runs.extend((run, first) for run in sorted({run for run, _ in part}))
                    part = []
                    yield (first, stored, bundle_crc(seed, first, stored))

        yield "bundles", bundles()
        yield "logs", iter([(LOG_ID, LOG, self.entries)])
        yield "entries", iter(hot)
        yield "bundle_runs", iter(runs)
        yield "tiles", ((LOG_ID, level, at, data) for (level, at), data in self.tiles.tiles.items())
        signer = signer_of(ledger, origin_of("benchmark", LOG))
        note = sign_checkpoint(Checkpoint(signer.name, self.entries, self.root), signer)
        yield "checkpoints", iter([(LOG_ID, self.entries, note)])
        yield "payloads", self._payloads()
        yield "runs", (self._run(number, order) for number in range(self.count))

    def _grow(self, size: int, leaves: list[bytes]) -> int:
        grown = integrate(self.tiles, size, leaf_hashes(leaves), root=self.root)
        grown.write(self.tiles)
        self.root = grown.root
        return grown.size

    def _payloads(self) -> Iterator[Row]:
        for number in range(self.count):
            address = (self._at(number) // 1_000_000).to_bytes(4, "big") + os.urandom(28)
            scope, data = self.name(number), os.urandom(100)
            yield (number + 1, address, scope, data, payload_crc(address, scope, data))

    def _run(self, number: int, order: list[str]) -> Row:
        at = self._at(number) / 1_000_000
        # one in a hundred thousand failed: a rare outcome among many others
        outcome = "failed" if number % 100_000 == 0 else "completed"
        own = {"id": self.name(number), "started_at": at, "ended_at": at, "outcome": outcome}
        return tuple((self.row | own)[column] for column in order)

    def keys(self) -> Iterator[list[WrappedKey]]:
        """A row of the keystore for each."""
        for start in range(0, self.count, KEYS_AT_ONCE):
            numbers = range(start, min(start + KEYS_AT_ONCE, self.count))
            yield [WrappedKey(self.name(n), os.urandom(60), self._at(n) / 1_000_000) for n in numbers]


async def _made(folder: Path, count: int) -> tuple[Copies, list[WrappedKey]]:
    """One true run, ready to be copied, and the keys of its store."""
    async with _workspace(ours.prepare(folder)) as ws:
        run = (await ws.run("work", {"run": "one"})).id
        ledger = await ws.ledger()
        row = (await ledger.select("runs", [("id", "=", run)]))[0]
        tails: list[tuple[str, list[bytes]]] = []
        for entry in await ledger.run_entries(run):
            before, _, rest = entry.data.partition(run.encode())
            between, _, after = rest.rpartition(b'"nonce":"')
            tail = before[len(encode_head(entry.n, round(entry.at * 1_000_000))) :]
            tails.append((entry.kind, [tail, between + b'"nonce":"', after[24:]]))
    async with Workspace.open(folder) as ws:
        keys = (await ws.ledger()).vault.keyring.store.page("", 100)
    return Copies(count, run, tails, row), keys


async def _fill(copies: Copies, keys: list[WrappedKey], path: Path, where: Path | str) -> None:
    from tightship.ledger._schema import projection_tables

    ledger = await Ledger.open(where, projections=projections(), folder=path / ".tightship", name="benchmark")
    try:
        order = list(projection_tables()["runs"].defaults)

        def load() -> None:
            for part in (keys, *copies.keys()):
                ledger.vault.keyring.store.put(part)
            signer = signer_of(ledger, origin_of("benchmark", LOG))
            ledger.backend.publish(signer.name, signer.vkey)
            ledger.backend.load(copies.tables(ledger, order), copies.last)

        await ledger.job(load)
    finally:
        await ledger.close()


# --- timing -------------------------------------------------------------------------------------------------


async def _median_ms(work: Callable[[], Awaitable[object]], times: int = TIMES) -> float:
    taken: list[float] = []
    for _ in range(times):
        began = time.perf_counter()
        await work()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken) * 1e3


async def _lists(ledger: Ledger) -> float:
    """`runs list`, as the command asks: the latest, those of a rare and of a common outcome, those of a workflow."""
    asked: tuple[list[tuple[str, str, Any]], ...] = (
        [],
        [("outcome", "=", "failed")],
        [("outcome", "=", "completed")],
        [("workflow", "=", "work")],
        [("workflow", "=", "another")],
    )
    latest = [("started_at", "desc")]
    return max([await _median_ms(lambda where=where: ledger.select("runs", where, latest, 50)) for where in asked])


async def _appends(ledger: Ledger) -> float:
    run = "r-growth"
    scope = ledger.vault.new_scope(run)
    await ledger.append(Draft(run, kinds.STARTED, "", {"workflow": "w", "owner": "bench", "scope": scope}, 1))
    numbers = iter(range(TIMES))

    async def one() -> None:
        number = next(numbers)
        out = ledger.seal(scope, {"number": number})
        await ledger.append(Draft(run, kinds.TURN, f"a/{number}", {"agent": "a", "out": out.address}, 1, (out,)))

    taken = await _median_ms(one)
    await ledger.append(Draft(run, kinds.ENDED, "", {"outcome": "completed"}, 1))
    return taken


async def _resumed(path: Path) -> float:
    """Milliseconds from opening the workspace until a run that was put down inside its agent has ended."""
    holding = asyncio.Event()
    ws = _workspace(path, holding)
    held = asyncio.ensure_future(ws.run("work", {"run": "held"}))
    await holding.wait()
    held.cancel()
    await asyncio.gather(held, return_exceptions=True)
    await ws.close()
    began = time.perf_counter()
    async with _workspace(path) as ws:
        ended = await ws.resume()
        taken = time.perf_counter() - began
    if [one.state for one in ended] != ["completed"]:
        raise RuntimeError(f"it was not resumed: {ended}")
    return taken * 1e3


async def _timed(path: Path, where: Path | str) -> dict[str, float]:
    found: dict[str, float] = {}
    ledger = await Ledger.open(where, projections=projections(), folder=path / ".tightship", name="benchmark")
    try:
        found["list"] = await _lists(ledger)
        found["append"] = await _appends(ledger)
    finally:
        await ledger.close()
    found["resume"] = statistics.median([await _resumed(path) for _ in range(3)])
    return found


def _measure(job: Job, store: str) -> Outcome:
    os.environ["TIGHTSHIP_MASTER_KEY"] = MASTER
    counts = SIZES[job.size.name]
    by_size: dict[int, dict[str, float]] = {}
    for count in counts:
        began = time.perf_counter()
        path = job.store / f"{store}{count}"
        copies, keys = asyncio.run(_made(job.folder(f"made{count}"), count))
        if store == "postgres":
            where: Path | str = store_url(f"g{count}")
            on_postgres(path, f"g{count}")
        else:
            where = ours.prepare(path) / ".tightship"
        asyncio.run(_fill(copies, keys, path, where))
        if store == "postgres":
            _analyse()
        filled = time.perf_counter() - began
        by_size[count] = asyncio.run(_timed(path, where)) | {"fill_s": filled}
    figures, notes = dict[str, float](), dict[str, str]()
    for what in ("list", "append", "resume"):
        name = f"growth_{what}_{store}"
        figures[name] = by_size[counts[-1]][what] / by_size[counts[0]][what]
        notes[name] = ", ".join(f"{by_size[count][what]:.2f} ms at {count:,}" for count in counts)
    return Outcome(figures, notes=notes, detail={"by_size": {str(count): found for count, found in by_size.items()}})


def _analyse() -> None:
    """What the server's autovacuum and checkpointer do within minutes, which the measurement does not wait for."""
    import psycopg

    from benchmarks.postgres import VARIABLE

    with psycopg.connect(os.environ[VARIABLE], autocommit=True) as db:
        db.execute("VACUUM ANALYZE")
        db.execute("CHECKPOINT")  # what the filling has left to be written is no part of one append


def growth(job: Job) -> Outcome:
    """On SQLite."""
    return _measure(job, "sqlite")


def growth_postgres(job: Job) -> Outcome:
    """On Postgres."""
    return _measure(job, "postgres")


if __name__ == "__main__":
    harness.main(
        "ours", {"growth": growth, "growth_postgres": growth_postgres}, versions={"tightship": version("tightship")}
    )

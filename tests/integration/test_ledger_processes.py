"""Several processes over one store, and processes that are killed: nothing acknowledged is lost, nothing is torn."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from ledger_desk import Store, dump, flip, note, run_script, script, until
from store_desk import store_of
from tightship.core import kinds
from tightship.core.errors import ExecutorBusy, GuardRefused, StoreCorrupt
from tightship.ledger import Draft, Guards, Ledger
from tightship.ledger._wal import scan
from tightship.ledger.audit import verify
from tightship.ledger.locks import ExecutorLock

store = store_of("sqlite")


def path_of(store: Store) -> Path:
    return store.folder / "store"


def started(folder: Path, text: str) -> subprocess.Popen[bytes]:
    """A process that runs beside the test."""
    return subprocess.Popen(script(folder, text), stdin=subprocess.PIPE, stdout=subprocess.PIPE)


# --- side by side ----------------------------------------------------------------------------------------


async def test_what_a_command_appends_beside_us_is_heard_and_guards_know_of_it(store: Store) -> None:
    ledger = await store.open()
    heard: list[tuple[str, bool]] = []
    ledger.listen(lambda entries, foreign: heard.extend((entry.kind, foreign) for entry in entries))
    await ledger.append(note())
    text = (
        "async def main():\n"
        "    ledger = await Ledger.open(STORE, None, projections())\n"
        "    await ledger.append(Draft('', kinds.HALT, '', {'scope': 'all', 'by': 'ann'}))\n"
        "    await ledger.close()\n"
        "asyncio.run(main())\n"
    )
    done = await asyncio.to_thread(run_script, path_of(store), text)
    assert done.returncode == 0, done.stderr
    await until(lambda: (kinds.HALT, True) in heard, ledger)
    with pytest.raises(GuardRefused, match="halted"):
        await ledger.append(note(), guards=Guards(scopes=("all",)))


async def test_two_processes_that_append_at_once_share_one_gap_free_log(store: Store) -> None:
    ledger = await store.open()
    text = (
        "async def main():\n"
        "    ledger = await Ledger.open(STORE, None, projections())\n"
        "    for n in range(40):\n"
        "        await asyncio.gather(*(ledger.append(note('theirs', n=n), note('theirs')) for _ in range(5)))\n"
        "    await ledger.close()\n"
        "asyncio.run(main())\n"
    )
    command = asyncio.ensure_future(asyncio.to_thread(run_script, path_of(store), text))
    heard: list[int] = []
    ledger.listen(lambda entries, foreign: heard.extend(entry.n for entry in entries if foreign))
    ours: list[int] = []
    while not command.done() or len(ours) < 200:
        ours += [entry.n for entry in await ledger.append(note("ours"), note("ours"))]
    assert (await command).returncode == 0, (await command).stderr
    await until(lambda: len(heard) == 400, ledger)
    entries = await ledger.entries(limit=100_000)
    assert [entry.n for entry in entries] == list(range(1, len(entries) + 1))
    assert [entry.n for entry in entries if entry.run == "theirs"] == heard
    assert [entry.n for entry in entries if entry.run == "ours"] == ours
    for run in ("ours", "theirs"):
        numbers = [entry.n for entry in entries if entry.run == run]
        assert all(b == a + 1 for a, b in zip(numbers[::2], numbers[1::2], strict=True)), "a unit is not torn apart"
    assert (await verify(ledger)).ok


async def test_of_two_processes_that_claim_one_key_one_gets_it(store: Store) -> None:
    ledger = await store.open()
    text = (
        "async def main():\n"
        "    ledger = await Ledger.open(STORE, None, projections())\n"
        "    won = 0\n"
        "    for n in range(60):\n"
        "        body = {'name': 't', 'cls': 'write', 'claim': f'k-{n}'}\n"
        "        draft = Draft(f'r-{os.getpid()}', kinds.ADMITTED, f'a/{n}', body)\n"
        "        try:\n"
        "            await ledger.append(draft, guards=Guards(claim=f'k-{n}'))\n"
        "            won += 1\n"
        "        except Exception as error:\n"
        "            assert type(error).__name__ == 'GuardRefused', error\n"
        "    await ledger.close()\n"
        "    print(won)\n"
        "asyncio.run(main())\n"
    )
    done = await asyncio.gather(*(asyncio.to_thread(run_script, path_of(store), text) for _ in range(2)))
    assert [one.returncode for one in done] == [0, 0], [one.stderr for one in done]
    assert sum(int(one.stdout) for one in done) == 60
    assert len(await ledger.select("claims")) == 60


async def test_processes_that_make_the_store_at_once_make_one_store(tmp_path: Path) -> None:
    text = (
        "async def main():\n"
        "    ledger = await Ledger.open(STORE, None, projections())\n"
        "    payload = ledger.seal(ledger.vault.scope(['tenant:default']), {'by': os.getpid()})\n"
        "    draft = Draft('', 'note', '', {'out': payload.address}, 0, (payload,))\n"
        "    for attempt in range(3):\n"
        "        try:\n"
        "            await ledger.append(draft)\n"
        "            break\n"
        "        except Exception as error:\n"
        "            assert 'at the same moment' in str(error), error\n"
        "            payload = ledger.seal(ledger.vault.scope(['tenant:default']), {'by': os.getpid()})\n"
        "            draft = Draft('', 'note', '', {'out': payload.address}, 0, (payload,))\n"
        "    await ledger.close()\n"
        "asyncio.run(main())\n"
    )
    folder = tmp_path / "store"
    done = await asyncio.gather(*(asyncio.to_thread(run_script, folder, text) for _ in range(6)))
    assert [one.returncode for one in done] == [0] * 6, [one.stderr for one in done]
    ledger = await Ledger.open(folder)
    values = [await ledger.value(entry.body["out"]) for entry in await ledger.entries()]
    assert len({value["by"] for value in values}) == 6
    assert (await verify(ledger)).ok
    await ledger.close()


# --- the executor ----------------------------------------------------------------------------------------


async def test_a_second_executor_is_refused_and_told_who_executes(store: Store) -> None:
    await store.open()
    lock = path_of(store) / "executor.lock"
    text = (
        "from tightship.ledger.locks import ExecutorLock\n"
        "lock = ExecutorLock(STORE / 'executor.lock')\n"
        "lock.acquire()\n"
        "print('mine', flush=True)\n"
        "sys.stdin.readline()\n"
    )
    with started(path_of(store), text) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"mine\n"
        mine = ExecutorLock(lock)
        with pytest.raises(ExecutorBusy, match=f"process {holder.pid} executes") as refused:
            mine.acquire()
        assert refused.value.where == str(lock)
        assert not mine.held
        holder.kill()
        holder.wait()
        mine.acquire()  # the lock has ended with its process
        assert mine.held
        assert lock.read_text() == str(os.getpid())
        with pytest.raises(ExecutorBusy):
            ExecutorLock(lock).acquire()
        mine.release()
        mine.release()


# --- kill -9 -----------------------------------------------------------------------------------------------

APPEND_FOR_EVER = """\
import itertools
async def main():
    ledger = await Ledger.open(STORE, None, projections())
    from tightship.ledger.sequencer import Sequencer
    sequencer = Sequencer(ledger, every=0.05)
    asyncio.ensure_future(sequencer.run())
    async def one(worker):
        scope = ledger.vault.scope([f"tenant:{os.getpid()}", ledger.vault.keyring.subject("t", f"{worker}")])
        for n in itertools.count():
            value = {"n": n, "by": worker, "of": os.getpid(), "noise": "x" * (n % 7) * 300}
            payload = ledger.seal(scope, value)
            body = {"type": "test", "out": payload.address, "of": os.getpid(), "by": worker, "count": n}
            [entry] = await ledger.append(Draft("", kinds.NOTE, "", body, 0, (payload,)))
            os.write(1, b"%d %d %d %d\\n" % (os.getpid(), worker, n, entry.n))
    await asyncio.gather(*(one(worker) for worker in range(12)))
asyncio.run(main())
"""


async def test_after_kill_9_everything_that_was_acknowledged_is_there(store: Store) -> None:
    """Killed again and again at moments of chance: while it opens, commits, integrates, packs, recovers."""
    chance = random.Random(20260101)
    acknowledged: dict[tuple[int, int, int], int] = {}
    for _ in range(6):
        with started(path_of(store), APPEND_FOR_EVER) as process:
            assert process.stdout is not None
            told = [process.stdout.readline() for _ in range(chance.randrange(1, 1500))]
            process.kill()
            rest = process.stdout.read()
            process.wait()
        lines = b"".join(told) + rest
        for line in lines.splitlines():
            of, worker, count, n = map(int, line.split())
            acknowledged[of, worker, count] = n
        assert process.returncode == -signal.SIGKILL
    ledger = await store.open()
    entries = await ledger.entries(limit=1_000_000)
    assert [entry.n for entry in entries] == list(range(1, len(entries) + 1))
    found = {(entry.body["of"], entry.body["by"], entry.body["count"]): entry for entry in entries}
    assert {key: found[key].n for key in acknowledged} == acknowledged
    for key in chance.sample(sorted(acknowledged), 100):
        value = await ledger.value(found[key].body["out"])
        assert (value["of"], value["by"], value["n"]) == key
    report = await verify(ledger)
    assert report.ok, report.findings
    assert report.integrated or not report.uncovered
    assert not list(path_of(store).glob("*.cut-*")), "a killed process leaves no broken frame"


# --- the write-ahead log of a dead process -------------------------------------------------------------------


def die_after(folder: Path, commits: int) -> None:
    """A process that commits so often and is killed; what it wrote lies in the write-ahead log alone."""
    text = (
        "async def main():\n"
        "    ledger = await Ledger.open(STORE, None, projections())\n"
        f"    for n in range({commits}): await ledger.append(note(n=n))\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())\n"
    )
    assert run_script(folder, text).returncode == -signal.SIGKILL


async def test_damage_in_the_middle_of_a_write_ahead_log_opens_nothing(store: Store) -> None:
    folder = path_of(store)
    await asyncio.to_thread(die_after, folder, 20)
    wal = folder / "ledger.db-wal"
    whole = wal.read_bytes()
    report = scan(wal)
    assert (report.kept, report.broken) == (report.frames, None)
    flip(wal, len(whole) // 2, 0x04)
    with pytest.raises(StoreCorrupt, match="write-ahead log is damaged at frame") as refused:
        await store.open()
    assert refused.value.where == str(wal)
    assert wal.read_bytes()[len(whole) // 2] != whole[len(whole) // 2], "what is there is left as it was"
    wal.write_bytes(whole)
    assert await (await store.open()).head() == 20


async def test_damage_in_the_last_commit_is_kept_and_reported(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    folder = path_of(store)
    await asyncio.to_thread(die_after, folder, 20)
    wal = folder / "ledger.db-wal"
    damaged = bytearray(wal.read_bytes())
    damaged[-100] ^= 0x20
    wal.write_bytes(damaged)
    ledger = await store.open()
    assert await ledger.head() == 19, "it cannot be told from a commit that a power failure has cut off"
    assert "does not hold" in caplog.text
    for _ in range(2):
        report = await verify(ledger)
        assert [found.file for found in report.findings] == ["ledger.db-wal.cut-1"]
        await ledger.close()
        ledger = await store.open()
    assert (folder / "ledger.db-wal.cut-1").read_bytes() == bytes(damaged)


async def test_a_commit_that_was_cut_off_is_dropped_without_a_word(store: Store) -> None:
    folder = path_of(store)
    await asyncio.to_thread(die_after, folder, 20)
    wal = folder / "ledger.db-wal"
    whole = wal.read_bytes()
    frame = 24 + 4096
    for cut in (1, 4000, frame, frame + 1, 2 * frame):
        wal.write_bytes(whole[: len(whole) - cut])
        assert scan(wal).broken is None
    wal.write_bytes(whole[: len(whole) - frame])
    ledger = await store.open()
    assert await ledger.head() == 19
    report = await verify(ledger)
    assert report.ok, report.findings


async def test_what_an_earlier_use_of_the_log_left_is_no_damage(store: Store) -> None:
    """A write-ahead log is written over from its start; frames of its last use stand behind the new ones."""
    text = (
        "async def main():\n"
        "    ledger = await Ledger.open(STORE, None, projections())\n"
        "    await asyncio.gather(*(ledger.append(note(text='x' * 900)) for n in range(400)))\n"
        "    ledger.backend._db.execute('PRAGMA wal_checkpoint(RESTART)')\n"
        "    for n in range(5): await ledger.append(note(n=n))\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())\n"
    )
    done = await asyncio.to_thread(run_script, path_of(store), text)
    assert done.returncode == -signal.SIGKILL, done.stderr
    report = scan(path_of(store) / "ledger.db-wal")
    assert report.broken is None
    assert 0 < report.kept < report.frames - 50
    assert await (await store.open()).head() == 405


async def test_the_log_of_a_living_process_is_left_to_it(store: Store) -> None:
    ledger = await store.open()
    await ledger.append(note())
    lock = ExecutorLock(path_of(store) / "executor.lock")
    lock.acquire()
    flip(path_of(store) / "ledger.db-wal", 40, 0xFF)
    other = await store.open()
    assert other.backend.suspicions == []  # type: ignore[union-attr]
    lock.release()
    flip(path_of(store) / "ledger.db-wal", 40, 0xFF)
    assert json.dumps(dump(path_of(store) / "ledger.db") is not None) == "true"
    await ledger.append(Draft("", kinds.NOTE, "", {}))

"""A crew of real processes: as many as the load asks for, replaced when they die, gone when their keeper is."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest

from tightship.core.errors import StoreError, Unavailable
from tightship.runtime.crew import Event, supervise
from tightship.runtime.scaling import Bounds, Load, Policy

PATIENCE = 300.0
"""Seconds that a test waits for what has to come."""
TETHERED = "from tightship.runtime.tether import end_with_parent; end_with_parent(5)\n"
WORK = TETHERED + "import time; print('ready', flush=True)\nwhile True: time.sleep(0.05)"
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True)\ntime.sleep(60)"
POLICY = Policy(runs=10, window=0.3)


class Watched:
    """A crew at work, and what it has told."""

    def __init__(self, code: str, bounds: Bounds, grace: float) -> None:
        self.load: Load | Exception = Load(running=1)
        self.stop = asyncio.Event()
        self.events: list[Event] = []
        command = [sys.executable, "-c", code]
        self.task = asyncio.ensure_future(
            supervise(
                command,
                bounds,
                self._demand,
                self.stop,
                policy=POLICY,
                tell=self._tell,
                look=0.05,
                grace=grace,
                pause=0.05,
            )
        )

    async def _demand(self) -> Load:
        if isinstance(self.load, Exception):
            raise self.load
        return self.load

    def _tell(self, event: Event) -> None:
        self.events.append(event)

    def of(self, *kinds: str) -> list[Event]:
        return [event for event in self.events if event.kind in kinds]

    def living(self) -> set[int]:
        return {event.pid for event in self.of("started")} - {event.pid for event in self.of("ended", "died")}

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not holds():
                assert not self.task.done() or holds(), self.task.exception()
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def crew(code: str = WORK, bounds: Bounds | None = None, grace: float = 10.0) -> AsyncGenerator[Watched]:
    watched = Watched(code, bounds or Bounds(1, 4), grace)
    try:
        yield watched
    finally:
        watched.stop.set()
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(watched.task, return_exceptions=True)
    assert [pid for pid in watched.living() if alive(pid)] == []


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "\nState:\tZ" not in _status(pid)


def _status(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/status").read_text()
    return ""


async def test_it_grows_with_the_load_and_shrinks_when_it_is_quiet() -> None:
    async with crew() as watched:
        await watched.until(lambda: len(watched.living()) == 1)
        watched.load = Load(due=100, running=10)
        await watched.until(lambda: len(watched.living()) == 4)
        watched.load = Load()
        await watched.until(lambda: len(watched.living()) == 3)
        assert watched.of("stopping")[0].worker == 4, "the last one goes first"


async def test_what_the_workers_print_is_forwarded_line_by_line() -> None:
    code = (
        "import sys; print('one'); print('two', file=sys.stderr); sys.stdout.write('x' * 200_000); sys.stdout.flush()\n"
    )
    async with crew(code + WORK, Bounds(1, 1)) as watched:
        await watched.until(lambda: any(event.text.endswith("ready") for event in watched.of("line")))
        texts = [event.text for event in watched.of("line")]
        assert {"one", "two"} <= set(texts)
        assert "".join(texts).count("x") == 200_000


async def test_a_worker_that_was_killed_is_replaced() -> None:
    async with crew(bounds=Bounds(2, 2)) as watched:
        await watched.until(lambda: len(watched.of("line")) == 2)
        (first, second) = sorted(watched.living())
        os.kill(first, signal.SIGKILL)
        await watched.until(lambda: len(watched.living()) == 2 and first not in watched.living())
        assert second in watched.living()
        assert [event.text for event in watched.of("died")] == ["SIGKILL"]
        assert watched.of("crash_loop") == []


async def test_a_crash_loop_is_reported_and_slowed_down() -> None:
    async with crew("raise SystemExit(3)", Bounds(1, 1)) as watched:
        await watched.until(lambda: len(watched.of("crash_loop")) >= 3)
        assert watched.of("died")[0].text == "exit code 3"
        said = [event.text for event in watched.of("crash_loop")[:3]]
        assert said == [
            "3 times in a row (exit code 3); the next try is in 0.1 s",
            "4 times in a row (exit code 3); the next try is in 0.2 s",
            "5 times in a row (exit code 3); the next try is in 0.4 s",
        ]


async def test_all_end_in_good_order_when_it_is_told_to_stop() -> None:
    async with crew(bounds=Bounds(3, 3)) as watched:
        await watched.until(lambda: len(watched.of("line")) == 3)
    assert [event.text for event in watched.of("ended")] == ["SIGTERM"] * 3
    assert watched.of("killed", "died") == []


async def test_a_worker_that_does_not_end_is_killed_after_the_grace() -> None:
    async with crew(DEAF, Bounds(1, 1), grace=0.2) as watched:
        await watched.until(lambda: len(watched.of("line")) == 1)
    assert [event.text for event in watched.of("ended")] == ["SIGKILL"]
    assert len(watched.of("killed")) == 1


async def test_what_a_worker_has_started_goes_with_it() -> None:
    code = "import subprocess; print('child', subprocess.Popen(['sleep', '60']).pid, flush=True)\n" + WORK
    async with crew(code, Bounds(1, 1)) as watched:
        await watched.until(lambda: len(watched.of("line")) == 2)
        child = int(watched.of("line")[0].text.split()[1])
        os.kill(next(iter(watched.living())), signal.SIGKILL)
        await watched.until(lambda: len(watched.of("died")) == 1)
        await watched.until(lambda: not alive(child))


async def test_a_worker_whose_output_somebody_else_holds_open_is_replaced_all_the_same() -> None:
    code = "import subprocess\nsubprocess.Popen(['sleep', '3'], start_new_session=True)\n" + WORK
    async with crew(code, Bounds(1, 1)) as watched:
        await watched.until(lambda: len(watched.of("line")) == 1)
        os.kill(next(iter(watched.living())), signal.SIGKILL)
        await watched.until(lambda: len(watched.of("started")) == 2)


async def test_a_load_that_cannot_be_read_leaves_the_number_as_it_is_and_is_said_once() -> None:
    async with crew() as watched:
        watched.load = Load(due=100)
        await watched.until(lambda: len(watched.living()) == 4)
        watched.load = StoreError("the server is away")
        await watched.until(lambda: len(watched.of("blind")) == 1)
        await asyncio.sleep(0.5)
        assert len(watched.living()) == 4
        assert [event.text for event in watched.of("blind")] == ["the server is away"]


async def test_a_command_that_is_not_there_is_an_error() -> None:
    with pytest.raises(Unavailable, match="cannot be started"):
        await supervise(["/nowhere/tightship"], Bounds(1, 1), _nothing, asyncio.Event())


async def _nothing() -> Load:
    return Load()


KEEPER = """
import asyncio, sys
from tightship.runtime.crew import supervise
from tightship.runtime.scaling import Bounds, Load

async def nothing():
    return Load()

def tell(event):
    if event.kind == "line":
        print(event.pid, flush=True)

asyncio.run(supervise([sys.executable, "-c", sys.argv[1]], Bounds(3, 3), nothing, asyncio.Event(), tell=tell))
"""


async def test_no_worker_outlives_a_keeper_that_is_killed() -> None:
    keeper = await asyncio.create_subprocess_exec(sys.executable, "-c", KEEPER, WORK, stdout=subprocess.PIPE)
    assert keeper.stdout is not None
    async with asyncio.timeout(PATIENCE):
        pids = [int(await keeper.stdout.readline()) for _ in range(3)]
        assert all(alive(pid) for pid in pids)
        keeper.kill()
        await keeper.wait()
        while any(alive(pid) for pid in pids):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_program_that_cannot_be_started_for_a_while_is_tried_again(tmp_path: Path) -> None:
    program = tmp_path / "worker"
    program.write_text(f"#!{sys.executable}\n{WORK}\n")
    program.chmod(0o755)
    stop, events = asyncio.Event(), list[Event]()
    keeping = asyncio.ensure_future(
        supervise([str(program)], Bounds(1, 1), _nothing, stop, tell=events.append, look=0.05, pause=0.05)
    )

    async def until(kind: str, count: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while len([one for one in events if one.kind == kind]) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    await until("started", 1)
    program.chmod(0o644)
    os.kill(events[0].pid, signal.SIGKILL)
    await until("crash_loop", 1)
    program.chmod(0o755)
    await until("started", 2)
    stop.set()
    await keeping

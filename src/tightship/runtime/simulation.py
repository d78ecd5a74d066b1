"""Virtual time for tests: an event loop that jumps to the next timer, and processes in it that can be killed.

Everything that a workspace does takes its time, its chance and its network from a `World`. Under `Simulation` these
come from one seed, so that days pass in milliseconds and a failing seed fails again:

    def test_nobody_answers_for_three_days():
        async def story(sim: Simulation) -> None:
            ws = Workspace.open(folder, world=sim.world(), ledger=Ledger.in_memory(sim.world(), projections()))
            run = await ws.run("support", {"ticket": "…"})      # parks
            await sim.clock.sleep(3 * 86_400)
            await ws.resume()

        simulate(story, seed=1)
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import random
import warnings
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from tightship.core.world import SeededChance, World

_T = TypeVar("_T")
EPOCH = 1_767_225_600.0
"""Store time at which a simulation begins (2026-01-01 00:00 UTC)."""
_process: contextvars.ContextVar[Process | None] = contextvars.ContextVar("simulated process", default=None)


class Stuck(AssertionError):
    """Nothing can happen any more: everything waits for something that nobody will do."""


class Process:
    """A simulated operating-system process: the tasks that were started in it, and theirs.

    A killed process runs nothing from then on, not even its `finally` blocks, as after SIGKILL.
    """

    def __init__(self, loop: VirtualLoop, name: str) -> None:
        self.name = name
        self.alive = True
        self._loop = loop
        self._tasks: list[asyncio.Task[Any]] = []  # held, so that nothing of a dead process is collected and closed
        self._mourners: list[Callable[[], None]] = []

    def start(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        """Run something in this process."""
        context = contextvars.copy_context()
        context.run(_process.set, self)
        return self._loop.create_task(work, context=context)

    def kill(self) -> None:
        """End it here and now. Code of it that calls this runs on to its next await, which never returns."""
        if self.alive:
            self.alive = False
            for mourner in self._mourners:
                self._loop.call_soon(mourner, context=contextvars.Context())

    def on_death(self, mourner: Callable[[], None]) -> None:
        """Have something called (outside of the process) once it is killed."""
        self._mourners.append(mourner)

    def own(self, task: asyncio.Task[Any]) -> None:
        """Take note of a task that began in this process."""
        self._tasks.append(task)

    def bury(self) -> None:
        """Close what is left of the tasks, when the simulation is over."""
        self.alive = False
        for task in self._tasks:
            if not task.done():
                _close(task)
        self._tasks.clear()


def _close(task: asyncio.Task[Any]) -> None:
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    coroutine: Any = task.get_coro()
    try:
        coroutine.close()
    except BaseException as error:  # its cleanup wanted to await, or to use a loop that is gone
        del error


class _Handle(asyncio.Handle):
    __slots__ = ()

    def _run(self) -> None:
        process = self._context.get(_process)  # type: ignore[attr-defined]
        if process is None or process.alive:
            super()._run()  # type: ignore[misc]


class _TimerHandle(asyncio.TimerHandle):
    __slots__ = ()

    def _run(self) -> None:
        process = self._context.get(_process)  # type: ignore[attr-defined]
        if process is None or process.alive:
            super()._run()  # type: ignore[misc]


class _Task(asyncio.Task[Any]):
    """A task whose hash does not depend on its place in memory, so that sets of tasks have the same order again."""

    def __init__(self, *args: Any, loop: VirtualLoop, **kwargs: Any) -> None:
        self._number = loop.number()
        super().__init__(*args, loop=loop, **kwargs)

    def __hash__(self) -> int:
        return self._number


class _Selector:
    """Waits by moving the clock."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise Stuck(f"nothing is left to happen at {self._loop.time():.3f} s")
        self._loop.advance(timeout)
        return []


class VirtualLoop(asyncio.BaseEventLoop):
    """An event loop without a machine: time is a number, threads are calls, there is no network.

    Args:
        shuffle: a source of chance; what is ready at the same moment then runs in any order.
    """

    def __init__(self, shuffle: random.Random | None = None) -> None:
        super().__init__()
        self._now = 0.0
        self._shuffle = shuffle
        self._selector = _Selector(self)
        self._processes: list[Process] = []
        self._numbers = 0
        self.set_task_factory(self._make_task)

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._now += seconds

    def number(self) -> int:
        """Another number."""
        self._numbers += 1
        return self._numbers

    def process(self, name: str) -> Process:
        """A new process in this loop."""
        made = Process(self, name)
        self._processes.append(made)
        return made

    @staticmethod
    def current() -> Process | None:
        """The process whose code runs, or None outside of any."""
        return _process.get()

    def _make_task(self, loop: Any, coro: Any, **more: Any) -> Any:
        task = _Task(coro, loop=loop, **more)
        context: contextvars.Context | None = more.get("context")
        process = _process.get() if context is None else context.get(_process)
        if process is not None:
            process.own(task)
        return task

    def _call_soon(self, callback: Any, args: Any, context: Any) -> asyncio.Handle:
        handle = _Handle(callback, args, self, context)
        ready: Any = self._ready  # type: ignore[attr-defined]
        if self._shuffle is not None and len(ready) > 0:
            ready.insert(self._shuffle.randint(0, len(ready)), handle)
        else:
            ready.append(handle)
        return handle

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:
        """Call something at a moment of virtual time."""
        self._check_closed()  # type: ignore[attr-defined]
        timer = _TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._scheduled, timer)  # type: ignore[attr-defined]
        timer._scheduled = True  # type: ignore[attr-defined]
        return timer

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """There are no threads: the call is made here and now."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
        """There are no threads."""
        return self.call_soon(callback, *args, context=context)

    def _process_events(self, event_list: list[Any]) -> None:
        """There are none."""

    def bury(self) -> None:
        """Close what dead and forgotten processes have left."""
        for process in self._processes:
            process.bury()


class VirtualClock:
    """A loop's time as the world's clock (core.world.Clock)."""

    def __init__(self, loop: VirtualLoop, epoch: float = EPOCH) -> None:
        self._loop, self._epoch = loop, epoch

    def now(self) -> float:
        """Store time in seconds."""
        return self._epoch + self._loop.time()

    def monotonic(self) -> float:
        """Virtual seconds."""
        return self._loop.time()

    async def sleep(self, seconds: float) -> None:
        """Wait in virtual time."""
        await asyncio.sleep(seconds)


class Simulation:
    """One seed's world: the loop, its clock, and chance for whatever needs some.

    Args:
        seed: what everything follows from.
        shuffle: whether what is ready at the same moment runs in any order.
    """

    def __init__(self, seed: int | str, *, shuffle: bool = False) -> None:
        self.seed = seed
        self.loop = VirtualLoop(random.Random(f"{seed}/order") if shuffle else None)
        self.clock = VirtualClock(self.loop)
        self.complaints: list[str] = []
        """What asyncio had to report: exceptions that nobody took, tasks that were lost."""
        self.loop.set_exception_handler(self._complain)
        self.chance = SeededChance(f"{seed}/chance")

    def _complain(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.complaints.append(f"{context.get('message')}: {error!r} in {context.get('future') or context.get('task')}")

    def random(self, what: str) -> random.Random:
        """A stream of chance of its own, so that one more draw here changes nothing there."""
        return random.Random(f"{self.seed}/{what}")

    def world(self, transport: Any = None) -> World:
        """The ports of a process; `transport` is an httpx2 transport in place of the network."""
        return World(self.clock, self.chance, transport)

    def run(self, story: Awaitable[_T]) -> _T:
        """Run a story to its end.

        Raises:
            Stuck: it waits for something that nobody will do.
        """
        try:
            return self.step(story)
        finally:
            self.close()

    def step(self, story: Awaitable[_T]) -> _T:
        """Run a part of a story; what it leaves behind goes on in the next part.

        Raises:
            Stuck: it waits for something that nobody will do.
        """
        asyncio.set_event_loop(self.loop)
        try:
            return self.loop.run_until_complete(story)
        finally:
            asyncio.set_event_loop(None)

    def close(self) -> None:
        """The story is over: what is left of it never goes on."""
        with warnings.catch_warnings():
            # Tasks of dead processes end without having been awaited to their end: that is what a kill is.
            warnings.simplefilter("ignore")
            left = [task for task in asyncio.all_tasks(self.loop) if not task.done()]
            self.loop.bury()
            for task in left:
                _close(task)
            self.loop.close()


def simulate(story: Callable[[Simulation], Awaitable[_T]], seed: int | str = 0, *, shuffle: bool = False) -> _T:
    """Run `story(simulation)` in virtual time.

    Args:
        story: what happens.
        seed: what all chance follows from.
        shuffle: whether what is ready at the same moment runs in any order.

    Returns: what the story returned.

    Raises:
        Stuck: it waits for something that nobody will do.
    """
    simulation = Simulation(seed, shuffle=shuffle)
    return simulation.run(story(simulation))


__all__ = ["Process", "Simulation", "Stuck", "VirtualClock", "VirtualLoop", "simulate"]

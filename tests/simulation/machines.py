"""The simulated machine room: a ledger whose disk takes time and fails, a network that loses things, a company."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import httpx2

from tightship.company import Company, ConnectionDropped, Faults, build_app
from tightship.core.errors import StoreFull
from tightship.core.world import World
from tightship.ledger import Ledger, MemoryState
from tightship.ledger.entries import Entry, Unit
from tightship.ledger.keyring import Keyring
from tightship.ledger.writer import Commitment, LoopWriter, commit_units, finish
from tightship.runtime.simulation import Process, Simulation
from tightship.runtime.workspace import projections

TOKEN = "practice"
BASE_URL = "http://company.test"
FATES = ("well", "refused", "lost request", "dropped before", "late", "lost answer", "dropped after")
"""What may become of a request."""


class Trouble:
    """What may go wrong, and how often. Calm: nothing. Everything that goes wrong is drawn here."""

    def __init__(self, sim: Simulation, level: float, crashes: int, disk: float) -> None:
        self.level, self.crashes, self.disk = level, crashes, disk
        self.crash_rate = 0.0
        self._random = sim.random("trouble")
        self.told: list[str] = []

    def calm(self) -> None:
        """From now on nothing goes wrong."""
        self.level = self.disk = 0.0
        self.crashes = 0

    def strikes(self, rate: float) -> bool:
        """Whether something of this rate goes wrong now."""
        return self.level > 0 and self._random.random() < rate * self.level

    def crash(self) -> bool:
        """Whether the process dies here."""
        if self.crashes > 0 and self._random.random() < self.crash_rate:
            self.crashes -= 1
            return True
        return False

    def disk_full(self) -> bool:
        """Whether the disk refuses this batch."""
        return self.disk > 0 and self._random.random() < self.disk

    def fate(self) -> str:
        """What becomes of a request: one of FATES."""
        if self.strikes(0.04):
            return "refused"
        return self._random.choice(FATES[2:]) if self.strikes(0.12) else "well"

    def delay(self, most: float) -> float:
        """Some seconds, most often few."""
        return most * self._random.random() ** 4


class SlowWriter:
    """A writer as the thread is: a batch takes time, callers hear of it later still, and a kill falls in between."""

    def __init__(
        self,
        commit: Callable[[list[Unit]], list[Entry]],
        deliver: Callable[[list[Entry], bool], None],
        trouble: Trouble,
        process: Process | None,
    ) -> None:
        self._commit, self._deliver = commit, deliver
        self._trouble, self._process = trouble, process
        self._waiting: list[Unit] = []
        self._writing = False
        self._told_until = 0.0

    def submit(self, unit: Unit) -> Commitment:
        """Queue a unit for the next batch."""
        loop = asyncio.get_running_loop()
        future = unit.future = Commitment(loop=loop)
        self._waiting.append(unit)
        if not self._writing:
            self._writing = True
            loop.call_later(self._trouble.delay(0.02), self._flush)
        return future

    def job(self, work: Callable[[], Any]) -> asyncio.Future[Any]:
        """Run something between two batches: here, at once."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        future.set_result(work())
        return future

    def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        units, self._waiting = self._waiting, []
        self._writing = False
        if self._dies(units, "before"):
            return
        foreign, error = commit_units(self._write, units, Exception)
        if self._dies(units, "after"):
            return
        self._told_until = max(self._told_until + 1e-6, loop.time() + self._trouble.delay(0.02))
        loop.call_at(self._told_until, finish, self._deliver, units, foreign, error)

    def _write(self, units: list[Unit]) -> list[Entry]:
        if self._trouble.disk_full():
            raise StoreFull("the simulated disk is full")
        return self._commit(units)

    def _dies(self, units: list[Unit], when: str) -> bool:
        if self._process is None or not units or not self._trouble.crash():
            return False
        what = ", ".join(f"{draft.kind} {draft.key}" for unit in units for draft in unit.drafts)
        self._trouble.told.append(f"killed {when} the commit of {what}")
        self._process.kill()
        return True

    async def close(self) -> None:
        """Wait for what is under way."""
        await asyncio.sleep(1.0)  # longer than a batch takes


class SimLedger(Ledger):
    """The in-memory twin with a disk that takes time. `process` dies in it; None for one that never does."""

    def __init__(
        self, state: MemoryState, world: World, trouble: Trouble | None = None, process: Process | None = None
    ) -> None:
        keyring = Keyring(state.keys, b"simulated master: no secret key!", world)
        super().__init__(state.backend, keyring, state.disk, world, projections(), threaded=False)
        self._trouble = trouble
        if trouble is not None:
            self._writer = SlowWriter(self._commit, self.hearing.deliver, trouble, process)
        else:
            self._writer = LoopWriter(self._commit, self.hearing.deliver)

    async def off_loop(self, function: Callable[..., Any], *args: Any) -> Any:
        """A read takes time too, and others write meanwhile."""
        if self._trouble is not None:
            await asyncio.sleep(self._trouble.delay(0.01))
        return function(*args)

    async def poll(self) -> None:
        """Look for others' entries; the disk is one memory here, so the heads tell."""
        if self.backend.heads() != self._committer._heads:
            await self._writer.submit(Unit("default", ()))


class Network(httpx2.AsyncBaseTransport):
    """What lies between a process and the company: delays, refused connections, lost requests, lost answers.

    A request that has left arrives even when its sender has died since. Requests that arrive late do so before the
    sender's time limit is over, which is what `not_after` relies on.
    """

    def __init__(self, sim: Simulation, company: Outside, trouble: Trouble) -> None:
        self._sim, self._company, self._trouble = sim, company, trouble

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """One exchange."""
        trouble = self._trouble
        limit = float(request.extensions.get("timeout", {}).get("read") or 5.0)
        name = f"{request.method} {request.url.path}"
        if self._dies(f"before {name}"):
            await self._never()
        fate = trouble.fate()
        if fate == "refused":
            raise httpx2.ConnectError("simulated: connection refused", request=request)
        answer: asyncio.Future[httpx2.Response] = self._sim.loop.create_future()
        arrives = trouble.delay(0.8 * limit) if fate == "late" else trouble.delay(0.05)
        if fate in ("lost request", "dropped before"):
            await asyncio.sleep(arrives)
            if fate == "dropped before":
                raise httpx2.ReadError("simulated: connection dropped", request=request)
            await asyncio.sleep(2 * limit)
        self._company.deliver(request, arrives, answer)
        if self._kills():
            answer.add_done_callback(lambda _: self._dies(f"after {name}", surely=True))
        if fate in ("late", "lost answer"):
            await asyncio.sleep(2 * limit)
        response = await answer
        if fate == "dropped after":
            raise httpx2.ReadError("simulated: connection dropped", request=request)
        await asyncio.sleep(trouble.delay(0.05))
        return response

    def _kills(self) -> bool:
        return self._sim.loop.current() is not None and self._trouble.crash()

    def _dies(self, what: str, surely: bool = False) -> bool:
        process = self._sim.loop.current()
        if process is None or not (surely or self._trouble.crash()):
            return False
        self._trouble.told.append(f"killed {what}")
        process.kill()
        return True

    async def _never(self) -> None:
        await self._sim.loop.create_future()


class Outside:
    """The company and a letter box that has neither keys nor look-ups, in a process that never dies."""

    def __init__(self, sim: Simulation) -> None:
        self._sim = sim
        self.process = sim.loop.process("company")
        self.company = Company(clock=sim.clock.now, rng=sim.random("company"))
        self.faults = Faults(sim.random("faults"))
        self.letters: list[dict[str, Any]] = []
        self._app = httpx2.ASGITransport(app=build_app(self.company, self.faults, TOKEN))

    def deliver(self, request: httpx2.Request, after: float, answer: asyncio.Future[httpx2.Response]) -> None:
        """Have a request arrive, whoever still waits for it."""
        copy = httpx2.Request(request.method, request.url, headers=request.headers, content=request.content)
        self.process.start(self._serve(copy, after, answer))

    async def _serve(self, request: httpx2.Request, after: float, answer: asyncio.Future[httpx2.Response]) -> None:
        await asyncio.sleep(after)
        try:
            response = await self._answer(request)
        except ConnectionDropped:
            answer.set_exception(httpx2.RemoteProtocolError("simulated: disconnected", request=request))
            answer.exception()  # taken, whether or not somebody still waits
        else:
            answer.set_result(response)

    async def _answer(self, request: httpx2.Request) -> httpx2.Response:
        if request.url.path == "/letters":
            import orjson

            self.letters.append(orjson.loads(request.content))
            return httpx2.Response(201, json={"sent": True})
        response = await self._app.handle_async_request(request)
        content = b"".join([chunk async for chunk in response.aiter_raw()])
        return httpx2.Response(response.status_code, headers=response.headers, content=content)

    def close(self) -> None:
        """Close the company's database."""
        self.company.close()


def seeded(seed: int | str, what: str) -> random.Random:
    """A stream of chance that depends on nothing else."""
    return random.Random(f"{seed}/{what}")

"""Too much at once, on the command line: an exit code of its own for one input; a file of inputs waits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from engine_desk import Desk, simulate

from tightship.cli._batch import Line
from tightship.cli._exit import EXIT_CODES, OVERLOADED
from tightship.cli._shell import Shell, fail
from tightship.cli._work import Work
from tightship.cli.run import Options, queue
from tightship.core.errors import Overloaded
from tightship.runtime.simulation import Simulation


def work(sim: Simulation, patient: bool) -> tuple[Work, list[float]]:
    """One line, of which the first two starts are refused; when it was tried."""
    desk = Desk(sim)

    async def agent(ctx: Any, given: dict[str, Any]) -> Any:
        return {}

    desk.agent("a", agent)
    desk.workflow("a")
    tried: list[float] = []
    real = desk.ws.run

    async def run(*args: Any, **more: Any) -> Any:
        tried.append(sim.clock.monotonic())
        if len(tried) < 3:
            raise Overloaded(retry_after=20.0)
        return await real(*args, **more)

    desk.ws.run = run  # type: ignore[method-assign]
    return Work(desk.ws, "flow", iter([Line(1, "one", {"case": "one"})]), 1, patient=patient), tried


def test_a_file_of_inputs_comes_again_when_it_was_told_to() -> None:
    async def story(sim: Simulation) -> Any:
        job, tried = work(sim, patient=True)
        await job.run()
        return job, tried

    job, tried = simulate(story)
    assert [record.state for record in job.records] == ["completed"]
    assert [round(at) for at in tried] == [0, 20, 40]


def test_one_input_is_an_error_with_an_exit_code_of_its_own(capsys: Any) -> None:
    async def story(sim: Simulation) -> Any:
        job, tried = work(sim, patient=False)
        await job.run()
        return job, tried

    job, tried = simulate(story)
    assert (len(tried), job.records[0].state) == (1, "error")
    assert isinstance(job.fatal, Overloaded)
    assert fail(Shell(Path("."), json=True), job.fatal) == OVERLOADED
    assert OVERLOADED in EXIT_CODES
    assert '"retry_after":20.0' in capsys.readouterr().err.replace(" ", "")


class Full:
    """A workspace that refuses the first starts."""

    def __init__(self, sim: Simulation, refusals: int) -> None:
        self.sim, self.refusals = sim, refusals
        self.tried: list[float] = []

    async def submit(self, *_: Any, **__: Any) -> str:
        self.tried.append(self.sim.clock.monotonic())
        if len(self.tried) <= self.refusals:
            raise Overloaded("three wait", retry_after=20.0)
        return "r-1"


def queued(sim: Simulation, full: Full, data: str | None) -> Any:
    options = Options("flow", None if data else "cases.jsonl", data, 1, False, False, "", False, "", True, "ann")
    return queue(Shell(Path("."), json=False), options, full, Line(7, "one", {"case": "one"}), "ann")  # type: ignore[arg-type]


def test_a_file_that_is_left_to_workers_waits_for_room_too_and_says_so_once(capsys: Any) -> None:
    async def story(sim: Simulation) -> Any:
        full = Full(sim, 2)
        return await queued(sim, full, None), full.tried

    run, tried = simulate(story)
    assert (run, [round(at) for at in tried]) == ("r-1", [0, 20, 40])
    assert capsys.readouterr().err.count("line 7 waits for room: three wait") == 1


def test_one_input_that_is_left_to_workers_is_refused_at_once() -> None:
    async def story(sim: Simulation) -> Any:
        full = Full(sim, 1)
        with pytest.raises(Overloaded):
            await queued(sim, full, '{"case": "one"}')
        return len(full.tried)

    assert simulate(story) == 1

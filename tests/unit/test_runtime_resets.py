"""A Python agent begins anew as declared: nothing that its module has gathered reaches a later turn, and it is recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tightship.core import kinds
from tightship.core.world import Clock, World
from tightship.insight.behaviour import behaviour
from tightship.ledger import Ledger
from tightship.runtime.workspace import Workspace, projections
from tightship.workflow.models import ResetSpec

CODE = """\
import helper


async def work(ctx, input):
    helper.seen.append(input["case"])
    return {"seen": list(helper.seen), "version": helper.VERSION}


async def other(ctx, input):
    return await work(ctx, input)
"""
HELPER = "seen = []\nVERSION = 1\n"
AGENT = """\
agent: {name}
owner: o
purpose: remember too much
python: desk:{name}
input: {{case: str}}
output: {{seen: "list[str]", version: int}}
{more}
"""
FLOW = "workflow: {name}\nowner: o\npurpose: p\nescalate_to: lead\ninput: {{case: str}}\nsteps: [{name}]\n"


class Ahead(Clock):
    """A clock that the test puts forward."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self._real = World().clock

    def now(self) -> float:
        return self._real.now() + self.ahead

    def monotonic(self) -> float:
        return self._real.monotonic()

    async def sleep(self, seconds: float) -> None:
        await self._real.sleep(seconds)


class Shop:
    """A workspace whose agents keep what they are given in a module."""

    def __init__(self, folder: Path, reset: str) -> None:
        files = {
            "tightship.yaml": "name: shop\nroles: {lead: [ann]}\n",
            "agents/desk.py": CODE,
            "agents/helper.py": HELPER,
        }
        for name, more in (("work", reset), ("other", "")):
            files[f"agents/{name}.yaml"] = AGENT.format(name=name, more=more)
            files[f"workflows/{name}.yaml"] = FLOW.format(name=name)
        for name, text in files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text)
        self.folder, self.clock = folder, Ahead()
        world = World(self.clock)
        self.ledger = Ledger.in_memory(world, projections())
        self.ws = Workspace.open(folder, world=world, ledger=self.ledger)

    async def seen(self, case: str, workflow: str = "work") -> Any:
        run = await self.ws.run(workflow, {"case": case})
        assert run.outcome == "completed", run.reason
        return run.output


async def test_after_so_many_turns_nothing_is_left_of_them_and_each_reset_is_an_entry(tmp_path: Path) -> None:
    shop = Shop(tmp_path, "reset: {turns: 2}")
    async with shop.ws:
        seen = [(await shop.seen(case))["seen"] for case in "abcde"]
        assert seen == [["a"], ["a", "b"], ["c"], ["c", "d"], ["e"]]
        resets = [one.body for one in await shop.ledger.entries(0, 1000) if one.kind == kinds.RESET]
        assert [(one["agent"], one["turns"]) for one in resets] == [("work", 2), ("work", 2)]
        assert (await behaviour(shop.ledger)).resets == {"work": 2}


async def test_without_a_reset_it_keeps_everything(tmp_path: Path) -> None:
    shop = Shop(tmp_path, "")
    async with shop.ws:
        assert [len((await shop.seen(case))["seen"]) for case in "abc"] == [1, 2, 3]


async def test_before_the_first_turn_after_its_time_it_begins_anew(tmp_path: Path) -> None:
    shop = Shop(tmp_path, "reset: {every: 1h}")
    async with shop.ws:
        await shop.seen("a")
        assert (await shop.seen("b"))["seen"] == ["a", "b"]
        shop.clock.ahead = 3601.0
        assert (await shop.seen("c"))["seen"] == ["c"]


async def test_a_file_that_has_changed_since_changes_no_turn(tmp_path: Path) -> None:
    shop = Shop(tmp_path, "reset: {turns: 1}")
    async with shop.ws:
        await shop.seen("a")
        (tmp_path / "agents/helper.py").write_text("seen = []\nVERSION = 2\n")
        (tmp_path / "agents/desk.py").write_text("raise RuntimeError\n")
        assert await shop.seen("b") == {"seen": ["b"], "version": 1}


async def test_what_is_kept_by_an_agent_that_declares_none_stays(tmp_path: Path) -> None:
    shop = Shop(tmp_path, "reset: {turns: 1}")
    async with shop.ws:
        await shop.seen("x", "other")
        await shop.seen("a")
        assert (await shop.seen("b"))["seen"] == ["b"]
        assert "x" in (await shop.seen("y", "other"))["seen"]


def test_a_reset_says_when() -> None:
    with pytest.raises(ValueError, match="say when"):
        ResetSpec()

"""A model's conversation is a chain of effects: stored once, and after a crash nothing of it is asked again."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))

from model_desk import ANSWER, CONFIG, Desk, Paid, Shop, effects, of_kind
from tightship.core import kinds
from tightship.core.errors import StoreError
from tightship.ledger import Ledger, MemoryState
from tightship.ledger.entries import Entry, Unit
from tightship.models import Conversation, Message, ModelReply, ModelRequest
from tightship.runtime.fork import fork
from tightship.runtime.result import Run
from tightship.runtime.simulation import Process, Simulation, simulate
from tightship.runtime.workspace import projections

READS = [("orders.get", {"order_id": "O-1"}), ("orders.get", {"order_id": "O-2"})]
NOTE = ("orders.note", {"order_id": "O-1", "text": "asked"})


def brain(request: ModelRequest) -> Any:
    """A turn with everything in it: calls side by side, a write, a mistake, a repair, the next tier, an answer."""
    rounds = sum(message.role == "assistant" for message in request.conversation.messages())
    script: list[Any] = [[*READS, NOTE], [("orders.get", {"order": 3})], {"topic": "weather", "note": ""}, "no", ANSWER]
    return script[rounds]


ASKED = 5
"""Requests of an undisturbed turn."""


# --- the chain ---------------------------------------------------------------------------------------


async def test_every_request_names_the_one_before_and_only_what_was_said_since(tmp_path: Path) -> None:
    desk = Desk(tmp_path, [READS, {"topic": "weather"}, ANSWER])
    run = await desk.run()
    first, second, third = (body for body in effects(run).values() if body["cls"] == "model")
    assert "after" not in first and len(first["said"]) == 2
    assert (second["after"], second["replied"], len(second["said"])) == ("triage/triage/1/model/1", True, 2)
    # The wrong answer stood outside of the message, so it is said again together with the objection.
    assert (third["after"], third.get("replied"), len(third["said"])) == ("triage/triage/1/model/2", None, 2)


async def conversation_of(run: Run, ledger: Ledger, key: str) -> list[Message]:
    """What a model was asked with, read back from the ledger alone."""
    bodies = effects(run)
    body = bodies[key]
    messages: list[Message] = []
    if "after" in body:
        messages = await conversation_of(run, ledger, body["after"])
        if body.get("replied"):
            messages.append(Message.from_json(await ledger.value(bodies[body["after"]]["out"])))
    return messages + [Message.from_json(await ledger.value(address)) for address in body.get("said", ())]


async def test_the_ledger_holds_every_conversation_exactly_as_it_was_asked(tmp_path: Path) -> None:
    desk = Desk(tmp_path, [brain])
    run = await desk.run()
    keys = [key for key, body in effects(run).items() if body["cls"] == "model"]
    assert len(keys) == len(desk.requests) == ASKED
    for key, asked in zip(keys, desk.requests, strict=True):
        assert await conversation_of(run, desk.ledger, key) == asked.conversation.messages()


async def test_a_conversation_of_n_turns_costs_n_to_store(tmp_path: Path) -> None:
    async def stored(turns: int) -> int:
        said = [os.urandom(400).hex() for _ in range(turns)]

        async def agent(ctx: Any, given: Any) -> Any:
            talk = Conversation()
            for text in said:
                talk = talk.append(Message.user(text))
                talk = talk.append(Message.assistant(await ctx.model(talk, tier="cheap")))
            return ANSWER

        folder = tmp_path / str(turns)
        folder.mkdir()
        answers = [os.urandom(400).hex() for _ in range(turns)]
        limits = {"calls": 1000}
        desk = Desk(folder, answers, function=agent, workflow={"limits": limits, "budget": {"seconds": 600}})
        before = size(desk.state)
        assert (await desk.run()).outcome == "completed"
        return size(desk.state) - before

    def size(state: MemoryState) -> int:
        payloads = sum(len(data or b"") for _, data, _ in state.backend._payloads.values())
        return payloads + sum(len(data) for log in state.backend._entries.values() for _, data in log)

    few, many = await stored(20), await stored(200)
    each = 2 * 800
    assert 180 * each * 0.5 < many - few < 180 * (each + 1000)


async def test_a_conversation_that_lives_longer_than_a_run_is_a_new_one_in_each(tmp_path: Path) -> None:
    shared = Conversation.of([Message.user("hello")])

    async def agent(ctx: Any, given: Any) -> Any:
        await ctx.model(shared, tier="cheap")
        return ANSWER

    desk = Desk(tmp_path, ["yes"], function=agent)
    for _ in range(2):
        run = await desk.run()
        assert run.outcome == "completed"
        [body] = effects(run).values()
        assert "after" not in body and len(body["said"]) == 1


# --- after a crash -----------------------------------------------------------------------------------


class Mortal(Ledger):
    """A ledger in which the process dies: before or after its n-th commit."""

    process: Process | None = None
    at: int = 0
    when: str = "after"
    commits: int = 0

    def _commit(self, units: list[Unit]) -> list[Entry]:
        self.commits += 1
        dies = self.process is not None and self.commits == self.at
        if dies and self.when == "before":
            self.process.kill()  # type: ignore[union-attr]
            raise StoreError("the process is dead")
        entries = super()._commit(units)
        if dies:
            self.process.kill()  # type: ignore[union-attr]
        return entries


class MortalModel(Paid):
    """A model in whose n-th request the process dies."""

    process: Process | None = None
    at: int = 0
    pace: random.Random | None = None

    async def request(self, request: ModelRequest, on_text: Any = None) -> ModelReply:
        if self.pace is not None:
            await asyncio.sleep(self.pace.random())
        if self.process is not None and len(self.requests) + 1 == self.at:
            self.requests.append(request)
            self.process.kill()
            await asyncio.sleep(0)
        return await super().request(request, on_text)


class Story:
    """One run of a desk in a process that dies once, and what the next process makes of it."""

    def __init__(self, folder: Path, answers: Any = None, **desk: Any) -> None:
        self.folder, self.shop, self.state = folder, Shop(), MemoryState()
        self.answers, self.more = [brain] if answers is None else answers, desk
        self.first: list[ModelRequest] = []
        self.second: list[ModelRequest] = []
        self.settled = 0
        self.died = False

    async def tell(self, sim: Simulation, when: str, at: int) -> Run:
        """Die `before` or `after` the commit `at`, or in the `request` of that number; then resume."""
        process = sim.loop.process("first")
        over = asyncio.Event()
        process.on_death(over.set)

        async def live() -> None:
            model = MortalModel(self.answers)
            self.first = model.requests
            desk = self._desk(sim, model, process, when, at)
            await desk.run(reference="T-1")
            over.set()

        task = process.start(live())
        await over.wait()
        self.died = not process.alive
        if not self.died:
            await task
        await sim.clock.sleep(1.0)
        desk = self._desk(sim, MortalModel(self.answers), None, when, at)
        self.second = desk.model.requests
        await self._count(desk.ledger)
        run = await desk.run(reference="T-1")
        await desk.space.close()
        return run

    def _desk(self, sim: Simulation, model: MortalModel, process: Process | None, when: str, at: int) -> Desk:
        ledger = Mortal.in_memory(sim.world(), projections(), self.state)
        assert isinstance(ledger, Mortal)
        model.pace = sim.random(f"pace {when} {at} {process is None}")
        if when == "request":
            model.process, model.at = process, at
        else:
            ledger.process, ledger.at, ledger.when = process, at, when
        return Desk(self.folder, model, world=sim.world(), ledger=ledger, shop=self.shop, **self.more)

    async def _count(self, ledger: Ledger) -> None:
        """Requests that were settled when the process died."""
        entries = await ledger.entries()
        final = [entry for entry in entries if entry.kind == kinds.SETTLED and not entry.body.get("again")]
        self.settled = sum(entry.body["cls"] == "model" for entry in final)


def shape(run: Run) -> list[tuple[Any, ...]]:
    """What a turn did, key by key, without what a crash may change: attempts, and what they cost."""
    return [
        (key, body["name"], body.get("after"), body.get("replied"), len(body.get("said", ())))
        for key, body in sorted(effects(run).items())
    ]


def undisturbed(folder: Path, **more: Any) -> tuple[Run, int]:
    folder.mkdir()
    story = Story(folder, **more)
    run = simulate(lambda sim: story.tell(sim, "after", 0), seed=1)
    commits = sum(1 for _ in run.entries)
    assert not story.died and len(story.first) == ASKED and story.second == []
    return run, commits


@pytest.mark.parametrize("when", ["before", "after", "request"])
def test_killed_at_any_point_the_turn_goes_on_and_asks_nothing_that_is_settled_again(tmp_path: Path, when: str) -> None:
    calm, commits = undisturbed(tmp_path / "calm")
    assert calm.output == ANSWER
    deaths = 0
    for at in range(1, (ASKED if when == "request" else commits) + 1):
        folder = tmp_path / f"{when}-{at}"
        folder.mkdir()
        story = Story(folder)
        run = simulate(lambda sim, told=story, n=at: told.tell(sim, when, n), seed=at)
        deaths += story.died
        assert (run.outcome, run.output) == ("completed", ANSWER), at
        assert shape(run) == shape(calm), at
        assert story.shop.notes == ["O-1: asked"], at
        assert len(story.second) == ASKED - story.settled, at
        again = [request.conversation.digest for request in story.second]
        assert len(set(again)) == len(again), at
    assert deaths >= ASKED


def test_an_attempt_that_a_crash_cut_off_is_charged_in_full_and_reserved_anew(tmp_path: Path) -> None:
    story = Story(tmp_path)
    run = simulate(lambda sim: story.tell(sim, "request", 3), seed=1)
    assert story.died and story.settled == 2
    lost = [entry.body for entry in of_kind(run, kinds.SETTLED) if entry.body.get("again")]
    assert [(body["usd"], body["tokens_in"]) for body in lost] == [(1000, 150)]
    assert run.usd == ASKED * 300 + 1000
    assert effects(run)["triage/triage/1/model/3"]["attempt"] == 2


@pytest.mark.parametrize("seed", range(6))
def test_questions_asked_side_by_side_keep_their_places_whoever_answers_first(tmp_path: Path, seed: int) -> None:
    async def agent(ctx: Any, given: Any) -> Any:
        opening = Conversation.of([Message.user("hello")])
        first = await ctx.model(opening, tier="cheap")
        talk = opening.append(Message.assistant(first)).append(Message.user("go on"))

        async def work(c: Any) -> Any:
            text = await c.model(talk, tier="cheap")
            return await c.model(talk.append(Message.assistant(text)).append(Message.user("more")), tier="cheap")

        return {"topic": "order", "note": " ".join(await ctx.parallel(work, work, work))}

    runs: list[Run] = []
    for at in (0, 6, 9, 12):
        folder = tmp_path / str(at)
        folder.mkdir()
        story = Story(folder, ["yes"], function=agent)
        runs.append(simulate(lambda sim, told=story, n=at: told.tell(sim, "after", n), seed=seed, shuffle=True))
    for run in runs:
        assert run.outcome == "completed", run.package
        assert shape(run) == shape(runs[0])


def test_a_prompt_that_differs_on_replay_is_noticed(tmp_path: Path) -> None:
    lives = iter("ab")

    async def agent(ctx: Any, given: Any) -> Any:
        await ctx.model(f"hello {next(lives)}", tier="cheap")
        return ANSWER

    story = Story(tmp_path, ["yes"], function=agent)
    run = simulate(lambda sim: story.tell(sim, "request", 1), seed=1)
    assert (run.outcome, run.reason) == ("escalated", "NondeterminismError")
    assert story.second == []


def test_tiers_that_were_changed_meanwhile_are_those_of_new_runs_only(tmp_path: Path) -> None:
    story = Story(tmp_path)
    changed = CONFIG.replace("max_tokens: 100", "max_tokens: 77")

    async def tell(sim: Simulation) -> tuple[Run, int]:
        story.more = {"config": CONFIG}
        process = sim.loop.process("first")
        over = asyncio.Event()
        process.on_death(over.set)
        first = story._desk(sim, MortalModel([brain]), process, "request", 3)
        process.start(first.run(reference="T-1"))
        await over.wait()
        story.more = {"config": changed}
        second = story._desk(sim, MortalModel([brain]), None, "request", 0)
        run = await second.run(reference="T-1")
        await second.run(reference="T-2")
        return run, second.requests[-ASKED].settings.max_tokens

    run, tokens = simulate(tell, seed=1)
    assert run.outcome == "completed"
    assert tokens == 77


async def test_a_fork_asks_only_from_its_key_on(tmp_path: Path) -> None:
    desk = Desk(tmp_path, [brain])
    source = await desk.run()
    before = len(desk.requests)
    made = await fork(desk.space, source.id, "triage/triage/1/model/4")
    assert made.outcome == "completed"
    assert [request.tier for request in desk.requests[before:]] == ["cheap", "strong"]
    assert desk.shop.notes == ["O-1: asked"]
    assert shape(made) == shape(source)

"""A node of a run while it is interpreted: the engine's side of effects.Frame."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import orjson

from tightship.agents.context import Pinned
from tightship.agents.turn import take_turn
from tightship.context.board import Move
from tightship.controls.budgets import Amount
from tightship.controls.loops import ROUND
from tightship.core import kinds
from tightship.core.errors import LimitReached, TightshipError, WorkException
from tightship.core.ports import WORKFLOW, Json
from tightship.core.signals import OverBudget
from tightship.effects.call import Call
from tightship.effects.door import Door
from tightship.effects.frame import (
    CONSTRAINTS,
    ActionCall,
    Agreement,
    Answer,
    Board,
    Branch,
    BranchResult,
    Governed,
    Learning,
    Question,
    RunFacts,
    Scope,
)
from tightship.effects.shared import READ, local_call
from tightship.ledger import Count, Expected
from tightship.runtime import governing
from tightship.runtime.agreement import agree, based, pin
from tightship.runtime.asking import ask, person
from tightship.runtime.ballots import persons
from tightship.runtime.behaviours import Exceptional, behaviours_of
from tightship.runtime.board import give_back, look, move
from tightship.runtime.bounded import bounded
from tightship.runtime.branches import Branches
from tightship.runtime.children import run_child
from tightship.runtime.notes import keep_round, record_note, refuse_round
from tightship.runtime.passing import pass_control, send_messages
from tightship.runtime.saga import begin, turn_around
from tightship.runtime.siblings import SHORT_PAUSE, after, announce, keep, kept, observe, observed
from tightship.workflow.models import GroundedSpec
from tightship.workflow.tree import UndoRetry

if TYPE_CHECKING:
    from tightship.runtime.run import RunTask

SHARED = "context."
"""What a condition's names of the shared context begin with."""


def join(path: str, part: str) -> str:
    """A key with one more part."""
    return f"{path}/{part}" if path else part


def _texts(value: Json) -> list[str]:
    """What of it is text."""
    return [one for one in value if isinstance(one, str)] if isinstance(value, list | tuple) else []


def again(key: str, times: Mapping[str, int]) -> str:
    """The key of a step that a person has had begin anew, so many times."""
    return f"{key}+{times[key]}" if key in times else key


class NodeFrame:
    """One node. Sub-paths of the same task share the scope; branches get a layer of their own."""

    __slots__ = ("_ordinals", "_overrides", "key", "line", "scope", "task")

    def __init__(
        self, task: RunTask, key: str, scope: Scope, overrides: Mapping[str, Any] | None = None, line: str = ""
    ) -> None:
        self.task = task
        self.key = key
        self.scope = scope
        self.line = line
        self._overrides: Mapping[str, Any] = overrides or {}
        self._ordinals: dict[str, int] = {}

    @property
    def run(self) -> RunFacts:
        """What stays the same for the whole run."""
        return self.task.session.facts

    def at(self, part: str) -> NodeFrame:
        """The frame of a sub-path."""
        key = join(self.key, part)
        return NodeFrame(self.task, key, self.scope, self._overrides, key)

    def round(self, number: int) -> NodeFrame:
        """The frame of one of several rounds, in a line that goes on from the others' (controls.near_repeats)."""
        key = join(self.key, str(number))
        return NodeFrame(self.task, key, self.scope, self._overrides, f"{key}{ROUND}")

    def bind(self, name: str, value: Json) -> None:
        """Give a name a value."""
        self.scope.names[name] = value

    def branch(self, part: str) -> NodeFrame:
        """The frame of a branch: a scope and a line of its own."""
        key = join(self.key, part)
        return NodeFrame(self.task, key, self.scope.layer(), line=key)

    def next_key(self, what: str) -> str:
        """The key of the next thing of a kind at this node."""
        ordinal = self._ordinals[what] = self._ordinals.get(what, 0) + 1
        return join(self.key, f"{what}/{ordinal}")

    # --- steps -----------------------------------------------------------------------------------

    async def step(self, step: Any) -> Json:
        """Interpret a child step under its part of the key."""
        # agents and actions apply `on:` themselves, with the agent's and the workflow's
        leaf = next(iter(step.children()), None) is None and (any(step.agents()) or any(step.tools()))
        journal, key = self.task.journal, join(self.key, step.part)
        by_hand = journal.by_hand.get(key)
        if by_hand is not None:
            value = await journal.value(by_hand["value"])
            if step.result is not None:
                self.bind(step.result, value)
            return await self._edited(step.result, value)
        frame = NodeFrame(self.task, again(key, journal.anew), self.scope, step.on if leaf else None, self.line)
        await self.see_edits(frame.key)
        if leaf or not step.on:
            value = await self._perform(step, frame)
        else:
            value = await self._exceptional(step, frame)
        if step.name is not None:
            self.bind(step.name, value)
        return await self._edited(step.name, value)

    async def see_edits(self, key: str) -> None:
        """Bound values as the step at this key sees them: an edit counts for what had not begun when it was made.

        Steps that had begun go on seeing what they saw, so a replay gives what the first run gave. A value that was
        made anew since is left alone.
        """
        journal, names = self.task.journal, self.scope.names
        if not journal.edits:
            return
        begun = {entry.n for entry in journal.edits if journal.begun_before(key, entry.n)}
        for edit in reversed(journal.edits):
            if edit.n in begun:
                await self._swap(names, edit.body, "value", "was")
        for edit in journal.edits:
            if edit.n not in begun:
                await self._swap(names, edit.body, "was", "value")

    async def _edited(self, name: str | None, value: Json) -> Json:
        """A step's output as whatever comes next sees it."""
        if name is None or not self.task.journal.edits:
            return value
        names = {name: value}
        for edit in self.task.journal.edits:
            await self._swap(names, edit.body, "was", "value")
        return names[name]

    async def _swap(self, names: dict[str, Json], edit: Mapping[str, Any], old: str, new: str) -> None:
        name = edit["name"]
        if name in names and names[name] == await self.task.journal.value(edit[old]):
            names[name] = await self.task.journal.value(edit[new])

    async def _exceptional(self, step: Any, frame: NodeFrame) -> Json:
        """A composite step with behaviours of its own: each further try has its own path."""

        async def attempt(number: int) -> Json:
            at = frame if number == 1 else NodeFrame(self.task, f"{frame.key}~{number}", self.scope, line=self.line)
            return await self._perform(step, at)

        return await Exceptional(frame, step.part, (behaviours_of(step),)).run(attempt)

    async def _perform(self, step: Any, frame: NodeFrame) -> Json:
        journal = self.task.journal
        await journal.landed(kinds.NODE, frame.key)
        recorded = journal.nodes.get(frame.key) if step.record else None
        if recorded is not None:
            kept = await journal.value(recorded["out"])
            self.scope.names.update(kept["names"])
            return kept["output"]
        before = dict(self.scope.names) if step.record else {}
        value = await (
            frame.bounded(step.within, step.part, lambda: step.execute(frame)) if step.within else step.execute(frame)
        )
        if step.record:
            names = {name: bound for name, bound in self.scope.names.items() if before.get(name) is not bound}
            payload, data = journal.seal({"output": value, "names": names})
            await journal.go_ahead(kinds.NODE, frame.key, {"out": payload.address}, (payload,))
            kept = orjson.loads(data)  # the keys of objects in the order in which a replay finds them
            self.scope.names.update(kept["names"])
            return kept["output"]
        return value

    async def bounded(self, seconds: float, what: str, work: Callable[[], Awaitable[Json]]) -> Json:
        """Work with a time limit. Whether it or the limit was first is decided once."""
        return await bounded(self, seconds, what, work)

    # --- agents ----------------------------------------------------------------------------------

    async def turn(self, agent: str, give: Mapping[str, Json] | None = None) -> Json:
        """The agent's next turn here, with its declared behaviours."""
        return await self.turn_of(agent, give)

    async def turn_of(self, agent: str, give: Mapping[str, Json] | None, plain: bool = False) -> Json:
        """The agent's next turn; `plain` without behaviours (it is itself a declared alternative)."""
        program = self.task.program
        spec = program.agent_spec(agent)
        given = program.gather(spec, self.scope.names, give or {})
        feedback = list(self.scope.names.get("feedback") or ())
        pinned = Pinned(program.spec.purpose, program.spec.constraints, _texts(self.scope.names.get(CONSTRAINTS)))
        key = self.next_key(agent)

        async def attempt(number: int) -> Json:
            path = key if number == 1 else f"{key}~{number}0"
            if spec.human is not None and not program.rehearsed:
                return await person(NodeFrame(self.task, path, self.scope), spec, given)
            if path not in self.task.journal.turns and not program.rehearsed:
                engine = self.task.engine
                await engine.resets.before_turn(spec, program.code, self.task.session.shared.world.clock, engine.ledger)
            ready, grounds = program.agent(agent), self.task.session.grounds_at(path)
            ready = ready if grounds is None else replace(ready, grounded=grounds)
            return await take_turn(self.task.session, ready, path, given, pinned, feedback, self.line)

        if plain:
            return await attempt(1)
        declared = (self._overrides, behaviours_of(spec), behaviours_of(program.spec))
        return await Exceptional(NodeFrame(self.task, f"{key}!", self.scope), agent, declared).run(attempt)

    # --- actions ---------------------------------------------------------------------------------

    async def act(self, call: ActionCall) -> Json:
        """A write of the workflow itself, with its claim and its undo."""
        program, session = self.task.program, self.task.session
        tool = program.tool(call.tool)
        key = self.next_key(call.tool)
        claim = None if call.claim is None else program.claim(self.run.tenant, call.claim)
        spec = tool.spec
        undo = call.undo
        if undo is not None and not undo.args and spec.undo is not None and spec.undo.tool == undo.tool:
            undo = spec.undo  # the contract knows the arguments

        async def attempt(number: int) -> Json:
            path = standing = key if number == 1 else f"{key}~{number}"
            undone = 0
            while standing in session.journal.undone:  # a person had it undone: it is done anew
                undone += 1
                standing = f"{path}+{undone}"
            return await Door(session).perform(
                Call(
                    key=standing,
                    tool=tool,
                    cls=spec.effect,
                    agent=WORKFLOW,
                    args=dict(call.args),
                    declared=program.declared,
                    claim=claim,
                    undo=undo,
                    ceiling=Amount(spec.price.usd, spec.price.tokens),
                    expect=call.expect,
                )
            )

        declared = (self._overrides, behaviours_of(program.spec))
        return await Exceptional(NodeFrame(self.task, f"{key}!", self.scope), call.tool, declared).run(attempt)

    async def agree(self, agents: Sequence[str], on: Sequence[str], inside: Sequence[str]) -> Agreement:
        """Compare what agents have read with one snapshot."""
        return await agree(self, agents, on, inside)

    async def based(self, agents: Sequence[str], on: Sequence[str], agreed: Agreement) -> tuple[Expected, ...]:
        """What must still stand after they have decided again."""
        return await based(self, agents, on, agreed)

    def pin(self, agreed: Agreement) -> None:
        """Read the shared context below this node as the snapshot has it."""
        pin(self, agreed)

    # --- branches --------------------------------------------------------------------------------

    async def fork(self, branches: Sequence[Branch], on_failure: Literal["end", "keep"]) -> list[BranchResult]:
        """Run branches side by side; which one failed first is decided once.

        Raises:
            LimitReached: these are more than may run side by side.
        """
        most = self.task.program.limits.branches
        if len(branches) > most:
            await self.note("limit", title=f"{len(branches)} branches")
            raise LimitReached(
                f"{len(branches)} branches would run side by side, and {most} are allowed",
                fix="raise limits.branches, or split the step",
            )
        return await Branches(self, branches, on_failure).run()

    def each_person_once(self) -> None:
        """Below this node a person may answer in one branch only."""
        self.task.session.ballots.add(self.key)

    def ground(self, grounds: GroundedSpec) -> None:
        """Below this node an answer has to be grounded."""
        self.task.session.grounds[self.key] = grounds

    def persons(self) -> Sequence[str]:
        """Who has answered something at or below this node."""
        return persons(self)

    # --- values ----------------------------------------------------------------------------------

    async def evaluate(self, condition: Any, names: Mapping[str, Json] | None = None) -> Json:
        """The condition's value; what is not the run's own data is decided once."""
        scope = self.scope.names if not names else {**self.scope.names, **names}
        return condition.evaluate(scope, await self.given(condition) if condition.ambient else None)

    async def given(self, condition: Any) -> dict[str, Json]:
        """The values of a condition's ambient names, decided once."""
        if not condition.ambient:
            return {}
        key = self.next_key("given")
        shared = [name for name in condition.ambient if name.startswith(SHARED)]
        own = [name for name in condition.ambient if name not in shared]
        given: dict[str, Json] = {}
        if own:
            given |= await self.once(key, lambda: governing.given(self.task.program, own, condition))
        for name in shared:  # read through the door, which records it sealed
            args = {"keys": [name.removeprefix(SHARED)]}
            call = local_call(READ, f"{key}/context/{name.removeprefix(SHARED)}", WORKFLOW, args)
            given[name] = (await Door(self.task.session).perform(call))[0]["value"]
        return given

    async def govern(self, condition: Any, learning: Learning) -> Governed | None:
        """The threshold of a class of decisions for this case."""
        return await governing.govern(self, condition, learning)

    async def learn(self, learning: Learning) -> None:
        """Let a class take in what people have decided."""
        if not self.task.program.rehearsed:
            await self.task.engine.thresholds.learn(learning)

    def makers(self, value: Json) -> list[str]:
        """The people who gave this value."""
        return governing.makers(self, value)

    def keep_apart(self, part: str, people: Sequence[str]) -> None:
        """What is asked in this step is decided by others than these."""
        self.task.session.apart[join(self.key, part)] = people

    async def decide(self, name: str, value: Callable[[], Json]) -> Json:
        """A value computed once."""
        key = join(self.key, name)
        if key in self.task.journal.decided:
            return self.task.journal.decided[key]
        return await self.task.journal.decide(key, value())

    async def keep(self, name: str, value: Callable[[], Json]) -> Json:
        """A value computed once, sealed."""
        return await keep(self, name, value)

    async def kept(self, name: str) -> Any:
        """What was kept under this name."""
        return await kept(self, name)

    async def note(self, type: str, **fields: Json) -> None:
        """Record something worth seeing, once.

        Raises:
            LimitReached: what it belongs to is to be done `again`, and that is one retry too many.
        """
        key = self.next_key(f"note:{type}")
        if key in self.task.journal.notes:
            return
        if fields.get("again"):
            self.task.session.limits.count_retry(key, 2)
        await self.record_note(key, type, fields)

    async def note_retry(self, type: str, **fields: Json) -> bool:
        """Record something after which work is to be done again; whether the run's retries allow it, decided once."""
        key = self.next_key(f"note:{type}")
        recorded = self.task.journal.notes.get(key)
        if recorded is None:
            recorded = {**fields, "again": True} if self.task.session.limits.may_retry(key) else fields
            await self.record_note(key, type, recorded)
        return bool(recorded.get("again"))

    async def hand_over(self, source: str, target: str, **told: Json) -> None:
        """Control passes from one agent to another."""
        await pass_control(self, source, target, told)

    async def send(self, source: str, messages: int, **told: Json) -> int:
        """A peer's turn, and how many of its messages go out."""
        return await send_messages(self, source, messages, told)

    async def record_note(
        self, key: str, type: str, fields: Mapping[str, Json], counts: tuple[Count, ...] = ()
    ) -> None:
        """Record a note; `counts` is what it counts for and may not pass: the run's own first, then those above it."""
        await record_note(self, key, type, fields, counts)

    async def refuse_round(self, by: str, what: str, given: Json, gave: Json = None) -> None:
        """Let a round begin, unless it is nearly the same again."""
        await refuse_round(self, by, what, given, gave)

    async def keep_round(self, by: str, given: Json, gave: Json) -> None:
        """What a round was."""
        await keep_round(self, by, given, gave)

    # --- waiting ---------------------------------------------------------------------------------

    async def pause(self, seconds: float) -> None:
        """Wait until a moment that is decided once."""
        if seconds <= 0:
            return
        task, key = self.task, self.next_key("pause")
        clock = task.session.shared.world.clock
        until = float(await self.once(key, lambda: clock.now() + seconds))
        left = until - clock.now()
        if left <= 0:
            return
        if left <= SHORT_PAUSE:
            await clock.sleep(left)
        else:
            await task.wait(key, until)

    async def once(self, key: str, value: Callable[[], Json]) -> Json:
        """A value computed once, recorded under this very key."""
        journal = self.task.journal
        return journal.decided[key] if key in journal.decided else await journal.decide(key, value())

    async def ask(self, question: Question) -> Answer:
        """An inbox item, and its decision; the run parks when nothing else of it can go on."""
        return await ask(self, self.next_key("ask"), question)

    async def observe(self, name: str, value: Callable[[], Json]) -> Json:
        """What others have come to: a race, sealed."""
        return await observe(self, name, value)

    async def observed(self, name: str) -> Any:
        """What was observed under this name."""
        return await observed(self, name)

    async def after(self, name: str, until: float = 0.0) -> None:
        """Wait until a branch beside this one has announced this name, or until a time."""
        await after(self, name, until)

    def announce(self, name: str) -> None:
        """Let whoever waits beside this branch for this name go on."""
        announce(self, name)

    async def look(self, board: Board, items: Mapping[str, str | None]) -> Mapping[str, Any]:
        """How sub-problems stand."""
        return await look(self, board, items)

    async def move(self, board: Board, by: str, moves: Sequence[Move]) -> Sequence[Mapping[str, Any]]:
        """A peer's moves on a board."""
        return await move(self, board, by, moves)

    async def give_back(self) -> None:
        """Open again what peers below this node hold."""
        await give_back(self.task, [self.key])

    async def ask_for_budget(self, signal: OverBudget) -> None:
        """A short envelope: a person extends it, or the refusal stands.

        Raises:
            OverBudget: the extension was refused.
        """
        from tightship.runtime.purse import ask_for_extension

        await ask_for_extension(self, signal)

    async def child(self, workflow: str, give: Mapping[str, Json]) -> Json:
        """A child run, and its output."""
        return await run_child(self, self.next_key(f"child:{workflow}"), workflow, give)

    async def all_or_nothing(self, retry: UndoRetry) -> TightshipError | None:
        """What is done below this node is undone when it is cut off."""
        return await begin(self, retry)

    async def take_back(self, error: TightshipError, retry: UndoRetry) -> Sequence[Mapping[str, Json]]:
        """Undo what was done below this node."""
        return await turn_around(self, error, retry)

    def escalate(self, exception: WorkException | LimitReached) -> NoReturn:
        """End the run as escalated with this exception."""
        from tightship.runtime.ending import Escalate

        raise Escalate(exception)

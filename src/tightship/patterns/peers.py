"""Peers claim sub-problems from a shared board, ask each other for help and delegate, until all is done (P7).

A peer's turn is data: what it claims, finds out, gives back, and says to the others. Messages are asynchronous; the end
is found as in message-passing systems: everybody waits and nothing is under way (E. W. Dijkstra and C. S. Scholten,
"Termination detection for diffusing computations", Information Processing Letters 11(1), 1980).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal

from pydantic import Field

from tightship.context.board import Move
from tightship.core.errors import DataMissing, FormatMismatch, NobodyMoves, TightshipError, TimedOut
from tightship.core.ports import Json
from tightship.effects.frame import Board, Branch, BranchResult, Frame
from tightship.patterns._mail import FIELDS
from tightship.patterns._peer import Peer, Task
from tightship.patterns._settle import Ballot, Settle, alike, settle, settle_findings
from tightship.patterns._shared import branch_failure, error_data
from tightship.patterns._table import Answer, Table
from tightship.workflow.conditions import Expression
from tightship.workflow.readiness import Finding, StepCheck, declare
from tightship.workflow.steps import Children
from tightship.workflow.tree import Step, TimedStep, patterns
from tightship.workflow.units import Duration, Name, show_duration

CLAIMS_NOTHING = declare(
    "TS650",
    "error",
    "A peer can neither claim nor give results",
    why="What a peer does is in its output; without `claim` and `results` it never gets anything done.",
    fix="Declare `output: {claim?: 'list[str]', results?: list, release?: 'list[str]', messages?: list}` on the agent.",
)
SEES_NOTHING = declare(
    "TS651",
    "error",
    "A peer does not see the board",
    why="Without `open` and `mine` among its inputs it cannot know what there is to be claimed, nor what it has.",
    fix="Declare `input: {open: list, mine: list, inbox: list}` on the agent.",
)
SHORT_LEASE = declare(
    "TS652",
    "warning",
    "A claim runs out while its holder thinks",
    why="A claim is renewed by its holder's turns. One that may take longer than the lease loses what it works on.",
    fix="Make `lease` longer than the longest turn, or give the agent a shorter `within`.",
)
ONE_PEER = declare(
    "TS653",
    "advice",
    "There is nobody to share the board with",
    why="One agent with a list is a loop: simpler, and without claims that run out.",
    fix="Use `foreach`, or name a second agent.",
)
NO_OCCASION = declare(
    "TS654",
    "warning",
    "A shared board without a name of its own",
    why="Runs meet on a board by its name; every unnamed step of that scope would be the same board.",
    fix="Give the step a `name`, and let `key` name the occasion as well: a sub-problem that is done stays done.",
)
WIDE_TABLE = declare(
    "TS655",
    "error",
    "More peers than the limit of branches",
    why="The run would end at its limit every time.",
    fix="Let fewer agents work side by side, or raise limits.branches.",
)

MANY_MESSAGES = declare(
    "TS656",
    "warning",
    "Peers may send more messages than the limit allows",
    why="The limit holds for the whole request; whoever talks last is refused before the step's own bound counts.",
    fix="Lower `messages`, or raise limits.messages.",
)

NAMES: Final = ("open", "mine", "inbox", "mail", "done", "peers")
MAX_ITEMS: Final = 500


@patterns.register("peers")
class Peers(TimedStep):
    """`peers: {agents: [a, b], board: LIST, key: EXPRESSION, claim: EXPRESSION, lease: 60s, within: 10m}`.

    The board holds the items of a list. Each agent takes turns while there is something for it: it finds `open` (items
    that nobody has), `mine` (what it has claimed), `inbox` (messages since its last turn), `mail` (all that it has sent
    and got), `done` and `peers` (the others' names). In its output it says what it does: `claim: [KEY]`, `results:
    [{key, value}]`, `release: [KEY]`, `messages: [{to, kind: tell|ask|delegate|reply, about, re, text, data, value}]`.
    A claim is a lease that its holder's turns renew; a late result of a former holder is refused. It ends when all is
    done, or nobody can move. The output holds `results`, `elsewhere` (what other runs have done), `open`, `settled`.
    """

    record = True
    isolated = True
    order = "parallel"

    agents_: Children = Field(alias="agents")
    board: Expression
    as_: Name = "item"
    key: Expression | None = None
    claim: Expression | None = None
    scope: Literal["run", "workflow", "tenant"] = "run"
    lease: Duration = 60.0
    turns: int = Field(default=20, ge=1, le=1000)
    messages: int = Field(default=50, ge=0, le=1000)
    deadline: Duration | None = 600.0
    compare: Expression | None = None
    settle: Settle = Settle()
    then: Literal["escalate", "keep"] = "escalate"

    @property
    def limit(self) -> float:
        """The time for all of it (s)."""
        return 600.0 if self.deadline is None else self.deadline

    def children(self) -> Iterator[Step]:
        """The peers, and the judge."""
        yield from self.agents_
        yield from self.settle.steps()

    def coordinates(self) -> Iterator[Step]:
        """The judge; of the peers' turns, those that only claim and talk are coordination as well (`peers.turn`)."""
        return self.settle.steps()

    def labels(self) -> Iterator[str]:
        """Their names."""
        yield from (one.name or one.result or one.pattern for one in self.agents_)
        yield from ("judge" for _ in self.settle.steps())

    def once(self) -> Iterator[tuple[str, Step]]:
        """Nothing: any of them takes several turns."""
        return iter(())

    def introduces(self) -> Iterator[str]:
        """What each peer finds; an item in `key` and `claim`, an answer in `compare`."""
        yield from NAMES
        yield self.as_
        yield "answer"

    def uses_after(self) -> frozenset[str]:
        """These look at one item, or at one answer."""
        return frozenset({"key", "claim", "compare"})

    def gives(self, context: Any) -> Mapping[str, Any] | None:
        """What is done, by whom, what other runs have done, what is left, and what was settled."""
        listed = {"type": "array", "items": {"type": "object"}}
        fields = {"results": listed, "elsewhere": listed, "open": listed, "settled": {"type": "object"}}
        return {"type": "object", "properties": fields, "required": sorted(fields)}

    def describe(self) -> str:
        """In words."""
        whose = {"run": "", "workflow": " of all runs of this workflow", "tenant": " of all runs of the tenant"}
        names = ", ".join(f"**{one.part}**" for one in self.agents_)
        return (
            f"{names} share the work on `{self.board.source}` (a board{whose[self.scope]}), claims of "
            f"{show_duration(self.lease)}; different answers: {self.settle.describe()}"
        )

    def conduct(self) -> list[str]:
        """What happens when it goes wrong."""
        end = "escalate with what is done" if self.then == "escalate" else "go on with what is done"
        return [*super().conduct(), f"nobody can move, or not done after {show_duration(self.limit)}: {end}"]

    def findings(self, context: StepCheck) -> Iterable[Finding]:
        """What may be wrong with it."""
        if len(self.agents_) == 1:
            yield ONE_PEER.found(f"{self.agents_[0].part!r} is alone", context.mark("agents"))
        limits = context.workflow.limits.over(context.check.files.config.limits)
        if len(self.agents_) > limits.branches:
            said = f"{len(self.agents_)} peers, and the limit is {limits.branches} branches"
            yield WIDE_TABLE.found(said, context.mark("agents"))
        if self.messages > limits.messages:
            said = f"{self.messages} messages of each peer, and the limit is {limits.messages} for the whole request"
            yield MANY_MESSAGES.found(said, context.mark("messages"))
        if self.scope != "run" and self.name is None:
            yield NO_OCCASION.found(f"a board of the {self.scope} is called `peers`", context.mark("scope"))
        for step in self.agents_:
            yield from self._peer_findings(step, context)
        yield from settle_findings(self.settle, [one.part for one in self.agents_], self.agents_, context)

    def _peer_findings(self, step: Step, context: StepCheck) -> Iterator[Finding]:
        schema = step.gives(context.check)
        if schema is not None and not {"claim", "results"} <= set(schema.get("properties", {})):
            lacks = " and ".join(repr(name) for name in ("claim", "results") if name not in schema["properties"])
            yield CLAIMS_NOTHING.found(f"the output of {step.part!r} has no {lacks}", context.mark("agents"))
        for agent in context.agents_below(step):
            given = {name.removesuffix("?") for name in agent.input or {}}
            if step.pattern == "agent" and not given & {"open", "mine"}:
                yield SEES_NOTHING.found(f"{agent.agent!r} has neither `open` nor `mine`", context.mark("agents"))
            if agent.within is not None and agent.within > self.lease:
                said = f"{agent.agent!r} may take {show_duration(agent.within)}, a claim {show_duration(self.lease)}"
                yield SHORT_LEASE.found(said, context.mark("lease"))

    # --- doing it --------------------------------------------------------------------------------

    async def execute(self, frame: Frame) -> Json:
        """Let them work until all is done, or nobody can move; then settle what they differ on."""
        tasks = await self._tasks(frame)
        board = Board(self.name or "peers", frame.key, self.scope, self.lease)
        outer = dict(frame.scope.names)
        ended = await frame.observed("end")
        if ended is None:
            try:
                ended = await self._play(frame, board, tasks)
            except TightshipError:  # of what stops the run, the run's end takes care
                await frame.give_back()
                raise
            frame.scope.names.clear()  # what peers have bound is theirs
            frame.scope.names.update(outer)
        for name in dict.fromkeys(ended["held"].values()):  # what is left is free for other runs
            left = [Move("release", item) for item, by in ended["held"].items() if by == name]
            await frame.at(f"return/{name}").move(board, name, left)
        return await self._finish(frame, board, tasks, ended)

    async def _tasks(self, frame: Frame) -> dict[str, Task]:
        """The sub-problems by key."""
        listed = await frame.evaluate(self.board)
        if not isinstance(listed, list | tuple) or len(listed) > MAX_ITEMS:
            raise FormatMismatch(f"{self.board.source!r} is no list of at most {MAX_ITEMS} sub-problems")
        tasks = dict[str, Task]()
        for item in listed:
            names = {self.as_: item}
            key = item if self.key is None else await frame.evaluate(self.key, names)
            if isinstance(key, bool) or not isinstance(key, str | int) or not str(key).strip() or len(str(key)) > 200:
                raise FormatMismatch(f"{key!r} is no key of a sub-problem", fix="let `key` give a short text for each")
            if str(key) in tasks:
                raise FormatMismatch(f"two sub-problems have the key {key!r}", fix="let `key` tell them apart")
            claim = None if self.claim is None else str(await frame.evaluate(self.claim, names))
            tasks[str(key)] = Task(str(key), item, claim)
        return tasks

    async def _play(self, frame: Frame, board: Board, tasks: Mapping[str, Task]) -> Mapping[str, Any]:
        """All of them side by side; what came of it, kept so that nobody plays again after a crash."""
        names = tuple(one.part for one in self.agents_)
        table, late = Table(names), False
        results = list[BranchResult]()
        sat = [Peer(one, self, board, tasks, table) for one in self.agents_]

        async def play() -> None:
            results.extend(await frame.fork([Branch(peer.name, peer.work) for peer in sat], "keep"))

        if tasks:
            try:
                await frame.bounded(self.limit, self.part, play)
            except TimedOut:
                late, table.held = True, table.holders()
            except TightshipError:
                if table.circle is not None:  # one of them has found it, and the others were cut off
                    raise table.circle from None
                raise
        failed = [(one.part, one.error) for one in results if one.error is not None]
        if failed and len(failed) == len(names):
            raise branch_failure(self.part, [(one.part, one) for one in results], {})
        for name, error in failed:
            assert error is not None
            await frame.at(name).note("branch.failed", branch=name, **error_data(error))
        told: dict[str, Json] = {
            "late": late,
            "answers": [one.to_json() for one in table.answers.values()],
            "waits": list(table.waits()),
            "held": dict(table.held),
            "messages": table.messages,
            "refused": table.refused,
            "failed": {name: error_data(error) for name, error in failed},
        }
        return await frame.observe("end", lambda: told)

    async def _finish(
        self, frame: Frame, board: Board, tasks: Mapping[str, Task], ended: Mapping[str, Any]
    ) -> dict[str, Json]:
        """How every sub-problem stands: done here, done by another run, or left."""
        at = frame.at("end")
        look = await at.look(board, {key: task.claim for key, task in tasks.items()}) if tasks else {"spots": {}}
        answers = [Answer(**one) for one in ended["answers"]]
        own = {one.item: one for one in answers if one.counts}
        results, elsewhere, left = list[Json](), list[Json](), list[Json]()
        settled = await self._settled(frame, answers, own)
        for key, task in tasks.items():
            spot = look["spots"].get(key, {})
            if spot.get("state") == "done" and spot["run"] == frame.run.id:  # also what a crash has let be forgotten
                own.setdefault(key, Answer(key, spot["by"], spot["value"], counts=True))
            if key in own:
                value = settled.get(key, own[key]).value
                results.append({"key": key, "item": task.item, "by": own[key].by, "value": value})
            elif spot.get("state") == "done":
                elsewhere.append({"key": key, "by": spot["by"], "run": spot["run"], "value": spot["value"]})
            elif look.get("claimed", {}).get(key) == "done":
                elsewhere.append({"key": key, "by": "", "run": "", "value": None})
            else:
                left.append({"key": key, "item": task.item, "held_by": spot.get("by") or ended["held"].get(key, "")})
        await at.note(
            "peers.end",
            title=f"{len(results)} done, {len(elsewhere)} by other runs, {len(left)} left",
            messages=ended["messages"],
            refused=ended["refused"],
            left=[one["key"] for one in left],  # type: ignore[index, call-overload]
        )
        output: dict[str, Json] = {"results": results, "elsewhere": elsewhere, "open": left}
        output["settled"] = {key: one.value for key, one in settled.items()}
        if left and self.then == "escalate":
            raise self._stuck(output, ended)
        return output

    async def _settled(self, frame: Frame, answers: Sequence[Answer], own: Mapping[str, Answer]) -> dict[str, Answer]:
        """The sub-problems for which peers gave different answers, with the answer that counts."""
        found = dict[str, Answer]()
        for number, key in enumerate(sorted(own), 1):
            given = [own[key], *(one for one in answers if one.item == key and one.by != own[key].by)]
            if len({alike(one.value) for one in given}) < 2:
                continue
            at = frame.at(f"settle/{number}")
            ballots = [await self._ballot(at.at(one.by), one) for one in given]
            if len({alike(one.value) for one in ballots}) < 2:
                continue
            ending = await settle(at, ballots, self.settle, need=1)
            winner = next(one for one in given if one.by in ending.for_)
            found[key] = winner
        return found

    async def _ballot(self, frame: Frame, answer: Answer) -> Ballot:
        """What of an answer is compared."""
        reason = answer.value.get("reason") if isinstance(answer.value, Mapping) else None
        said = "" if reason is None else str(reason)
        if self.compare is None:
            return Ballot(answer.by, answer.value, said)
        try:
            value = await frame.evaluate(self.compare, {"answer": answer.value})
        except (DataMissing, FormatMismatch) as error:
            return Ballot(answer.by, absent=error.message)
        return Ballot(answer.by, value, said) if value is not None else Ballot(answer.by, absent="no answer")

    def _stuck(self, output: Mapping[str, Any], ended: Mapping[str, Any]) -> NobodyMoves | TimedOut:
        """Why it ends with something left, for a person."""
        held = [f"{one['key']} is held by {one['held_by']}" for one in output["open"] if one["held_by"]]
        free = [str(one["key"]) for one in output["open"] if not one["held_by"]]
        waits = [f"{one['by']} waits for {one['for']}" for one in ended["waits"]]
        failed: Mapping[str, Any] = ended.get("failed", {})  # runs of before have no such field
        lost = [f"{name} failed: {error['message']}" for name, error in failed.items()]
        free = [f"nobody takes {', '.join(free[:5])}"] if free else []
        why = "; ".join([*held[:5], *free, *waits[:5], *lost[:5]])
        made = TimedOut if ended["late"] else NobodyMoves
        late = f"not done after {show_duration(self.limit)}" if ended["late"] else "no peer can move any more"
        return made(
            f"{self.part}: {late}, and {len(output['open'])} of the board are left: {why}",
            needed="do what is left, or say who should",
            evidence={**output, "waits": ended["waits"], "failed": dict(failed)},
        )


__all__ = ["FIELDS", "MAX_ITEMS", "NAMES", "Peers"]

"""Several say independently what they think, and a declared rule says what counts (P9)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Any

from pydantic import Field

from tightship.core.errors import DataMissing, FormatMismatch
from tightship.core.ports import Json
from tightship.effects.frame import Branch, BranchResult, Frame
from tightship.patterns._settle import ANSWERS, Ballot, Settle, settle, settle_findings
from tightship.patterns._shared import identity, layer, written_with
from tightship.patterns.agent_step import AgentStep
from tightship.workflow.conditions import Expression
from tightship.workflow.conduct import Grounds
from tightship.workflow.names import schema_at
from tightship.workflow.readiness import Finding, StepCheck, declare
from tightship.workflow.steps import Children
from tightship.workflow.tree import Step, TimedStep, patterns
from tightship.workflow.units import Name, show_duration

ANSWER = "answer"
"""What `compare` calls a voter's output."""

FEW_VOTERS = declare(
    "TS523",
    "error",
    "A vote cannot come about as it is declared",
    why="One voter has nobody to differ from; more answers than voters never come.",
    fix="Name at least two voters, and ask for at most as many answers.",
)
ACTING_VOTER = declare(
    "TS524",
    "warning",
    "A voter acts before it is decided",
    why="What it writes stands whatever the vote comes to, and each voter would write it.",
    fix="Let voters read only, and act in a step after the vote.",
)
ONE_VOICE = declare(
    "TS525",
    "warning",
    "Two voters are the same",
    why="The same code, or the same model with the same instructions, errs alike; its second voice says nothing new.",
    fix="Give each voter another view: other data, other rules, another model, or a person.",
)
FEW_PEOPLE = declare(
    "TS526",
    "error",
    "A role has fewer people than the vote asks for",
    why="Each person has one voice, so the last question would never be answered.",
    fix="Name more people for the role in tightship.yaml, or ask for fewer.",
)
NO_END = declare(
    "TS527",
    "warning",
    "A vote has no time limit",
    why="It ends when the last voter has answered; one that never does holds up the run, a person for ever.",
    fix="Add `within`, for example `within: 30s`, or `within: 4h` with people.",
)
NOT_BLIND = declare(
    "TS528",
    "warning",
    "A voter writes what the other voters may read",
    why="Through a key of the shared context one voter can see what another thinks: the answers are not independent.",
    fix="Let it write the key before or after the vote.",
)
WIDE_VOTE = declare(
    "TS529",
    "error",
    "More voters than the limit of branches allows",
    why="The run would end at its limit every time.",
    fix="Raise limits.branches, or ask fewer.",
)


@patterns.register("vote")
class Vote(TimedStep):
    """`vote: {voters: [a, b, c], compare: EXPRESSION, reason: FIELD, settle: RULE, within: 10m, need: N, grounded: …}`.

    The voters answer side by side, and none sees what another one said. `compare` says what of a voter's output is its
    answer (the output is called `answer` in it), by default all of it; a null is no answer. Who fails or is late is
    absent, and so is, with `grounded`, whoever makes a claim that does not stand in what it cites. The output says how
    it ended: `value`, `for`, `against`, `absent`, `tally`, `why`, `reasons`, `rule`.
    """

    short = "voters"
    order = "parallel"
    isolated = True

    voters: Children
    compare: Expression | None = None
    reason: Name = "reason"
    settle: Settle = Settle()
    need: int | None = Field(default=None, ge=1)
    grounded: Grounds | None = None

    def __init__(self, *voters: Any, **fields: Any) -> None:
        """Voters as arguments, or as `voters=[…]`."""
        super().__init__(**({"voters": list(voters)} if voters else {}), **fields)

    @property
    def authors(self) -> list[str]:
        """What each voter is called: its part of the key, unique in the vote."""
        return [voter.part for voter in self.voters]

    def children(self) -> Iterator[Step]:
        """The voters, then the judge."""
        yield from self.voters
        yield from self.settle.steps()

    def coordinates(self) -> Iterator[Step]:
        """The judge: voters do the work, each for itself."""
        return self.settle.steps()

    def once(self) -> Iterator[tuple[str, Step]]:
        """Each voter under its number."""
        yield from ((f"{number}/{step.part}", step) for number, step in enumerate(self.voters, 1))
        yield from ((f"judge/{step.part}", step) for step in self.settle.steps())

    def labels(self) -> Iterator[str]:
        """What each is called: its own name, or its last output's."""
        return (one.name or one.result or one.pattern for one in self.children())

    def introduces(self) -> Iterator[str]:
        """A voter's output in `compare`, and the answers for the judge."""
        yield from (ANSWER, ANSWERS)

    def uses_after(self) -> frozenset[str]:
        """What is compared is looked up in what a voter gave."""
        return frozenset({"compare"})

    def gives(self, context: Any) -> Mapping[str, Any] | None:
        """How it ended, with the answer's schema where all voters give the same."""
        text, texts = {"type": "string"}, {"type": "array", "items": {"type": "string"}}
        named = {"type": "object", "additionalProperties": text}
        count = {"answer": {}, "by": texts, "counts": {"type": "number"}}
        tally = {"type": "array", "items": {"type": "object", "properties": count, "additionalProperties": False}}
        fields = {"decided": {"type": "boolean"}, "value": self._answer(context), "for": texts, "against": texts}
        fields |= {"absent": named, "why": text, "tally": tally, "reasons": named, "rule": text}
        return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}

    def _answer(self, context: Any) -> Mapping[str, Any]:
        given = [voter.gives(context) for voter in self.voters]
        path = tuple[str, ...]()
        if self.compare is not None:
            if (
                len(self.compare.refs) != 1
                or not self.compare.refs[0].exact
                or self.compare.source != str(".".join(self.compare.refs[0].path))
            ):
                return {}
            path = self.compare.refs[0].path[1:]
        found = [schema_at(one, path)[0] for one in given]
        first = found[0]
        return first if first is not None and all(one == first for one in found) else {}

    def describe(self) -> str:
        """In words."""
        about = f" on `{self.compare.source}`" if self.compare is not None else ""
        time = f", within {show_duration(self.deadline)}" if self.deadline is not None else ""
        need = f", at least {self.need} have to answer" if self.need is not None else ""
        if self.grounded is not None:
            need += f", each with {self.grounded.claims} that stand in their sources"
        return f"{', '.join(self.labels())} vote independently{about}{time}{need}; {self.settle.describe()}"

    def findings(self, context: StepCheck) -> Iterable[Finding]:
        """What may be wrong with it."""
        count = len(self.voters)
        if count < 2:
            yield FEW_VOTERS.found("there is one voter", context.mark("voters"))
        if self.need is not None and self.need > count:
            yield FEW_VOTERS.found(f"{count} vote, and {self.need} have to answer", context.mark("need"))
        limits = context.workflow.limits.over(context.check.files.config.limits)
        if count > limits.branches:
            yield WIDE_VOTE.found(f"{count} voters, and the limit is {limits.branches}", context.mark("voters"))
        for author, voter in zip(self.authors, self.voters, strict=True):
            for tool in sorted(written_with(voter, context)):
                yield ACTING_VOTER.found(f"{author!r} may call {tool}", voter.mark or context.mark("voters"))
        yield from self._people_findings(context)
        yield from self._independence_findings(context)
        yield from settle_findings(self.settle, self.authors, self.voters, context)

    def _people_findings(self, context: StepCheck) -> Iterable[Finding]:
        roles = [spec.human for voter in self.voters for spec in context.agents_below(voter) if spec.human is not None]
        if self.deadline is None:
            said = f"{roles[0]!r} may answer never" if roles else "nothing says when it ends"
            yield NO_END.found(said, context.mark(), severity="error" if roles else "warning")
        for role in dict.fromkeys(roles):
            people = context.check.files.config.roles.get(role, ())
            if "*" not in people and 0 < len(people) < roles.count(role):
                said = f"{roles.count(role)} voices of {role!r}, and it has {len(people)} people"
                yield FEW_PEOPLE.found(said, context.mark("voters"))

    def _independence_findings(self, context: StepCheck) -> Iterable[Finding]:
        seen = dict[tuple[str, ...], str]()
        keys = context.check.files.config.context
        for author, voter in zip(self.authors, self.voters, strict=True):
            agents = context.agents_below(voter)
            for spec in agents:
                for key, declared in keys.items():
                    if spec.agent in declared.writers:
                        yield NOT_BLIND.found(f"{author!r} writes {key}", voter.mark or context.mark("voters"))
            if len(agents) == 1 and agents[0].human is None:
                same = seen.setdefault(identity(context, agents[0].agent), author)
                if same != author:
                    yield ONE_VOICE.found(f"{author!r} is {same!r} again", voter.mark or context.mark("voters"))

    async def execute(self, frame: Frame) -> Json:
        """Ask all, count, settle."""
        frame.each_person_once()
        branches = [Branch(str(number), self._blindly(voter)) for number, voter in enumerate(self._grounded(), 1)]
        results = await frame.fork(branches, "keep")
        ballots, heard = list[Ballot](), dict[str, str]()
        for number, (author, result) in enumerate(zip(self.authors, results, strict=True), 1):
            ballot = await self._ballot(frame, number, author, result)
            twice = None
            if not ballot.absent:
                people = [name.strip().casefold() for name in frame.at(str(number)).persons()]
                twice = next((name for name in people if name in heard), None)
                heard |= dict.fromkeys(people, author)
            ballots.append(ballot if twice is None else Ballot(author, absent=f"{twice} had answered already"))
        return (await settle(frame, ballots, self.settle, self.authors, self.need or 0)).to_json()

    def _grounded(self) -> Iterator[Step]:
        """The voters; what the vote says about claims holds for each that says nothing of its own."""
        for voter in self.voters:
            own = not isinstance(voter, AgentStep) or voter.grounded is not None or self.grounded is None
            yield voter if own else voter.model_copy(update={"grounded": self.grounded})

    def _blindly(self, voter: Step) -> Callable[[Frame], Awaitable[Json]]:
        """A voter's work, of which nothing stays in the scope: neither the others nor a later round can look there."""

        async def work(frame: Frame) -> Json:
            with layer(frame):
                if self.deadline is None:
                    return await frame.step(voter)
                return await frame.bounded(self.deadline, voter.part, lambda: frame.step(voter))

        return work

    async def _ballot(self, frame: Frame, number: int, author: str, result: BranchResult) -> Ballot:
        if result.error is not None:
            return Ballot(author, absent=result.error.message)
        said = result.value
        if self.compare is None:
            answer = said
        else:
            try:
                answer = await frame.at(f"compare-{number}").evaluate(self.compare, {ANSWER: said})
            except (DataMissing, FormatMismatch) as error:
                return Ballot(author, absent=error.message)
        if answer is None:
            return Ballot(author, absent="abstained")
        reason = said.get(self.reason) if isinstance(said, Mapping) else None
        return Ballot(author, answer, "" if reason is None else str(reason))

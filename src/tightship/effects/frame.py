"""What a pattern may do while it runs: the engine's side of a node, as a protocol that `runtime` implements.

A pattern's `execute(frame)` must be deterministic given the frame's answers: no clock, no randomness, no task of
its own. Everything else goes through here, is recorded once, and is replayed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NoReturn, Protocol

from tightship.context.board import Move
from tightship.core.errors import LimitReached, TightshipError, WorkException
from tightship.core.ports import Json, UndoSpec
from tightship.ledger import Expected
from tightship.workflow.models import GroundedSpec

CONSTRAINTS: Final = "constraints"
"""The name in the scope that holds what every turn below has to keep: `ctx.constraints` of the agents inside."""

UNBOUND: Final = frozenset({"input", "feedback", CONSTRAINTS})
"""Names of the scope that no step has given."""


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What stays the same for a whole run. `handed` is what held where a run above it has started it (F4)."""

    id: str
    workflow: str
    tenant: str
    input: Mapping[str, Json]
    handed: tuple[str, ...] = ()

    @property
    def names(self) -> dict[str, Json]:
        """What is bound before the first step."""
        return {"input": dict(self.input)} | ({CONSTRAINTS: list(self.handed)} if self.handed else {})


@dataclass(frozen=True, slots=True)
class Branch:
    """One branch of a fork: its part of the key, and what it does with its own frame."""

    part: str
    work: Callable[[Frame], Awaitable[Json]]


@dataclass(frozen=True, slots=True)
class BranchResult:
    """How a branch ended: its value, or the exception, or neither when it was ended by a sibling's failure."""

    part: str
    value: Json = None
    error: WorkException | None = None
    ended: bool = False


@dataclass(frozen=True, slots=True)
class ActionCall:
    """A write on the outside world as a workflow step.

    `claim` is the business key that no other run may hold (F9); `undo` the compensation, or None when the
    workflow says that there is none; `expect` what must still stand of the shared context.
    """

    tool: str
    args: Mapping[str, Json]
    claim: str | None = None
    undo: UndoSpec | None = None
    expect: tuple[Expected, ...] = ()


@dataclass(frozen=True, slots=True)
class Learning:
    """How a class of decisions learns its threshold (review.learning says what is promised).

    Attributes:
        decision_class: `workflow/step`.
        error: the most of the released cases that may be wrong, as a share.
        confidence: the probability with which that holds.
        guarantee: `always` (with that probability, at every moment), or `mean` (in the mean).
        audit: the share of cases that a person sees whatever the confidence is, once a threshold was learned.
        sample: the same while it learns.
    """

    decision_class: str
    error: float
    confidence: float = 0.95
    audit: float = 0.05
    sample: float = 1.0
    guarantee: str = "always"

    @property
    def promised(self) -> float:
        """The probability with which the bound holds at any moment; 0 where it holds in the mean."""
        return 0.0 if self.guarantee == "mean" else self.confidence


@dataclass(frozen=True, slots=True)
class Governed:
    """The threshold that a case is held against, decided once.

    Attributes:
        confidence: of the case.
        threshold: the value.
        state: `learning` (the safe value), `learned`, or `frozen` by a person.
        version: the position of the entry that set it, 0 for none.
        drawn: a person sees the case whatever its confidence is.
    """

    confidence: float
    threshold: float
    state: str
    version: int
    drawn: bool

    def teaches(self, decision_class: str) -> dict[str, Json]:
        """What the item of this case says, so that its decision can be learned from."""
        held = {"held": self.threshold} if self.state != "learning" else {}
        return {"class": decision_class, "confidence": self.confidence, "drawn": self.drawn, **held}


@dataclass(frozen=True, slots=True)
class Question:
    """Something that a person has to decide before the run goes on.

    `package` is the escalation package (review.Package as JSON). `within` is in seconds; `otherwise` is what counts
    when nobody answers in time.
    """

    type: Literal["review", "budget", "question"]
    title: str
    role: str
    package: Mapping[str, Json]
    within: float | None = None
    otherwise: Literal["escalate", "reject", "fail"] = "escalate"
    remind: float | None = None
    """Seconds before its time is over at which its reviewers are reminded."""
    teaches: Mapping[str, Json] | None = None
    """What the answer says something about: class, confidence, drawn (inbox.opened holds it in clear)."""
    made_by: Sequence[str] = ()
    """People who made what is asked about, and so may not decide it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A person's decision. `value` is the edited or given value; `by` the accountable person."""

    decision: Literal["approve", "reject", "edit", "answer", "expired"]
    by: str = ""
    value: Json = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Agreement:
    """What agents have decided on, compared with one snapshot of the shared context.

    Attributes:
        snapshot: the values at one position, by key (context.Value as JSON).
        changed: keys whose value is another one now, or was too old.
        expect: what must still stand when the action is admitted.
    """

    snapshot: Mapping[str, Mapping[str, Json]]
    changed: Sequence[str]
    expect: tuple[Expected, ...]


@dataclass(frozen=True, slots=True)
class Board:
    """A board of sub-problems that peers claim.

    Attributes:
        name: what it is called; boards of one name and scope are one board. step: the key of the step that it is for.
        scope: whose it is. lease: for how long a claim holds (s of store time).
    """

    name: str
    step: str
    scope: Literal["run", "workflow", "tenant"]
    lease: float


@dataclass(slots=True)
class Scope:
    """The names that conditions and mappings may use: `input`, every bound step, ambient names.

    A branch writes to its own layer; the join merges the layers in the order of the branches.
    """

    names: dict[str, Json] = field(default_factory=dict[str, Json])

    def layer(self) -> Scope:
        """A copy for a branch."""
        return Scope(dict(self.names))


class Frame(Protocol):
    """One node of one run while it is interpreted."""

    @property
    def key(self) -> str:
        """The node's path."""
        ...

    @property
    def run(self) -> RunFacts:
        """What stays the same for the whole run."""
        ...

    @property
    def scope(self) -> Scope:
        """The names that are bound here."""
        ...

    async def step(self, step: Any) -> Json:
        """Interpret a child step (workflow.tree.Step) under `key/step.part`, with its declared behaviours on
        exceptions (`on:`), its time limit (`within:`), and bind its output to its name. Returns the output."""
        ...

    async def turn(self, agent: str, give: Mapping[str, Json] | None = None) -> Json:
        """The agent's next turn under this key: its output, recorded once.

        Args:
            agent: a declared agent's name.
            give: its inputs by name; without it each declared input is looked up in the scope by its name.

        Raises:
            WorkException: the agent raised one, hung, or its output did not fit (after bounded repair).
        """
        ...

    async def act(self, call: ActionCall) -> Json:
        """Perform a declared action through the door; its undo is recorded with it.

        Raises:
            DuplicateClaim: another run holds the claim.
            ContextChanged: something of `expect` no longer stands; nothing was sent.
            OutcomeUnknown: whether it was done cannot be found out.
            WorkException: what the tool raised.
        """
        ...

    async def agree(self, agents: Sequence[str], on: Sequence[str], inside: Sequence[str]) -> Agreement:
        """Compare what these agents have read with one snapshot, which is young enough and on which nobody acts.

        Args:
            agents: whose decisions count. on: keys of the shared context, or patterns of what they have read.
            inside: the keys of the steps in which they decided.

        Raises:
            StaleContext: a value is too old, and there is no younger one.
        """
        ...

    async def based(self, agents: Sequence[str], on: Sequence[str], agreed: Agreement) -> tuple[Expected, ...]:
        """What must still stand after these agents have decided again below this node, on the snapshot that was
        agreed: all of it, and what else they have read."""
        ...

    def pin(self, agreed: Agreement) -> None:
        """Below this node the shared context is read as the snapshot has it."""
        ...

    async def fork(self, branches: Sequence[Branch], on_failure: Literal["end", "keep"]) -> list[BranchResult]:
        """Run branches side by side and wait for all of them.

        `end`: the first failure ends the others (decided once, recorded); `keep`: all run to their own end.
        Results come in the order of `branches`. The bound names of finished branches are merged in that order.
        """
        ...

    async def bounded(self, seconds: float, what: str, work: Callable[[], Awaitable[Json]]) -> Json:
        """Do work below this node with a time limit. Whether it or the limit was first is decided once; questions to
        people that it leaves behind are closed.

        Args:
            seconds: how long, in store time from when it was first begun. what: what it is called in the error.

        Raises:
            TimedOut: the limit was first.
        """
        ...

    def each_person_once(self) -> None:
        """Below this node a person may answer in one branch only: whoever has decided something in one is refused in
        the others."""
        ...

    def ground(self, grounds: GroundedSpec) -> None:
        """Below this node an agent's answer is none unless what it claims stands in what it cites."""
        ...

    def persons(self) -> Sequence[str]:
        """Who has answered something at or below this node, in the order of asking."""
        ...

    async def evaluate(self, condition: Any, names: Mapping[str, Json] | None = None) -> Json:
        """The value of a workflow.conditions.Condition over the scope; ambient names in it (`threshold`, `now()`)
        are decided once and recorded."""
        ...

    async def given(self, condition: Any) -> Mapping[str, Json]:
        """The values of a condition's ambient names, decided once and recorded. A `threshold` that would release an
        uncalibrated confidence is one that nothing reaches; `uncalibrated` names it then."""
        ...

    async def govern(self, condition: Any, learning: Learning) -> Governed | None:
        """The threshold of a class of decisions for this case, and whether it is drawn; decided once and recorded.

        None when the condition does not look at exactly one calibrated confidence: then nothing is released.
        """
        ...

    async def learn(self, learning: Learning) -> None:
        """Let a class take in what people have decided; another threshold is an entry."""
        ...

    def makers(self, value: Json) -> Sequence[str]:
        """The people who gave exactly this value, or edited it into what it is: they may not check it."""
        ...

    def keep_apart(self, part: str, people: Sequence[str]) -> None:
        """What is asked of people in a step of this node is decided by others than these."""
        ...

    async def decide(self, name: str, value: Callable[[], Json]) -> Json:
        """A value computed once, recorded under `key/name`, and replayed."""
        ...

    async def keep(self, name: str, value: Callable[[], Json]) -> Json:
        """As `decide`, for what may be personal: the value is sealed."""
        ...

    async def kept(self, name: str) -> Any:
        """What was kept under this name at this node, or None: also of a branch that is not walked again."""
        ...

    async def observe(self, name: str, value: Callable[[], Json]) -> Json:
        """What others beside this node have come to at this moment: a race, decided once, recorded sealed."""
        ...

    async def observed(self, name: str) -> Any:
        """What was observed under this name at this node, or None."""
        ...

    async def after(self, name: str, until: float = 0.0) -> None:
        """In a branch: wait until one beside it has announced this name, or until that store time (s; 0 for no limit).
        The run may park meanwhile."""
        ...

    def announce(self, name: str) -> None:
        """In a branch: let those beside it go on that wait for this name, now or later."""
        ...

    async def look(self, board: Board, items: Mapping[str, str | None]) -> Mapping[str, Any]:
        """How sub-problems stand, all at one position.

        Args:
            items: the sub-problems, each with the business key that no other run may hold or have done, or None.

        Returns: `now` (store time, s), `spots` (context.board.Spot as JSON, of those that are not open), and `claimed`
        (those whose business key another run holds or has done: `held` or `done`).
        """
        ...

    async def move(self, board: Board, by: str, moves: Sequence[Move]) -> Sequence[Mapping[str, Any]]:
        """A peer's moves on a board, appended together; what came of each (context.board.Verdict as JSON)."""
        ...

    async def give_back(self) -> None:
        """Open again what peers below this node hold on boards that other runs share, whatever has stopped them."""
        ...

    async def ask(self, question: Question) -> Answer:
        """Put an item into the inbox and wait; the run parks when nothing else of it can go on."""
        ...

    async def pause(self, seconds: float) -> None:
        """Wait: short in memory, long parked. Decided once."""
        ...

    async def child(self, workflow: str, give: Mapping[str, Json]) -> Json:
        """Run another workflow as a child run (id = hash(run, key)) and wait for its output.

        Raises:
            WorkException: the child did not complete; it is in the exception's evidence.
        """
        ...

    async def all_or_nothing(self, retry: Any) -> TightshipError | None:
        """Record that what is done below this node is undone when it is cut off from around.

        Args:
            retry: how an undo is tried again (workflow.tree.UndoRetry).

        Returns: the failure for which it was turned around before: then it is not walked forward again.
        """
        ...

    async def take_back(self, error: TightshipError, retry: Any) -> Sequence[Mapping[str, Json]]:
        """Record that this node has failed, and undo in reverse order what was done below it.

        Args:
            error: why. retry: how an undo is tried again (workflow.tree.UndoRetry).

        Returns: what could not be undone; it is in the inbox as well.
        """
        ...

    async def note(self, type: str, **fields: Json) -> None:
        """Record something worth seeing (a failed checkpoint, a round of maker and checker), once.

        `again=True` says that work follows which was done before: it counts against the run's retries.

        Raises:
            LimitReached: that is one retry too many.
        """
        ...

    async def hand_over(self, source: str, target: str, **told: Json) -> None:
        """Control passes from one agent to another: counted for the whole request, recorded once.

        Args:
            source, target: the agents' names. told: what is recorded with it.

        Raises:
            LimitReached: that is one handoff too many, or the two only pass the work back and forth.
        """
        ...

    async def send(self, source: str, messages: int, **told: Json) -> int:
        """A peer's turn says so many messages: how many of them go out, counted for the whole request.

        Args:
            source: the peer's name. messages: how many it wants to send. told: what else the turn does (`claims`,
                `results`, `releases`), recorded with it.
        """
        ...

    def bind(self, name: str, value: Json) -> None:
        """Give a name a value in the scope."""
        ...

    def at(self, part: str) -> Frame:
        """The frame of a sub-path, in the same task and scope."""
        ...

    def round(self, number: int) -> Frame:
        """The frame of one of several rounds, as `at`; what is said in them is looked at together."""
        ...

    async def refuse_round(self, by: str, what: str, given: Json, gave: Json = None) -> None:
        """A round of a step, which this node is, is about to be carried out.

        Args:
            by: whose the decision is, by whose limits it counts. what: what it is, as `by` is said to have done it.
            given: what is begun. gave: what comes of it; None where nobody knows yet: then as of the round before.
                Neither holds ids that every round makes anew.

        Raises:
            NearRepeat: nearly that was begun, and nearly the same came of it, as often as it may.
        """
        ...

    async def keep_round(self, by: str, given: Json, gave: Json) -> None:
        """Record what this round was, once, for later rounds of the step to be compared with."""
        ...

    def escalate(self, exception: WorkException | LimitReached) -> NoReturn:
        """End the run as escalated with this exception, whatever the surrounding behaviours say."""
        ...

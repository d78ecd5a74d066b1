"""What the runtime asks of the outside, as small protocols: tools, people, secrets, refreshers, projections."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

Json = Any
EffectClass = Literal["read", "write", "model", "undo", "context"]
WORKFLOW: Final = "workflow"
"""The identity under which a workflow's own actions are done: no agent chose them, the workflow's text bounds them."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a call cost: nano-dollars and tokens."""

    usd: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cached_in: int = 0

    @property
    def tokens(self) -> int:
        """Tokens in and out."""
        return self.tokens_in + self.tokens_out

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.usd + other.usd,
            self.tokens_in + other.tokens_in,
            self.tokens_out + other.tokens_out,
            self.cached_in + other.cached_in,
        )


FREE = Usage()


@dataclass(frozen=True, slots=True)
class UndoSpec:
    """How an action is compensated: another tool and the CEL expressions of its arguments.

    The names `args` and `result` are the action's own arguments and outcome.
    """

    tool: str
    args: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool as its contract declares it.

    Attributes:
        name: `service.operation`.
        effect: `read` changes nothing outside; `write` does.
        description: what it does, for people and models.
        input_schema: JSON Schema of the arguments object.
        output_schema: JSON Schema of the value, or None when the contract names none.
        idempotency: `key` (the sink honours an idempotency key), `etag` (conditional request), `none`.
        price: the highest cost of one call; reserved before, settled after.
        can_lookup: the sink can be asked whether a write was done.
        undo: the compensation that the contract declares, if any.
        timeout: seconds until a call counts as unanswered.
        cache_seconds: how long a read may be answered from cache; 0 never.
        hosts: the hosts it talks to; anything else is refused.
        requests_per_second: the rate that the other side allows, of all workers together; None without one.
        hedge: seconds after which a read that was not answered is asked a second time; 0 never.
    """

    name: str
    effect: Literal["read", "write", "model"] = "read"
    description: str = ""
    input_schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "object"})
    output_schema: Mapping[str, Any] | None = None
    idempotency: Literal["key", "etag", "none"] = "none"
    price: Usage = FREE
    can_lookup: bool = False
    undo: UndoSpec | None = None
    timeout: float = 30.0
    cache_seconds: float = 0.0
    hosts: frozenset[str] = frozenset()
    requests_per_second: float | None = None
    hedge: float = 0.0


@dataclass(frozen=True, slots=True)
class Request:
    """One call, as the door hands it to a tool.

    Attributes:
        args: the arguments, which fit the tool's schema.
        key: unique to this effect in its run, and the same when it is retried: the idempotency key.
        run: the run that calls.
        agent: who acts: an agent's name, or `workflow` for an action of the workflow itself.
        not_after: store time (s): the tool must not begin to send after it.
        attempt: which attempt this is, from 1 on.
    """

    args: Mapping[str, Json]
    key: str
    run: str
    agent: str
    not_after: float
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back.

    Attributes:
        value: the outcome, as JSON.
        usage: what it cost, in nano-dollars and tokens; nothing by default.
        meta: JSON facts worth keeping (etag, as_of, model, finish_reason, …).
    """

    value: Json
    usage: Usage = FREE
    meta: Mapping[str, Json] = field(default_factory=dict[str, Json])


class Tool(Protocol):
    """Something outside. It raises WorkException subclasses: Unavailable (not done, or a read), OutcomeUnknown
    (a write whose answer was lost), WriteFailed (refused), DataMissing, FormatMismatch."""

    @property
    def spec(self) -> ToolSpec:
        """The contract."""
        ...

    async def perform(self, request: Request) -> Reply:
        """One attempt. No retries inside: the door counts, charges and records them."""
        ...

    async def lookup(self, request: Request) -> Reply | None:
        """Whether a write with this request's key was done: its reply, or None when it was not."""
        ...


class Secrets(Protocol):
    """Where secrets come from; they are read at the moment of use and never recorded."""

    def get(self, name: str) -> str:
        """The secret.

        Raises:
            UnknownName: there is none of that name.
        """
        ...


@dataclass(slots=True)
class Delta:
    """A change of one row of a projection: columns to set, numbers to add."""

    key: tuple[Any, ...]
    set: dict[str, Any] = field(default_factory=dict[str, Any])
    add: dict[str, int] = field(default_factory=dict[str, int])


class EntryView(Protocol):
    """An appended entry, as a projection or a reader sees it."""

    @property
    def n(self) -> int:
        """Its position in its log."""
        ...

    @property
    def at(self) -> float:
        """Store time, seconds."""
        ...

    @property
    def log(self) -> str:
        """The log's name."""
        ...

    @property
    def run(self) -> str:
        """The run's id, or empty."""
        ...

    @property
    def kind(self) -> str:
        """One of core.kinds."""
        ...

    @property
    def key(self) -> str:
        """The key within the run."""
        ...

    @property
    def epoch(self) -> int:
        """The owner's epoch, 0 for signals."""
        ...

    @property
    def body(self) -> Mapping[str, Any]:
        """The kind's fields."""
        ...


class Projection(Protocol):
    """A table that is a reading of the log: folded in the append's transaction, rebuilt from the log at will.

    The table's columns stand in the ledger's migrations; `fold` must depend on the entry alone.
    """

    table: str
    key_columns: Sequence[str]
    kinds: frozenset[str]

    def fold(self, entry: EntryView) -> Iterable[Delta]:
        """The changes that this entry makes."""
        ...

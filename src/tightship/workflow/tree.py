"""A workflow as data: a small tree of steps with agents at the leaves.

A step class is a pattern: it says how it is written in YAML (its fields), what `check` should look at, and what it
does (`execute`). Pattern classes register themselves; the loader and the Python builder make the same objects.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import Annotated, Any, ClassVar, Final, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, ValidationError, model_validator

from tightship.core.errors import UnknownName
from tightship.core.ports import Json
from tightship.workflow._explain import load_errors
from tightship.workflow.conditions import Expression, Values
from tightship.workflow.source import did_you_mean, plain
from tightship.workflow.spec import KEYWORD_FIELDS
from tightship.workflow.units import Duration, Name, show_duration

ThenAction = Literal["escalate", "ask", "fail", "continue"]

KINDS: Final[Mapping[str, str]] = {
    "unavailable": "a system does not answer (E1)",
    "data_missing": "data that the work needs is not there (E2)",
    "rule_conflict": "two business rules contradict each other (E3)",
    "out_of_scope": "this is not what the agents were made for (E4)",
    "low_confidence": "the confidence is below the threshold (E5)",
    "format_mismatch": "a record has another format than expected (E6)",
    "unforeseen": "anything that nobody declared a behaviour for (E7)",
    "duplicate": "another run already does this piece of work",
}
"""The kinds of exceptions that `on:` knows, as `core.errors` raises them."""

_NUMBERED: Final = {f"e{number}": kind for number, kind in enumerate(KINDS, 1) if number <= 7}
MAX_RETRIES: Final = 100

reading: ContextVar[bool] = ContextVar("tightship_reading_steps", default=False)
"""Set while `steps.parse_step` reads, which reports what is wrong with the places in the file."""


class Behaviour(BaseModel):
    """What happens on one kind of exception (E1 to E7).

    In this order: try the step again `retry` times, each `after` seconds later (longer waits park the run); let the
    agent `use` do it instead; then `then`. `continue` goes on with `give` as the step's output. In YAML the bare word
    (`data_missing: ask`) means `then`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    retry: int = Field(default=0, ge=0, le=MAX_RETRIES)
    after: Duration = 0.0
    use: Name | None = None
    give: Annotated[Any, BeforeValidator(plain)] = None
    then: ThenAction = "escalate"

    @model_validator(mode="before")
    @classmethod
    def _bare_word(cls, value: Any) -> Any:
        return {"then": str(value)} if isinstance(value, str) else value


class UndoRetry(BaseModel):
    """How an undo is tried again whose system does not answer: `times` more, the first `after` seconds later, each
    following pause twice as long."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    times: int = Field(default=2, ge=0, le=20)
    after: Duration = 1.0

    def pause(self, attempt: int) -> float:
        """Seconds before this attempt (2 is the first retry), at most five minutes."""
        return min(300.0, self.after * 2.0 ** (attempt - 2))


def _known_kinds(value: Any) -> Any:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ValueError("write a mapping of kinds to behaviours, for example {unavailable: {retry: 3, after: 10s}}")
    found = dict[str, Any]()
    for written, behaviour in value.items():
        kind = _NUMBERED.get(str(written).lower(), str(written))
        if kind not in KINDS:
            raise ValueError(f"{written!r} is no kind of exception; {did_you_mean(str(written), KINDS)}")
        if kind in found:
            raise ValueError(f"the kind {kind!r} stands there twice")
        found[kind] = behaviour
    return found


Behaviours = Annotated[Mapping[str, Behaviour], BeforeValidator(_known_kinds)]
"""Behaviours by kind of exception; `E1` … `E7` are understood too."""


class Step(BaseModel):
    """A node of the tree.

    `part` is its piece of the key, unique among its siblings, assigned when the tree is built. `name` is what its
    output is called in conditions; agents' steps are called like the agent. A field whose name is a Python keyword has
    a trailing underscore in Python and none in YAML (`with_`, `if_`).
    """

    model_config = KEYWORD_FIELDS

    pattern: ClassVar[str] = ""
    short: ClassVar[str | None] = None
    """The field that a bare value fills: `checkpoint: CONDITION` is `checkpoint: {that: CONDITION}`."""
    record: ClassVar[bool] = False
    """Whether the finished node's output is recorded, so that resuming does not walk its inside again."""
    order: ClassVar[Literal["sequence", "parallel", "choice"]] = "sequence"
    """How the children relate: each sees what earlier ones bound; none sees its siblings; only one of them runs."""
    isolated: ClassVar[bool] = False
    """Whether the names that its children bind mean nothing after it (a loop)."""
    written: ClassVar[Mapping[str, str]] = {}
    """Fields that stand in files under another name: the field, and how it is written."""
    hands_on: ClassVar[bool] = True
    """Whether its output is something that the next step may take as its input."""
    named: ClassVar[frozenset[str]] = frozenset()
    """Parts of its key below which a name stands that the run has given (a planned task's id)."""

    name: Name | None = None
    on: Behaviours = {}
    within: Duration | None = None

    def __init__(self, **fields: Any) -> None:
        """A step with these fields; `with_`, `if_`, … where YAML has `with`, `if`.

        Raises:
            LoadError: a field is wrong.
        """
        try:
            super().__init__(**fields)
        except ValidationError as error:
            if reading.get():
                raise
            raise load_errors(error, fields, type(self), f"the step {self.pattern!r}", None)[0] from None

    _part: str = PrivateAttr(default="")
    _mark: Any = PrivateAttr(default=None)
    _raw: Any = PrivateAttr(default=None)
    _before: tuple[Step, ...] = PrivateAttr(default=())

    @classmethod
    def spell(cls, value: Any) -> Mapping[str, Any]:
        """The fields that the value after the pattern's word stands for.

        Raises:
            ValueError: the pattern has no such short form.
        """
        if value is None:
            return {}
        if isinstance(value, Mapping):
            return value
        if cls.short is None:
            raise ValueError(f"{cls.pattern} takes fields; write {cls.pattern}: {{{', '.join(sorted(cls.words()))}}}")
        return {cls.short: value}

    @classmethod
    def words(cls) -> set[str]:
        """The names of its fields in YAML."""
        return {field.alias or name for name, field in cls.model_fields.items()}

    def to_data(self) -> dict[str, Json]:
        """Itself in canonical form, `{pattern: fields}`, from which `steps.parse_step` makes an equal step."""
        return {self.pattern: self.model_dump(mode="json", by_alias=True)}

    @property
    def part(self) -> str:
        """This step's piece of the key."""
        return self._part or self.name or self.pattern

    @property
    def mark(self) -> Any:
        """Where it stands in its file (workflow.source.Mark), or None for steps built in Python."""
        return self._mark

    @property
    def raw(self) -> Any:
        """The YAML that it was read from, with marks, or None."""
        return self._raw

    @property
    def before(self) -> tuple[Step, ...]:
        """The steps before it in its sequence."""
        return self._before

    @property
    def result(self) -> str | None:
        """The name under which its main output is found, or None."""
        return self.name

    def children(self) -> Iterator[Step]:
        """The steps directly inside, in order."""
        return iter(())

    def once(self) -> Iterator[tuple[str, Step]]:
        """The steps directly inside that run at most once, each with its place below this one's key.

        None for a pattern whose inside may run several times: it is one piece of work to whoever takes it over.
        """
        return ((child.part, child) for child in self.children())

    def coordinates(self) -> Iterator[Step]:
        """The steps directly inside that only serve the others: they plan, check, judge or put together (O5).

        Whoever did the work alone would not need them: their turns and calls are coordination.
        """
        return iter(())

    def labels(self) -> Iterator[str]:
        """A wish for each child's part, in order; without one its name or pattern is taken."""
        return iter(())

    def agents(self) -> Iterator[str]:
        """The agents that this step itself names (not its children's), those of `on: … use:` included."""
        for behaviour in self.on.values():
            if behaviour.use is not None:
                yield behaviour.use

    def tools(self) -> Iterator[str]:
        """The tools that this step itself names."""
        return iter(())

    def workflows(self) -> Iterator[str]:
        """The workflows that this step itself starts."""
        return iter(())

    def roles(self) -> Iterator[str]:
        """The roles that this step itself names."""
        return iter(())

    def binds(self) -> Iterator[str]:
        """The names that this step itself binds in the scope when it is done."""
        return iter(() if self.name is None else (self.name,))

    def introduces(self) -> Iterator[str]:
        """The names that only its children see."""
        return iter(())

    @property
    def sure(self) -> bool:
        """Whether what its children bind is surely bound when it is done."""
        return True

    def gives(self, context: Any) -> Mapping[str, Any] | None:
        """JSON Schema of its output, as far as known. `context` is a workflow.readiness.Check."""
        return None

    def expressions(self) -> Iterator[tuple[str, Expression | Values]]:
        """Its own expressions, with their field's name in YAML (not its children's)."""
        for name, field in type(self).model_fields.items():
            for found in _expressions(getattr(self, name)):
                yield field.alias or name, found

    def uses_after(self) -> frozenset[str]:
        """The fields whose expressions are evaluated after the children ran, and so see what they bound."""
        return frozenset()

    def walk(self) -> Iterator[Step]:
        """This step and everything below it, in order."""
        yield self
        for child in self.children():
            yield from child.walk()

    def describe(self) -> str:
        """What it does, in one line of Markdown for the blueprint."""
        return self.pattern

    def conduct(self) -> list[str]:
        """What happens on exceptions and when time runs out, in plain words."""
        lines = list[str]()
        for kind, behaviour in self.on.items():
            lines.append(f"{kind}: {describe_behaviour(behaviour)}")
        if self.within is not None:
            lines.append(f"ends after {show_duration(self.within)}")
        return lines

    def findings(self, context: Any) -> Iterable[Any]:
        """What the readiness check has to say about this step (workflow.readiness.Finding)."""
        return ()

    async def execute(self, frame: Any) -> Any:
        """Do it. `frame` is an effects.Frame; the return value is the step's output."""
        raise TypeError(f"the pattern {self.pattern!r} does not say what it does")


class TimedStep(Step):
    """A step that has its own end for when its time is over: nothing around it is bounded by its `within`."""

    written: ClassVar[Mapping[str, str]] = {"deadline": "within"}

    deadline: Duration | None = None
    """What `within` says."""

    @model_validator(mode="before")
    @classmethod
    def _within_is_the_deadline(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("within") is not None:
            rest = {name: value for name, value in data.items() if name != "within"}
            return {**rest, "deadline": data["within"]}
        return data


def describe_behaviour(behaviour: Behaviour) -> str:
    """A behaviour in plain words: `3 retries 10s apart, then the agent backup, then escalate`."""
    parts = list[str]()
    if behaviour.retry:
        every = f" {show_duration(behaviour.after)} apart" if behaviour.after else ""
        parts.append(f"{behaviour.retry} {'retry' if behaviour.retry == 1 else 'retries'}{every}")
    if behaviour.use:
        parts.append(f"the agent {behaviour.use}")
    words = {"escalate": "escalate", "ask": "ask a person", "fail": "fail", "continue": "go on without it"}
    return ", then ".join([*parts, words[behaviour.then]])


def _expressions(value: Any) -> Iterator[Expression | Values]:
    if isinstance(value, Expression | Values):
        yield value
    elif isinstance(value, Step):
        return
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _expressions(getattr(value, name))
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _expressions(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _expressions(inner)


_PART = re.compile(r"[^A-Za-z0-9_.-]+")


def settle(step: Step) -> None:
    """Give every step below its part of the key and its place in its sequence."""
    taken, earlier = set[str](), list[Step]()
    labels = list(step.labels())
    for index, child in enumerate(step.children()):
        wish = labels[index] if index < len(labels) else child.name or child.pattern
        wish = _PART.sub("-", wish) or child.pattern
        part, count = wish, 1
        while part in taken:
            count += 1
            part = f"{wish}-{count}"
        taken.add(part)
        child._part = part
        child._before = tuple(earlier) if step.order == "sequence" else ()
        earlier.append(child)
        settle(child)


AnyStep = TypeVar("AnyStep", bound=Step)


class Patterns:
    """The registry of patterns, by the word that names them in YAML."""

    def __init__(self) -> None:
        self._classes: dict[str, type[Step]] = {}

    def register(self, word: str) -> Callable[[type[AnyStep]], type[AnyStep]]:
        """Class decorator: this step is written as `word:` in YAML."""

        def add(step: type[AnyStep]) -> type[AnyStep]:
            step.pattern = word
            self._classes[word] = step
            return step

        return add

    def find(self, word: str) -> type[Step] | None:
        """The class, or None."""
        return self._classes.get(word)

    def get(self, word: str) -> type[Step]:
        """The class.

        Raises:
            UnknownName: no such pattern.
        """
        found = self.find(word)
        if found is None:
            raise UnknownName(f"there is no pattern {word!r}", fix=f"use one of: {', '.join(self.words())}")
        return found

    def words(self) -> list[str]:
        """All registered words, sorted."""
        return sorted(self._classes)


patterns = Patterns()

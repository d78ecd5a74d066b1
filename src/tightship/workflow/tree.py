"""A workflow as data: a small tree of steps with agents at the leaves.

A step class is a pattern: it says how it is written in YAML (its fields), what `check` should look at, and what it
does (`execute`). Pattern classes register themselves; the loader and the Python builder make the same objects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, PrivateAttr

from tightship.core.errors import UnknownName

ThenAction = Literal["escalate", "ask", "fail", "continue"]


class Behaviour(BaseModel):
    """What happens on one kind of exception (E1 to E7).

    In this order: try the step again `retry` times, each `after` seconds later (longer waits park the run); let the
    agent `use` do it instead; then `then`. `continue` goes on with `give` as the step's output.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    retry: int = 0
    after: float = 0.0
    use: str | None = None
    give: Any = None
    then: ThenAction = "escalate"


class Step(BaseModel):
    """A node of the tree.

    `part` is its piece of the key, unique among its siblings, assigned when the tree is built. `name` is what its
    output is called in conditions; agents' steps are called like the agent.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    pattern: ClassVar[str] = ""
    record: ClassVar[bool] = False
    """Whether the finished node's output is recorded, so that resuming does not walk its inside again."""

    name: str | None = None
    on: Mapping[str, Behaviour] = {}
    within: float | None = None

    _part: str = PrivateAttr(default="")
    _mark: Any = PrivateAttr(default=None)

    @property
    def part(self) -> str:
        """This step's piece of the key."""
        return self._part or self.name or self.pattern

    @property
    def mark(self) -> Any:
        """Where it stands in its file (workflow.source.Mark), or None for steps built in Python."""
        return self._mark

    def children(self) -> Iterator[Step]:
        """The steps directly inside, in order."""
        return iter(())

    def agents(self) -> Iterator[str]:
        """The agents that this step itself names (not its children's)."""
        return iter(())

    def tools(self) -> Iterator[str]:
        """The tools that this step itself names."""
        return iter(())

    def binds(self) -> Iterator[str]:
        """The names that this step itself binds in the scope."""
        return iter(() if self.name is None else (self.name,))

    def walk(self) -> Iterator[Step]:
        """This step and everything below it, in order."""
        yield self
        for child in self.children():
            yield from child.walk()

    def findings(self, context: Any) -> Iterable[Any]:
        """What the readiness check has to say about this step (workflow.readiness.Finding)."""
        return ()

    async def execute(self, frame: Any) -> Any:
        """Do it. `frame` is an effects.Frame; the return value is the step's output."""
        raise TypeError(f"the pattern {self.pattern!r} does not say what it does")


class Patterns:
    """The registry of patterns, by the word that names them in YAML."""

    def __init__(self) -> None:
        self._classes: dict[str, type[Step]] = {}

    def register(self, word: str) -> Callable[[type[Step]], type[Step]]:
        """Class decorator: this step is written as `word:` in YAML."""

        def add(step: type[Step]) -> type[Step]:
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

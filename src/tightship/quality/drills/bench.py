"""What is drilled: a scratch copy of a workspace, one workflow of it, cases, and how they go undisturbed."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson

from tightship.agents.turn import AgentFunction
from tightship.connectors.openapi import OpenApiConnector, open_connector
from tightship.connectors.python import PythonTool, load_tools
from tightship.connectors.settings import connector_settings
from tightship.core import kinds
from tightship.core.errors import InputRejected, LoadError, UnknownName, WorkspaceError
from tightship.core.ports import Json, Tool
from tightship.core.world import World
from tightship.models.rehearsal import rehearsed
from tightship.patterns import load_all
from tightship.quality.drills.judge import RESULT, Seen, Write, came_of
from tightship.quality.drills.outside import MakePractice, Outside, StandIn
from tightship.quality.drills.scene import NoSecret, Scene, play
from tightship.quality.drills.seal import sealed
from tightship.runtime.code import Code
from tightship.workflow.definition import reach
from tightship.workflow.loader import load_workspace
from tightship.workflow.models import AgentSpec, WorkflowSpec
from tightship.workflow.source import did_you_mean
from tightship.workflow.types import check_input

if TYPE_CHECKING:
    from tightship.ledger import Entry

INTAKE: Final = "intake"
"""A workflow of this name puts a case where the team finds it."""
IGNORED: Final = shutil.ignore_patterns(
    *(".tightship", ".secrets", ".env", ".env.*", "*.pem", "*.key", "*.db", "*.db-*", ".git", ".venv", "__pycache__"),
    *("node_modules", "secrets"),
)
"""What a scratch copy leaves out: the store, secrets, and what is large."""
MADE: Final = 3
"""Cases that are made from the input's schema where there is no file of inputs."""
TRIED: Final = 24
"""Cases that are run undisturbed."""
KEPT: Final = 3
"""Of those that act, how many are broken; such as differ in what they do."""


@dataclass(frozen=True, slots=True)
class Case:
    """One input, by its number in the file; `origin`: that of the run above, for a workflow that others start."""

    number: int
    input: Mapping[str, Json]
    origin: Mapping[str, Json] | None = None


@dataclass(slots=True)
class Clean:
    """How a case went undisturbed.

    Attributes:
        outcome, reason: how it ended. seen: what came of it outside, and was not taken back.
        state: of the outside afterwards. before: of the outside beforehand.
        asked: the tools that were asked, in order, with how often each. agents: who took turns.
        outputs: what each agent last gave. given: all that it gave. seconds: of the drill's clock.
        requests: attempts at systems.
    """

    case: Case
    outcome: str
    reason: str
    seen: list[Seen]
    before: Json
    state: Json
    asked: dict[str, int]
    agents: list[str]
    outputs: dict[str, Json]
    given: dict[str, list[Json]]
    seconds: float
    requests: int
    entries: list[Entry] = field(default_factory=list["Entry"])

    @property
    def writes(self) -> list[Write]:
        """What it has done and not taken back; of a workflow that only reads, its result."""
        return [one.write for one in self.seen]

    @property
    def turns(self) -> int:
        """How many turns were taken."""
        return sum(entry.kind == kinds.TURN for entry in self.entries)

    @property
    def kind(self) -> tuple[Any, ...]:
        """Cases of one kind do the same things; where all they do is read, through the same agents."""
        names = tuple(name for name, _ in self.writes)
        return self.outcome, names, tuple(sorted(self.asked)), tuple(self.agents) if names == (RESULT,) else ()


class Bench:
    """A workflow, ready to be drilled.

    Args:
        folder: a scratch copy of a workspace (`scratch_copy`).
        workflow: which of its workflows.
        practice: makes the company to practise on.
        inputs: a file of inputs, one JSON object a line; None: the workspace's own, else made from the schema.
        tries: how many cases are run undisturbed. kept: how many of those that come to something are broken.

    Raises:
        LoadError: the workspace is not right. UnknownName: no such workflow. WorkspaceError: nothing to run on.
    """

    def __init__(
        self,
        folder: Path,
        workflow: str,
        practice: MakePractice,
        inputs: Path | None = None,
        tries: int = TRIED,
        kept: int = KEPT,
    ) -> None:
        load_all()
        self.kept, self._tries = kept, tries
        self.folder, self.workflow, self.practice = folder, workflow, practice
        self._python: dict[str, PythonTool] = {}
        with self.seal():  # of tools only their contracts are used, and what is local; nobody else may import them
            if (folder / "tools").is_dir():
                (folder / "tools").rename(folder / ".tools")
            self._python = load_tools(folder / ".tools")
            loaded = load_workspace(folder, tools=set(self._python))
            self.files = loaded.raise_first()
            self.spec: WorkflowSpec = self.files.workflow(workflow)
            self._started_by = [one for one in self.files.workflows if workflow in reach(one, self.files)[0][1:]]
            self.intake = INTAKE if INTAKE in self.files.workflows and workflow != INTAKE else None
            self._code = Code(self.files.root)
            self._functions: dict[str, AgentFunction | None] = {}
            self._given: dict[str, AgentFunction] = {}
            for spec in self.agents():
                self.function(spec)  # imported once, before anything is broken
        near = {one.workflow for one in self.workflows()} | {INTAKE}
        self.files = replace(self.files, workflows={k: v for k, v in self.files.workflows.items() if k in near})
        self.cases = list(self._cases(inputs))[:tries] if inputs else _spread(list(self._cases(None)), tries)
        if not self.cases:
            raise WorkspaceError(f"no line of the inputs fits {workflow}", fix="name a file that does with --input")
        self._clean: dict[int, Clean] = {}

    def seal(self) -> AbstractContextManager[None]:
        """Nothing outside is reached while this lasts."""
        return sealed(self.folder)

    # --- what there is ---------------------------------------------------------------------------

    def agents(self) -> list[AgentSpec]:
        """The agents that the workflow can reach."""
        names = reach(self.workflow, self.files)[1]
        if INTAKE in self.files.workflows:
            names = [*names, *(one for one in reach(INTAKE, self.files)[1] if one not in names)]
        return [self.files.agent(name) for name in names]

    def workflows(self) -> list[WorkflowSpec]:
        """The workflow and those that it starts."""
        return [self.files.workflow(name) for name in reach(self.workflow, self.files)[0]]

    def function(self, spec: AgentSpec) -> AgentFunction | None:
        """An agent's own function; None where it has none (a model, a person)."""
        if spec.python is None:
            return None
        if spec.agent not in self._functions:
            self._functions[spec.agent] = self._given.get(spec.agent) or self._code.function(spec)[0]
        return self._functions[spec.agent]

    def actions(self) -> list[str]:
        """The tools that the workflow's own actions name."""
        return list(dict.fromkeys(name for one in self.workflows() for name in one.tools()))

    def steps(self, pattern: str) -> list[Any]:
        """All steps of a pattern."""
        return [step for one in self.workflows() for step in one.walk() if step.pattern == pattern]

    async def tools(self, world: World, outside: Outside) -> dict[str, Tool]:
        """Every tool that is named, with a stand-in behind it.

        Raises:
            WorkspaceError: a contract would have to be fetched from outside.
        """
        wanted = self._named()
        found: dict[str, Tool] = {}
        for name, tool in self._python.items():
            if name in wanted:
                found[name] = tool if tool.local else StandIn(tool.spec, outside)
        for name in self.files.config.connectors:
            connector = await self._connector(name, world)
            offered = set(connector.tools())
            real = offered <= set(outside.practice.operations)
            for one in [tool for tool in wanted if tool in offered and tool not in found]:
                tool = connector.tool(one)
                found[one] = tool if real else StandIn(tool.spec, outside)
                undo = tool.spec.undo
                if undo is not None and undo.tool in offered and undo.tool not in found:
                    other = connector.tool(undo.tool)
                    found[undo.tool] = other if real else StandIn(other.spec, outside)
        missing = [name for name in wanted if name not in found]
        if missing:
            raise WorkspaceError(
                f"a drill fetches no contract from outside, and the practice company has no {missing[0]}",
                fix="keep a copy of the connector's contract in the workspace (`openapi: FILE`)",
            )
        return found

    async def _connector(self, name: str, world: World) -> OpenApiConnector:
        raw = self.files.config.connectors[name]
        settings = connector_settings(name, raw.to_data(), file=str(self.files.root / "tightship.yaml"))
        try:
            return await open_connector(name, settings, self.files.root, world, NoSecret())
        except LoadError as error:
            if "://" not in raw.openapi:
                raise
            raise WorkspaceError(
                f"a drill fetches no contract from outside: {raw.openapi}",
                fix="keep a copy of the connector's contract in the workspace (`openapi: FILE`)",
            ) from error

    def _named(self) -> list[str]:
        flows = [*self.workflows(), *([self.files.workflow(INTAKE)] if self.intake else [])]
        named = [name for spec in self.agents() for name in spec.tools]
        for flow in flows:
            named += flow.tools()
            for step in flow.walk():
                undo = getattr(step, "undo", None)
                named += [undo] if isinstance(undo, str) and undo != "none" else []
                tool = getattr(undo, "tool", None)
                named += [tool] if isinstance(tool, str) and tool != "none" else []
        named += [key.source.tool for key in self.files.config.context.values() if key.source is not None]
        return list(dict.fromkeys(named))

    # --- cases -----------------------------------------------------------------------------------

    def _cases(self, inputs: Path | None) -> Iterator[Case]:
        files = [inputs] if inputs is not None else sorted(self.folder.glob("*.jsonl"))
        found = False
        for number, line in enumerate(_lines(files), start=1):
            with contextlib.suppress(InputRejected):
                yield Case(number, check_input(self.spec.input, line, self.workflow))
                found = True
        if found or inputs is not None:
            return
        for above in self._started_by:
            started = list(_started(Bench(self.folder, above, self.practice, tries=self._tries), self.workflow))
            if started:
                yield from started
                return
        for number in range(1, MADE + 1):
            yield Case(number, rehearsed(self.spec.input_schema, f"case {number}"))

    def intake_input(self, case: Case) -> Mapping[str, Json] | None:
        """The case as the intake wants it; None where it cannot be made of it."""
        declared = self.files.workflow(INTAKE).input
        names = {name.removesuffix("?") for name in declared}
        given = case.input if case.origin is None else case.origin
        try:
            return check_input(declared, {k: v for k, v in given.items() if k in names}, INTAKE)
        except InputRejected:
            return None

    # --- undisturbed -----------------------------------------------------------------------------

    def clean(self, case: Case) -> Clean:
        """How a case goes undisturbed."""
        found = self._clean.get(case.number)
        if found is None:
            found = self._clean[case.number] = play(self, lambda scene: observe(scene, case))
        return found

    def learn(self) -> None:
        """Run the cases undisturbed."""
        for case in self.cases:
            self.clean(case)

    def all_clean(self) -> list[Clean]:
        """All cases that were run undisturbed."""
        return list(self._clean.values())

    def acting(self, most: int = 0) -> list[Clean]:
        """Cases that complete and come to something outside, such as differ in what they do; those that do most come
        first. Of a workflow that only reads, that is a result."""
        found: dict[Any, Clean] = {}
        for clean in self._clean.values():
            if clean.outcome == "completed" and clean.writes:
                found.setdefault(clean.kind, clean)
        return sorted(found.values(), key=lambda one: (-len(one.writes), -one.requests))[: most or self.kept]

    def lively(self, most: int = 0) -> list[Clean]:
        """Cases that come to something; where none does, any that complete, else any."""
        ended = [one for one in self._clean.values() if one.outcome == "completed"]
        most = most or self.kept
        return self.acting(most) or ended[:most] or list(self._clean.values())[:most]

    def by_agent(self) -> Iterator[tuple[str, Clean]]:
        """Each agent of the lively cases, with the first of them in which it takes part."""
        cases = self.lively()
        for agent in dict.fromkeys(name for one in cases for name in one.agents):
            yield agent, next(one for one in cases if agent in one.agents)

    def read(self) -> Collection[str]:
        """The tools that agents of the chosen cases have read."""
        actions = set(self.actions())
        return list(dict.fromkeys(name for one in self.lively() for name in one.asked if name not in actions))


def _started(above: Bench, workflow: str) -> Iterator[Case]:
    """How the cases of a workflow start another one, undisturbed: each input once."""
    known = set[str]()
    for case in above.cases:
        for given in play(above, lambda scene, case=case: _inputs(scene, case, workflow)):
            said = orjson.dumps(given, option=orjson.OPT_SORT_KEYS).decode()
            if said not in known:
                known.add(said)
                yield Case(len(known), given, case.input)


async def _inputs(scene: Scene, case: Case, workflow: str) -> list[Mapping[str, Json]]:
    await scene.prepare(case)
    run = await scene.run(case)
    started = [entry for entry in run.entries if entry.kind == kinds.STARTED and entry.body.get("workflow") == workflow]
    values = await scene.ledger.values([entry.body["input"] for entry in started], erased={})
    return [values[entry.body["input"]] for entry in started]


async def observe(scene: Scene, case: Case) -> Clean:
    """Run a case and look at everything that came of it."""
    await scene.prepare(case)
    before = scene.outside.state()
    clock = scene.world.clock
    began = clock.now()
    run = await scene.run(case)
    asked: dict[str, int] = {}
    for one in scene.outside.asked:
        asked[one.name] = asked.get(one.name, 0) + 1
    turns = [entry for entry in run.entries if entry.kind == "turn.done" and "out" in entry.body]
    values = await scene.ledger.values([entry.body["out"] for entry in turns], erased=None)
    given: dict[str, list[Json]] = {}
    for entry in turns:
        given.setdefault(entry.body["agent"], []).append(values.get(entry.body["out"]))
    return Clean(
        case,
        run.outcome or run.state,
        run.reason,
        await came_of(scene, run),
        before,
        scene.outside.state(),
        asked,
        list(given),
        {agent: outputs[-1] for agent, outputs in given.items()},
        given,
        clock.now() - began,
        len(scene.outside.asked),
        list(run.entries),
    )


def scratch_copy(source: Path, target: Path) -> Path:
    """Copy a workspace without its store and its secrets.

    Raises:
        WorkspaceError: it cannot be copied.
    """
    try:
        shutil.copytree(source, target, ignore=IGNORED, symlinks=False, dirs_exist_ok=True)
    except (OSError, shutil.Error) as error:
        raise WorkspaceError(f"the workspace cannot be copied: {error}", where=str(source)) from None
    return target


def pick_workflow(names: Collection[str], wanted: str | None, name: str) -> str:
    """The workflow to drill: as named, else the only one, the one of the workspace's name, or the first.

    Raises:
        UnknownName: there is none of that name.
    """
    if wanted is not None:
        if wanted not in names:
            raise UnknownName(f"there is no workflow {wanted!r}", fix=did_you_mean(wanted, names))
        return wanted
    rest = sorted(one for one in names if one != INTAKE) or sorted(names)
    if not rest:
        raise UnknownName("the workspace has no workflow", fix="write one into workflows/")
    return next((one for one in rest if name.startswith(one)), rest[0])


def _lines(files: Iterable[Path]) -> Iterator[Mapping[str, Json]]:
    for path in files:
        for line in path.read_bytes().splitlines():
            with contextlib.suppress(orjson.JSONDecodeError):
                found = orjson.loads(line) if line.strip() else None
                if isinstance(found, dict):
                    yield {name: value for name, value in found.items() if name != "expected"}


def _spread(cases: list[Case], most: int) -> list[Case]:
    """So many of them, spread over the file, whose parts often differ."""
    if len(cases) <= most:
        return cases
    return [cases[at * len(cases) // most] for at in range(most)]


__all__ = ["Bench", "Case", "Clean", "asyncio", "observe", "pick_workflow", "scratch_copy"]

"""A workspace's folder as objects, with every problem of every file."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from tightship.core.errors import LoadError, UnknownName, WorkspaceMissing
from tightship.workflow._explain import load_errors
from tightship.workflow.config import WorkspaceConfig
from tightship.workflow.models import AgentSpec, Spec, WorkflowSpec
from tightship.workflow.python_files import PythonFile, read_python
from tightship.workflow.references import check_references
from tightship.workflow.source import MAX_BYTES, MarkedDict, did_you_mean, parse_source
from tightship.workflow.steps import collecting
from tightship.workflow.tree import patterns

MAX_FILES: Final = 2000
CONFIG: Final = "tightship.yaml"
AnySpec = TypeVar("AnySpec", bound=Spec)


@dataclass(slots=True)
class WorkspaceFiles:
    """What a workspace's files say.

    `hashes` holds the SHA-256 of every file that counts, by its path below `root`; `evals` the YAML files there;
    `python` the modules of agents/ by name, `tools` those of tools/.
    """

    root: Path
    config: WorkspaceConfig
    agents: dict[str, AgentSpec] = field(default_factory=dict[str, AgentSpec])
    workflows: dict[str, WorkflowSpec] = field(default_factory=dict[str, WorkflowSpec])
    python: dict[str, PythonFile] = field(default_factory=dict[str, PythonFile])
    hashes: dict[str, str] = field(default_factory=dict[str, str])
    evals: dict[str, Any] = field(default_factory=dict[str, Any])
    tools: list[PythonFile] = field(default_factory=list[PythonFile])

    def agent(self, name: str) -> AgentSpec:
        """The agent.

        Raises:
            UnknownName: there is none.
        """
        return _get(self.agents, name, "agent")

    def workflow(self, name: str) -> WorkflowSpec:
        """The workflow.

        Raises:
            UnknownName: there is none.
        """
        return _get(self.workflows, name, "workflow")

    def add(self, spec: AgentSpec | WorkflowSpec, *, tools: Collection[str] = ()) -> None:
        """Add what was built in Python, replacing one of the same name.

        Args:
            spec: an agent or a workflow.
            tools: names of tools that are registered in Python.

        Raises:
            LoadError: it refers to something that is not there; nothing was added.
        """
        agents, workflows = dict(self.agents), dict(self.workflows)
        if isinstance(spec, AgentSpec):
            agents[spec.agent] = spec
        else:
            workflows[spec.workflow] = spec
        draft = replace(self, agents=agents, workflows=workflows)
        problems = list(check_references(draft, tools, only=spec))
        if problems:
            raise problems[0]
        self.agents, self.workflows = agents, workflows

    @property
    def has_tools(self) -> bool:
        """Whether there is a connector, or Python under tools/, that may give tools."""
        return bool(self.config.connectors) or any(path.startswith("tools/") for path in self.hashes)

    @property
    def code_hash(self) -> str:
        """SHA-256 over the Python files: a part of the build that runs are bound to."""
        lines = [f"{path} {digest}" for path, digest in sorted(self.hashes.items()) if path.endswith(".py")]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _get(found: Mapping[str, AnySpec], name: str, what: str) -> AnySpec:
    if name not in found:
        raise UnknownName(f"there is no {what} {name!r}", fix=did_you_mean(name, found))
    return found[name]


@dataclass(slots=True)
class Loaded:
    """What was loaded, and every problem, in the order of files and lines."""

    workspace: WorkspaceFiles
    problems: list[LoadError] = field(default_factory=list[LoadError])

    def raise_first(self) -> WorkspaceFiles:
        """The workspace, if nothing is wrong.

        Raises:
            LoadError: the first problem; when there are more, its message says how many.
        """
        if not self.problems:
            return self.workspace
        first, more = self.problems[0], len(self.problems) - 1
        if more == 0:
            raise first
        counted = f"{first.message} (and {more} more {'problem' if more == 1 else 'problems'}; `check` lists them)"
        raise LoadError(counted, file=first.file, line=first.line, column=first.column, fix=first.fix)


def load_workspace(root: Path | str, *, tools: Collection[str] = ()) -> Loaded:
    """Read a workspace's folder.

    Patterns must be registered before (`tightship.patterns.load_all()`).

    Args:
        root: the folder that holds tightship.yaml.
        tools: names of tools that are registered in Python rather than by a connector.

    Raises:
        WorkspaceMissing: there is no tightship.yaml in it.
    """
    root = Path(root)
    if not (root / CONFIG).is_file():
        raise WorkspaceMissing(
            f"there is no {CONFIG} in {root}", fix="run `tightship init`, or name the folder of a workspace"
        )
    if patterns.find("sequence") is None:
        raise RuntimeError("no patterns are registered; call tightship.patterns.load_all() first")
    return _Loading(root.resolve()).load(tools)


class _Loading:
    """One pass over the folder."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._problems: list[LoadError] = []
        self._hashes: dict[str, str] = {}
        self._counted = 0

    def load(self, tools: Collection[str]) -> Loaded:
        """Everything."""
        config = self._spec(self._root / CONFIG, WorkspaceConfig, "the workspace") or WorkspaceConfig(name="unreadable")
        files = WorkspaceFiles(self._root, config, hashes=self._hashes)
        self._agents(files)
        self._python(files)
        with collecting(self._problems):
            self._workflows(files)
        self._evals(files)
        self._other("policies")
        unreadable = bool(self._problems)
        self._problems += check_references(files, tools, partial=unreadable)
        self._problems.sort(key=lambda one: (one.file != CONFIG, one.file or "", one.line or 0, one.column or 0))
        return Loaded(files, self._problems)

    def _agents(self, files: WorkspaceFiles) -> None:
        for path in self._glob("agents", ".yaml", ".yml"):
            spec = self._spec(path, AgentSpec, "the agent")
            if spec is not None and self._first(spec, spec.agent, files.agents, "agent"):
                files.agents[spec.agent] = spec

    def _workflows(self, files: WorkspaceFiles) -> None:
        for path in self._glob("workflows", ".yaml", ".yml"):
            spec = self._spec(path, WorkflowSpec, "the workflow")
            if spec is not None and self._first(spec, spec.workflow, files.workflows, "workflow"):
                files.workflows[spec.workflow] = spec

    def _first(self, spec: Spec, name: str, known: Mapping[str, Spec], what: str) -> bool:
        if name not in known:
            return True
        mark, other = spec.where(what), known[name].where(what)
        assert mark is not None
        self._problems.append(
            mark.error(
                f"there are two {what}s called {name!r} (the other: {other})", fix="rename or delete one of them"
            )
        )
        return False

    def _python(self, files: WorkspaceFiles) -> None:
        for path in self._glob("agents", ".py"):
            name = self._name(path)
            module = path.relative_to(self._root / "agents").with_suffix("").as_posix().replace("/", ".")
            try:
                self._hash(path, name)
                files.python[module] = read_python(path, name, module)
            except LoadError as problem:
                self._problems.append(problem)
        for path in self._glob("tools", ".py"):
            name = self._name(path)
            try:
                self._hash(path, name)
                files.tools.append(read_python(path, name, path.stem))
            except LoadError as problem:
                self._problems.append(problem)

    def _evals(self, files: WorkspaceFiles) -> None:
        for path in self._glob("evals", ".yaml", ".yml"):
            name = self._name(path)
            try:
                files.evals[name] = parse_source(self._hash(path, name), name)
            except LoadError as problem:
                self._problems.append(problem)

    def _other(self, folder: str) -> None:
        for path in self._glob(folder, ".cedar"):
            try:
                self._hash(path, self._name(path))
            except LoadError as problem:
                self._problems.append(problem)

    def _glob(self, folder: str, *suffixes: str) -> Iterator[Path]:
        base = self._root / folder
        for path in sorted(base.rglob("*")) if base.is_dir() else []:
            if path.suffix not in suffixes or not path.is_file() or "__pycache__" in path.parts:
                continue
            name = self._name(path)
            self._counted += 1
            if self._counted > MAX_FILES:
                self._problems.append(
                    LoadError(f"the workspace has more than {MAX_FILES} files", file=name, fix="split the workspace")
                )
                return
            if not path.resolve().is_relative_to(self._root):
                self._problems.append(
                    LoadError("the file is a link that leaves the workspace", file=name, fix="copy the file into it")
                )
                continue
            yield path

    def _name(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()

    def _hash(self, path: Path, name: str) -> bytes:
        try:
            if path.stat().st_size > MAX_BYTES:
                raise LoadError(
                    "the file is larger than 1 MB", file=name, line=1, column=1, fix="split it, or move data out"
                )
            data = path.read_bytes()
        except OSError as error:
            raise LoadError(
                f"cannot be read: {error.strerror}", file=name, fix="check that it is a readable file"
            ) from None
        self._hashes[name] = hashlib.sha256(data).hexdigest()
        return data

    def _spec(self, path: Path, model: type[AnySpec], what: str) -> AnySpec | None:
        name = self._name(path)
        try:
            raw = parse_source(self._hash(path, name), name)
            return read_spec(raw, model, what, name)
        except LoadError as problem:
            self._problems.append(problem)
        except _Invalid as found:
            self._problems += found.problems
        return None


class _Invalid(Exception):
    def __init__(self, problems: list[LoadError]) -> None:
        self.problems = problems
        super().__init__()


def read_spec(raw: Any, model: type[AnySpec], what: str, file: str) -> AnySpec:
    """One file's content as its model, with marks.

    Raises:
        LoadError: it is no mapping.
        _Invalid: it does not fit the model; holds every problem.
    """
    if not isinstance(raw, MarkedDict):
        raise LoadError(
            f"{what} is a mapping, and this file is not",
            file=file,
            line=1,
            column=1,
            fix="begin with `name: value` lines",
        )
    try:
        spec = model.model_validate(raw)
    except ValidationError as error:
        raise _Invalid(load_errors(error, raw, model, what, file)) from None
    _attach(spec, raw, file)
    return spec


def _attach(spec: Spec, raw: Any, file: str) -> None:
    """Tell a spec and those inside it where they stand."""
    spec._raw, spec._file = raw, file
    for name, field_info in type(spec).model_fields.items():
        _attach_below(getattr(spec, name), raw.get(field_info.alias or name) if isinstance(raw, dict) else None, file)


def _attach_below(value: Any, raw: Any, file: str) -> None:
    if isinstance(value, Spec) and raw is not None:
        _attach(value, raw, file)
    elif isinstance(value, Mapping) and isinstance(raw, dict):
        for name, inner in value.items():
            _attach_below(inner, raw.get(name), file)

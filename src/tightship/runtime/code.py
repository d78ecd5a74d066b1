"""The Python of a workspace: functions of its `agents/` folder, imported under names of its own.

The modules of the folder import each other by their plain names. Two workspaces in one process may both have a
`desk.py`; neither finds the other's, and no module of a workspace shadows an installed package.
"""

from __future__ import annotations

import builtins
import hashlib
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, cast

from tightship.agents.turn import AgentFunction
from tightship.core.errors import LoadError
from tightship.workflow.models import AgentSpec


class Code:
    """The agents' functions of one workspace; each module is imported once, until `renew` has it begin anew."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._folder = root / "agents"
        self._package = f"tightship_workspace_{hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:12]}"
        self._modules: dict[str, ModuleType] = {}
        self._compiled: dict[str, CodeType] = {}
        self._renewed: dict[str, int] = {}
        self._given: dict[str, AgentFunction] = {}
        self._builtins = {**vars(builtins), "__import__": self._import}

    def give(self, agent: str, function: AgentFunction) -> None:
        """Use a function of this process for an agent."""
        self._given[agent] = function

    def function(self, spec: AgentSpec) -> tuple[AgentFunction, str]:
        """The agent's function and its file.

        Raises:
            LoadError: the module or the function is not there, or importing it failed.
        """
        given = self._given.get(spec.agent)
        if given is not None:
            return given, getattr(getattr(given, "__code__", None), "co_filename", "")
        target = spec.python or ""
        function = self.named(target, f"write `async def` with (ctx, input), or correct `python:` of {spec.agent}")
        return function, str(self._path(target.partition(":")[0]))

    def renew(self, agent: str) -> None:
        """Have an agent's next turn begin with modules that nothing has been kept in.

        They are executed from what was compiled at first, so a file that has changed since changes no run.
        """
        self._modules = {}
        self._renewed[agent] = self.generation(agent) + 1

    def generation(self, agent: str) -> int:
        """How often an agent has begun anew in this process."""
        return self._renewed.get(agent, 0)

    def renews(self, agent: str) -> bool:
        """Whether an agent's code can begin anew: not where it is a function that the process itself has given."""
        return agent not in self._given

    def named(self, target: str, fix: str = "write it, or correct its name in tightship.yaml") -> Any:
        """The function of a `module:function` of agents/.

        Raises:
            LoadError: the module or the function is not there, or importing it failed.
        """
        module_name, _, name = target.partition(":")
        function = getattr(self._module(module_name), name, None)
        if not callable(function):
            raise LoadError(f"{module_name} has no function {name!r}", file=str(self._path(module_name)), fix=fix)
        return function

    def _path(self, module: str) -> Path:
        return self._folder / (module.replace(".", "/") + ".py")

    def _module(self, name: str) -> ModuleType:
        found = self._modules.get(name)
        if found is not None:
            return found
        path = self._path(name)
        full = f"{self._package}.{name}"
        spec = importlib.util.spec_from_file_location(full, path)
        if not path.exists() or spec is None or spec.loader is None:
            raise LoadError(f"there is no module {name!r}", file=str(path), fix="create it, or correct `python:`")
        module = self._modules[name] = importlib.util.module_from_spec(spec)
        vars(module)["__builtins__"] = self._builtins
        sys.modules[full] = module  # dataclasses and the like look their module up by its name
        try:
            code = self._compiled.get(name) or cast(SourceFileLoader, spec.loader).get_code(full)
            assert code is not None, "a file of source has code"
            self._compiled[name] = code
            exec(code, vars(module))  # the user's own code, as an import executes it
        except (Exception, SystemExit) as error:
            self._modules.pop(name, None)
            sys.modules.pop(full, None)
            if isinstance(error, LoadError):
                raise
            raise LoadError(
                f"importing it raised {type(error).__name__}: {error}",
                file=str(path),
                line=_line_in(error, path),
                fix=f"correct the module; `cd {self._folder} && python {path.name}` shows the whole traceback",
            ) from error
        return module

    def _import(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        """What `import` does inside the workspace's modules: its own files first, then everything installed."""
        if level == 1 or (level == 0 and self._path(name).exists()):
            if name:
                return self._module(name)
            module = ModuleType(self._package)  # `from . import a, b`
            for part in fromlist or ():
                setattr(module, part, self._module(part))
            return module
        return builtins.__import__(name, globals, locals, fromlist or (), level)


def _line_in(error: BaseException, path: Path) -> int | None:
    """The line of this file that an import error came from."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return error.lineno
    trace, line = error.__traceback__, None
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return line

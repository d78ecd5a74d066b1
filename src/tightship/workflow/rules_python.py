"""Readiness rules about the Python of agents, as far as it can be known without running it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace

from tightship.workflow.python_files import Import
from tightship.workflow.readiness import Check, Finding, Rule, rule


@rule(
    "TS218",
    "error",
    "An agent's code imports a module that is not there",
    why="The module cannot be imported: no workflow with this agent begins, or the agent fails at that line.",
    fix="Create the file, install the package, or delete the import.",
)
def missing_import(check: Check, rule: Rule) -> Iterator[Finding]:
    """What agents import is there, also below the modules that they import."""
    python = check.files.python
    todo = [agent.python.partition(":")[0] for agent in check.files.agents.values() if agent.python is not None]
    seen = set[str]()
    while todo:
        module = todo.pop(0)
        if module in seen or module not in python:
            continue
        seen.add(module)
        file = python[module]
        for one in file.imports:
            path = f"agents/{one.name.replace('.', '/')}.py"
            if one.name in python and one.level <= 1:
                todo.append(one.name)
            elif not (one.level <= 1 and (check.files.root / path).exists()) and not _installed(one):
                said = f"{file.path} imports {'.' * one.level}{one.name}: there is no {path}"
                said += "" if one.level else ", and no such package is installed"
                yield replace(rule.found(said), file=file.path, line=one.line, column=1)


def _installed(one: Import) -> bool:
    """Whether Python would find it here; a package is looked for and not imported."""
    if one.level:
        return False
    top = one.name.partition(".")[0]
    # not by `importlib.util.find_spec`: what this process has imported says nothing about another one
    return any(finder.find_spec(top, None) is not None for finder in sys.meta_path)

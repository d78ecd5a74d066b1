"""Readiness rules about the Python of agents and tools, as far as it can be known without running it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import PurePosixPath

from tightship.workflow.python_files import Import
from tightship.workflow.readiness import Check, Finding, Rule, rule


@rule(
    "TS218",
    "error",
    "Code of an agent or a tool imports a module that is not there",
    why="The file cannot be imported: no workflow that needs it begins, or the code fails at that line.",
    fix="Create the file, install the package, or delete the import.",
)
def missing_import(check: Check, rule: Rule) -> Iterator[Finding]:
    """What agents and tools import is there, also below the modules that agents import."""
    yield from _of_agents(check, rule)
    yield from _of_tools(check, rule)


def _of_agents(check: Check, rule: Rule) -> Iterator[Finding]:
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


def _of_tools(check: Check, rule: Rule) -> Iterator[Finding]:
    """Every file that gives tools is imported by the first run, each on its own: none of them finds another."""
    modules = {PurePosixPath(path).parent / PurePosixPath(path).stem for path in check.files.hashes}
    for file in check.files.tools:
        path = PurePosixPath(file.path)
        if len(path.parts) > 2 or path.name.startswith("_"):
            continue
        for one in file.imports:
            if _installed(one):
                continue
            said = f"{file.path} imports {'.' * one.level}{one.name}: "
            if one.level or path.parent / one.name.replace(".", "/") in modules:
                said += "a file of tools/ is imported on its own, and finds no other one"
                fix = "Write it into the same file, or install it as a package."
            else:
                said += "no such package is installed"
                fix = "Install the package, or delete the import."
            yield replace(rule.found(said, fix=fix), file=file.path, line=one.line, column=1)


def _installed(one: Import) -> bool:
    """Whether Python would find it here; a package is looked for and not imported."""
    if one.level:
        return False
    top = one.name.partition(".")[0]
    # not by `importlib.util.find_spec`: what this process has imported says nothing about another one
    return any(finder.find_spec(top, None) is not None for finder in sys.meta_path)

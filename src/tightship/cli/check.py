"""`tightship check`: what would fail in production."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from tightship.cli._exit import DONE, ERROR
from tightship.cli._shell import Shell, command, run_async
from tightship.core.errors import TightshipError

if TYPE_CHECKING:
    from tightship.core.ports import ToolSpec
    from tightship.workflow.loader import WorkspaceFiles
    from tightship.workflow.readiness import Finding

_STYLE = {"error": "bad", "warning": "warn", "advice": "dim"}


@click.command()
@click.option("--offline", is_flag=True, help="Do not fetch contracts from connectors' addresses.")
@click.option("--no-code", is_flag=True, help="Do not import tools/*.py.")
@click.option("--strict", is_flag=True, help="Exit with 1 for warnings too, and when a contract could not be read.")
@click.option("--rules", is_flag=True, help="Print every rule with its reason and fix, and check nothing.")
@command
def check(shell: Shell, offline: bool, no_code: bool, strict: bool, rules: bool) -> int:
    """Check the workspace against the readiness rules. Exits with 1 when there are errors.

    Files and contracts are read; no agent and no tool is run. Modules in tools/ are imported, since only they know the
    contracts of their tools, and only when an agent or a workflow names a tool that no connector has. Contracts that a
    connector declares by an address are fetched from there; when nobody answers, the rules that need them are left out
    and the output says so.
    """
    if rules:
        return _print_rules(shell)
    findings, unread = run_async(lambda: _all(shell, offline, no_code))
    errors = sum(finding.severity == "error" for finding in findings)
    counts = {name: sum(finding.severity == name for finding in findings) for name in _STYLE}
    shell.emit({"findings": [finding.as_dict() for finding in findings], "counts": counts, "contracts_unread": unread})
    for finding in findings:
        _print(shell, finding)
    for reason in unread:
        shell.say(f"not read: {reason}; rules that need its contract were left out", "warn")
    said = ", ".join(
        f"{count} {name}{'s' if count != 1 and name != 'advice' else ''}" for name, count in counts.items()
    )
    shell.say(said, "bad" if errors else "good")
    if strict and not errors and (unread or counts["warning"]):
        shell.say("--strict: warnings and contracts that could not be read count as errors", "bad")
    return ERROR if errors or (strict and (unread or counts["warning"])) else DONE


async def _all(shell: Shell, offline: bool, no_code: bool) -> tuple[list[Finding], list[str]]:
    findings, unread = await find(shell, offline, no_code)
    return [*findings, *await _left_behind(shell, offline)], unread


async def _left_behind(shell: Shell, offline: bool) -> list[Finding]:
    """Whether the store holds runs of code that nobody has any more; nothing where there is no store to look into."""
    from tightship.cli._open import looking
    from tightship.core.errors import LoadError, StoreMissing
    from tightship.runtime.build import build_id
    from tightship.runtime.leftover import left_behind
    from tightship.workflow.rules_workspace import CODE_GONE

    try:
        async with looking(shell) as workspace:
            if offline and workspace.place.url is not None:
                return []
            rows = await left_behind(await workspace.ledger(), build_id(workspace.files.code_hash))
    except (LoadError, StoreMissing):
        return []
    except TightshipError as error:
        shell.note(f"the store was not looked into: {error}")
        return []
    if not rows:
        return []
    named = ", ".join(row["id"] for row in rows[:3]) + (" …" if len(rows) > 3 else "")
    return [CODE_GONE.found(f"{len(rows)} open runs are of other code that no worker has: {named}")]


async def find(shell: Shell, offline: bool, no_code: bool = False) -> tuple[list[Finding], list[str]]:
    """The findings, and why contracts could not be read.

    Raises:
        WorkspaceMissing: there is no tightship.yaml.
    """
    from tightship.cli._open import open_leniently  # registers the patterns
    from tightship.workflow.loader import load_workspace
    from tightship.workflow.readiness import check_workspace

    unread: list[str] = []
    offered: set[str] = set()
    tools: Mapping[str, ToolSpec] = {}
    try:
        workspace = open_leniently(shell.folder)
    except TightshipError as error:
        if type(error).__name__ != "LoadError":
            raise
    else:
        tools = await contracts(workspace.files, offline, unread, no_code, offered)
    loaded = load_workspace(shell.folder, tools=set(tools))
    return check_workspace(loaded, tools or None, offered), unread


async def contracts(
    files: WorkspaceFiles,
    offline: bool,
    unread: list[str],
    no_code: bool = False,
    offered: set[str] | None = None,
) -> dict[str, ToolSpec]:
    """The contracts of the tools that agents and actions name, as far as they can be read.

    Args:
        files: the workspace.
        offline: leave out contracts that lie at an address.
        unread: takes a line for each that could not be read.
        no_code: leave out Python tools: their modules are not imported.
        offered: takes the names of all tools of the contracts that were read, also of those that nothing uses.
    """
    from tightship.connectors.openapi import open_connector
    from tightship.connectors.python import load_tools
    from tightship.connectors.secrets import default_secrets
    from tightship.connectors.settings import connector_settings
    from tightship.core.world import World

    found: dict[str, ToolSpec] = {}
    named = {tool for agent in files.agents.values() for tool in agent.tools}
    named |= {tool for workflow in files.workflows.values() for tool in workflow.tools()}
    named |= {key.source.tool for key in files.config.context.values() if key.source is not None}
    folder = files.root / "tools"
    ours = sorted(name for name in named if name.partition(".")[0] not in files.config.connectors)
    if ours and folder.is_dir() and no_code:
        unread.append(f"tools/: {', '.join(ours)}, and this is --no-code")
    elif ours and folder.is_dir():
        try:
            found |= {name: tool.spec for name, tool in load_tools(folder).items()}
        except TightshipError as error:
            unread.append(f"tools/: {error}")
    for name, raw in files.config.connectors.items():
        if offline and "://" in raw.openapi:
            unread.append(f"connector {name}: its contract lies at {raw.openapi}, and this is --offline")
            continue
        try:
            settings = connector_settings(name, raw.to_data(), file="tightship.yaml")
            connector = await open_connector(name, settings, files.root, World(), default_secrets(files.root))
        except TightshipError as error:
            unread.append(f"connector {name}: {error.message}")
            continue
        found |= _of_connector(connector, named)
        if offered is not None:
            offered.update(connector.tools())
        await connector.aclose()
    return found


def _of_connector(connector: Any, named: set[str]) -> dict[str, ToolSpec]:
    """The contracts of the operations that are named, and of what undoes them."""
    found: dict[str, ToolSpec] = {}
    offered = set(connector.tools())
    wanted = sorted(named & offered)
    for name in wanted:
        spec: ToolSpec = connector.tool(name).spec
        found[name] = spec
        if spec.undo is not None and spec.undo.tool in offered and spec.undo.tool not in found:
            found[spec.undo.tool] = connector.tool(spec.undo.tool).spec
    return found


def _print(shell: Shell, finding: Finding) -> None:
    where = f"  {finding.where}" if finding.where else ""
    shell.say(f"{finding.severity} {finding.rule}{where}", _STYLE[finding.severity])
    for name, text in (("", finding.message), ("why: ", finding.why), ("fix: ", finding.fix)):
        body = textwrap.fill(f"{name}{text}", 110, initial_indent="  ", subsequent_indent="       " if name else "  ")
        shell.say(body)
    shell.say()


def _print_rules(shell: Shell) -> int:
    from tightship.patterns import load_all
    from tightship.workflow.readiness import all_rules

    load_all()
    rules = all_rules()
    shell.emit([{n: getattr(rule, n) for n in ("id", "severity", "title", "why", "fix")} for rule in rules])
    rows = [(rule.id, rule.severity, rule.title, rule.fix) for rule in rules]
    shell.table(("rule", "severity", "what", "fix"), rows, words=("what", "fix"))
    return DONE

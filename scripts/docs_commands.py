"""The reference of the command line, made from the commands themselves."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import click

from tightship.agents.offline.__main__ import main as offline
from tightship.cli._exit import EXIT_CODES
from tightship.cli._root import COMMANDS, root

COMMON = frozenset({"workspace", "as_json", "debug"})
"""Options that every command has; the page says so once."""


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, with its whole name, in the order of the help."""
    with click.Context(root, info_name="tightship") as context:
        for name in COMMANDS:
            found = root.get_command(context, name)
            assert found is not None, name
            yield from _below(f"tightship {name}", found)


def _below(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for part, inner in command.commands.items():
            yield from _below(f"{name} {part}", inner)
        return
    yield name, command


def exit_codes() -> str:
    """The table of exit codes."""
    lines = ["| code | meaning |", "|---|---|"]
    return "\n".join([*lines, *(f"| {code} | {meaning} |" for code, meaning in EXIT_CODES.items())])


def overview() -> str:
    """The commands, with one line for each."""
    lines = ["| command | what it does |", "|---|---|"]
    return "\n".join([*lines, *(f"| `tightship {name}` | {line} |" for name, (_, line) in COMMANDS.items())])


def reference() -> str:
    """A section for each command."""
    parts = [_section(name, command) for name, command in commands()]
    return "\n\n".join([*parts, _section("python -m tightship.agents.offline", offline, common=False)])


def _section(name: str, command: click.Command, common: bool = True) -> str:
    parameters = [one for one in command.params if not (common and one.name in COMMON and _plain(one))]
    arguments = [one for one in parameters if isinstance(one, click.Argument)]
    options = [one for one in parameters if isinstance(one, click.Option)]
    usage = " ".join([name, *(_metavar(one) for one in arguments), *(["[OPTIONS]"] if options else [])])
    parts = [f"### {name}", f"```text\n{usage}\n```", _help(command)]
    if options:
        rows = [f"| {_names(one)} | {_default(one)} | {_cell(one.help or '')} |" for one in options]
        parts.append("\n".join(["| option | default | meaning |", "|---|---|---|", *rows]))
    return "\n\n".join(part for part in parts if part)


def _plain(parameter: click.Parameter) -> bool:
    """Whether a common option is the common one: its help may say something of its own."""
    text = getattr(parameter, "help", "") or ""
    return text in ("The workspace's folder (default: here).", "Print JSON.", "Print whole tracebacks.")


def _help(command: click.Command) -> str:
    paragraphs = inspect.cleandoc(command.help or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def _metavar(argument: click.Argument) -> str:
    name = argument.metavar or (argument.name or "").upper()
    name = name if argument.required else f"[{name}]"
    return f"{name}…" if argument.nargs == -1 else name


def _names(option: click.Option) -> str:
    names = ", ".join(f"`{name}`" for name in sorted(option.opts, key=len))
    value = _value(option)
    return f"{names} {value}".rstrip()


def _value(option: click.Option) -> str:
    if option.is_flag:
        return ""
    if option.metavar:
        return option.metavar.replace("|", "\\|")
    if isinstance(option.type, click.Choice):
        return ", ".join(f"`{one}`" for one in option.type.choices)
    if isinstance(option.type, click.IntRange):
        low, high = option.type.min, option.type.max
        return f"{low} to {high:,}" if high is not None else f"from {low}"
    return (option.name or "").upper()


def _default(option: click.Option) -> str:
    value: Any = option.default
    if option.is_flag or value is None or value == "" or repr(value) == "Sentinel.UNSET":
        return ""
    if isinstance(value, (tuple, list)):
        return ", ".join(f"`{one}`" for one in value)
    return f"`{value}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")

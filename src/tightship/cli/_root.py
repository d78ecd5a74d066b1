"""The root command: names and one-line helps of all commands stand here; their modules are imported when called."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Final

import click

from tightship._version import __version__
from tightship.cli._exit import ERROR, EXIT_CODES, INTERRUPTED, USAGE

COMMANDS: Final = {
    "init": ("tightship.cli.init:init", "Make a workspace from a template."),
    "check": ("tightship.cli.check:check", "Say what would fail in production, why, and the fix."),
    "run": ("tightship.cli.run:run", "Run a workflow on a file of inputs, or on one input."),
    "runs": ("tightship.cli.runs:runs", "List, show, explain, resume, fork, cancel runs; take them over."),
    "inbox": ("tightship.cli.inbox:inbox", "What waits for people, and their decisions."),
    "costs": ("tightship.cli.costs:costs", "What it has cost, by workflow, agent, tool or day."),
    "coordination": (
        "tightship.cli.coordination:coordination",
        "How agents work together: handoffs, and what coordination takes.",
    ),
    "metrics": ("tightship.cli.metrics:metrics", "What there is to do and what today has cost, for Prometheus."),
    "diagnose": (
        "tightship.cli.diagnose:diagnose",
        "Where a run goes round in circles; where to look for its mistake.",
    ),
    "context": ("tightship.cli.context:context", "The shared context: values, their versions, ages and conflicts."),
    "drift": ("tightship.cli.drift:drift", "Behaviour against a baseline, models, leaks, audits of outputs."),
    "halt": ("tightship.cli.halt:halt", "Stop a scope at once: a run, workflow, agent, tenant, or all."),
    "unhalt": ("tightship.cli.halt:unhalt", "Let a halted scope go on."),
    "audit": ("tightship.cli.audit:audit", "Verify, prove, export and rebuild the ledger."),
    "store": ("tightship.cli.store:store", "Copy the store between a folder and a database."),
    "serve": ("tightship.cli.serve:serve", "Pick up whatever is due until told to stop."),
    "worker": ("tightship.cli.worker:worker", "Be one of many that execute, on a store that all share."),
    "agents": ("tightship.cli.agents:agents", "List the agents; measure how well a classifier is calibrated."),
    "blueprint": ("tightship.cli.blueprint:blueprint", "Print a workflow's whole map as Markdown."),
    "drill": ("tightship.cli.drill:drill", "Break a workflow on purpose, and say what held."),
    "company": ("tightship.company.command:company", "The sample company: a practice world on loopback."),
    "demo": ("tightship.cli.demo:demo", "Run a template's team on the sample company and compare outcomes."),
}
"""Command -> where it stands, and its line in the help."""

_STUCK_SECONDS: Final = 0.5
"""How long threads that an agent has left behind may take to end before the process ends without them."""


class LazyGroup(click.Group):
    """A group whose commands are imported when one of them is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return the command."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The exit codes."""
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code), meaning) for code, meaning in EXIT_CODES.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tightship")
def root() -> None:
    """Run teams of agents durably, governed, and with a record of everything.

    Every command takes --workspace DIR (default: here), --json, and --debug (whole tracebacks).
    """


def main(args: Sequence[str] | None = None) -> int:
    """The entry point. With `args` None it is the process's own command line, and the process may end here.

    Returns: the exit code.
    """
    given = list(sys.argv[1:] if args is None else args)
    code = _run(given)
    if args is None:
        _leave(code)
    return code


def _run(args: list[str]) -> int:
    try:
        result = root.main(args, prog_name="tightship", standalone_mode=False)
    except click.exceptions.Abort:
        return INTERRUPTED
    except click.ClickException as error:
        _complain(error, "--json" in args)
        return USAGE if isinstance(error, click.UsageError) else ERROR
    except BrokenPipeError:
        # The reader of our output has gone (`| head`): nobody is left to be told.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ERROR
    return result if isinstance(result, int) else 0


def _complain(error: click.ClickException, as_json: bool) -> None:
    if not as_json:
        error.show()
        return
    import orjson

    said = {"error": "UsageError", "message": error.format_message()}
    click.echo(orjson.dumps(said).decode(), err=True)


def _leave(code: int) -> None:
    """End the process even though an agent's thread hangs; everything of ours is on the disk by now."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            code = code or ERROR
    left: list[Any] = [t for t in threading.enumerate() if t is not threading.main_thread() and not t.daemon]
    for thread in left:
        thread.join(_STUCK_SECONDS / len(left))
    if any(thread.is_alive() for thread in left):
        os._exit(code)

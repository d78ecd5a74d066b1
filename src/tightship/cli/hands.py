"""`tightship runs take`, `steps`, `do`, `edit`, `undo`, `give`, `stalled`: a person takes a run over.

All work beside a process that executes, and without one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import click

from tightship.cli._exit import DONE
from tightship.cli._shell import Shell, command, dumps, run_async
from tightship.cli._value import parse_value

if TYPE_CHECKING:
    from tightship.cli._open import Executing
    from tightship.runtime.operator import Operator
    from tightship.runtime.steps import StepState

_BY = click.option("--by", help="Who does it (default: whoever is logged in).")
_REASON = click.option("--reason", default="", help="Why; sealed like the values of the run, and erased with them.")


@click.command()
@click.argument("run")
@_BY
@_REASON
@command
def take(shell: Shell, run: str, by: str | None, reason: str) -> None:
    """Take RUN over: nothing new of it begins, what was sent settles, and it is yours until you give it back.

    Runs below it come along. Whoever takes it has to hold the role that gets the workflow's escalations.
    """
    who, state = run_async(lambda: _act(shell, by, lambda operator, name: operator.take(run, name, reason), run))
    shell.emit({"run": run, "taken": True, "state": state, **who.as_dict()})
    shell.say(f"{run} is in your hands", "good")
    if state not in ("parked", "queued"):
        _carried_out(shell, run, who, "what it had begun settles")
    shell.next_steps([(f"tightship runs steps {run}{shell.place}", "what is done, and what is open")])


@click.command()
@click.argument("run")
@_BY
@_REASON
@command
def give(shell: Shell, run: str, by: str | None, reason: str) -> None:
    """Give RUN back: it goes on from where it stands, with what was done by hand."""
    who, _ = run_async(lambda: _act(shell, by, lambda operator, name: operator.give(run, name, reason), run))
    shell.emit({"run": run, "taken": False, **who.as_dict()})
    shell.say(f"{run} is given back", "good")
    _carried_out(shell, run, who, "it goes on")


@click.command()
@click.argument("run")
@click.argument("step")
@click.option("--output", required=True, metavar="JSON", help="What the step gives (JSON, or plain text).")
@_BY
@_REASON
@command
def do(shell: Shell, run: str, step: str, output: str, by: str | None, reason: str) -> None:
    """Do STEP of RUN by hand: OUTPUT counts as what it gives, and its open questions are withdrawn.

    STEP is a key of `runs steps`, or a name that only one step has. The output has to have the declared shape.
    """
    value = parse_value(output, "--output")
    done: list[StepState] = []

    async def act(operator: Operator, name: str) -> None:
        done.append(await operator.do(run, step, value, name, reason))

    run_async(lambda: _act(shell, by, act, run))
    shell.emit({"run": run, "step": done[0].key, "done": "by hand"})
    shell.say(f"{done[0].key} is done by hand", "good")
    shell.next_steps([(f"tightship runs give {run}{shell.place}", "let the run go on")])


@click.command()
@click.argument("run")
@click.argument("change", metavar="NAME=JSON")
@_BY
@_REASON
@command
def edit(shell: Shell, run: str, change: str, by: str | None, reason: str) -> None:
    """Change what a finished step of RUN gave, for all that is still open. The old value stays in the log.

    Steps under way that had read it begin anew; finished ones keep what they gave and are named. It is refused where an
    action that used the old value stands: `runs undo` comes first.
    """
    name, equals, text = change.partition("=")
    if not equals:
        raise click.UsageError("write NAME=JSON")
    value = parse_value(text, name)
    kept: list[StepState] = []

    async def act(operator: Operator, person: str) -> None:
        kept.extend(await operator.edit(run, name, value, person, reason))

    run_async(lambda: _act(shell, by, act, run))
    shell.emit({"run": run, "name": name, "kept": [step.key for step in kept]})
    shell.say(f"{name} is changed for what is still open", "good")
    for step in kept:
        shell.say(f"  {step.key} had read the old value and keeps what it gave", "warn")


@click.command()
@click.argument("run")
@click.argument("step")
@_BY
@_REASON
@command
def undo(shell: Shell, run: str, step: str, by: str | None, reason: str) -> None:
    """Have a finished action of RUN undone by its declared compensation; the step is open again then."""

    async def act(operator: Operator, name: str) -> None:
        await operator.undo(run, step, name, reason)

    who, _ = run_async(lambda: _act(shell, by, act, run))
    shell.emit({"run": run, "step": step, "undoing": True, **who.as_dict()})
    shell.say(f"{step} is asked to be undone")
    _carried_out(shell, run, who, "it is undone")


@click.command()
@click.argument("run")
@click.option("--values", is_flag=True, help="What each finished step gave, and what open ones would be given.")
@command
def steps(shell: Shell, run: str, values: bool) -> None:
    """Show the steps of RUN as they stand: done and by whom, open, waiting, undone, not taken."""
    holder, found, names = run_async(lambda: _steps(shell, run))
    told = [{**step.as_dict(), "inputs": _inputs(step, names)} for step in found]
    shell.emit({"run": run, "held": holder, "steps": told, "values": dict(names)})
    shell.say(f"{run} is in the hands of {holder}" if holder else f"{run} is in nobody's hands", "head")
    rows = [(step.key, step.state, step.by, step.name, step.what or step.pattern) for step in found]
    shell.table(("step", "state", "by", "gives", "what"), rows, drop=("by", "what"))
    if values:
        for name, value in names.items():
            shell.say()
            shell.say(f"{name}:", "head")
            shell.say(dumps(value, indent=True))


@click.command()
@command
def stalled(shell: Shell) -> int:
    """List runs that stand still: what each waits for, and since when.

    Whoever executes finds and escalates what can never go on. What is listed besides waits for a process, or for code
    that is not here.
    """
    from tightship.insight._reading import clock

    found = run_async(lambda: _stalled(shell))
    shell.emit([stall.as_dict() for stall in found])
    if not found:
        shell.say("no run stands still")
        return DONE
    rows = [(stall.run, stall.workflow, stall.state, clock(stall.since), stall.waits_for) for stall in found]
    shell.table(("run", "workflow", "state", "since", "waits for"), rows, words=("waits for",), drop=("workflow",))
    return DONE


HANDS: Final = (take, steps, do, edit, undo, give, stalled)


# --- what they share ----------------------------------------------------------------------------------


async def _act(
    shell: Shell, by: str | None, act: Callable[[Operator, str], Awaitable[None]], run: str
) -> tuple[Executing, str]:
    """Do it; who executes, and the run's state afterwards."""
    from tightship.cli._open import executing_now, looking, person

    async with looking(shell) as workspace:
        await act(await workspace.operator(), person(by))
        return await executing_now(workspace), str((await workspace.row(run))["state"])


def _carried_out(shell: Shell, run: str, who: Executing, what: str) -> None:
    if who:
        shell.say(f"{who.one}: {what}")
    else:
        shell.say(f"no process executes here; {what} with: tightship runs resume {run}{shell.place}")


async def _steps(shell: Shell, run: str) -> tuple[str, list[StepState], Mapping[str, Any]]:
    from tightship.cli._open import looking

    async with looking(shell) as workspace:
        operator = await workspace.operator()
        return await operator.holder(run), await operator.steps(run), await operator.values(run)


def _inputs(step: StepState, names: Mapping[str, Any]) -> dict[str, Any]:
    """What a step is given, as far as it is known."""
    given = names.get("input")
    known = {**(given if isinstance(given, dict) else {}), **names}
    return {name: known[name] for name in sorted(step.reads) if name in known}


async def _stalled(shell: Shell) -> list[Any]:
    from tightship.cli._open import executing_now, looking
    from tightship.runtime.sweep import stalled as standing_still

    async with looking(shell) as workspace:
        bound = workspace.files.config.limits.stall
        ledger = await workspace.ledger()
        return await standing_still(ledger, workspace.world.clock.now(), bound, bool(await executing_now(workspace)))

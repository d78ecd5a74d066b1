"""`tightship diagnose`: where a run goes round in circles, and where to look for what went wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tightship.cli._shell import Shell, command, run_async

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.group()
def diagnose() -> None:
    """Look into logs of agents, Tightship's own or others': loops, and where a failure may come from."""


@diagnose.command()
@click.argument("file", type=_FILE)
@click.option("--threshold", type=click.FloatRange(0.0, 1.0), help="The score from which on it is a loop.")
@click.option("--model", "model_file", type=_FILE, metavar="FILE", help="A model fitted to other logs.")
@click.option("--all", "all_messages", is_flag=True, help="Print every message, not only where it loops.")
@command
def loops(shell: Shell, file: Path, threshold: float | None, model_file: Path | None, all_messages: bool) -> None:
    """Say for each message of FILE whether the run goes round in circles there, from the messages up to it.

    FILE holds messages with `role` and `content`: a JSON list, a JSON object with such a list under `messages` or
    `history`, or one message a line; - reads stdin.
    """
    from tightship.cli._messages import read_json, read_messages
    from tightship.controls.loop_verdicts import LoopModel, detect_loops

    model = None if model_file is None else LoopModel.read(read_json(model_file))
    verdicts = detect_loops(read_messages(file), model=model, threshold=threshold)
    found = [one for one in verdicts if one.looping]
    shell.emit({"messages": len(verdicts), "looping": len(found), "verdicts": verdicts})
    rows = [
        [one.position, "loop" if one.looping else "", f"{one.score:.2f}", one.kind, one.reason]
        for one in (verdicts if all_messages else found)
    ]
    if rows:
        shell.table(("message", "verdict", "score", "kind", "reason"), rows, ("message", "score"), ("reason",))
    shell.say(f"{len(found)} of {len(verdicts)} messages stand in a loop")


@diagnose.command()
@click.argument("file", type=_FILE, required=False)
@click.option("--run", default="", help="A run of this workspace, in place of a file.")
@click.option("--first", type=click.IntRange(1, 1000), default=5, show_default=True, help="So many steps.")
@command
def failure(shell: Shell, file: Path | None, run: str, first: int) -> None:
    """Rank the agents and steps of a failed run by the evidence against them.

    A ranking of evidence, and no finding: on public logs it was no better than always naming the same agent, and worse
    than always naming the same step. FILE is as for `diagnose loops`.
    """
    from tightship.insight.attribution import CAVEAT, attribute

    if (file is None) == (not run):
        raise click.UsageError("give either a FILE of messages or --run RUN")
    if file is None:
        found = run_async(lambda: _of_run(shell, run))
    else:
        from tightship.cli._messages import read_messages

        found = attribute(read_messages(file))
    shell.emit(found.as_dict())
    if not found.steps:
        shell.say("nothing in it speaks for any agent or step")
        return
    shell.say(CAVEAT, "warn")
    shell.table(("agent", "share"), [[one.name, f"{one.share:.0%}"] for one in found.agents], ("share",))
    shell.say()
    rows = [[one.name, one.agent, f"{one.share:.0%}", "; ".join(one.reasons)] for one in found.steps[:first]]
    shell.table(("step", "agent", "share", "reasons"), rows, ("share",), ("reasons",))


async def _of_run(shell: Shell, run: str) -> Any:
    from tightship.cli._open import looking
    from tightship.insight.attribution import attribute_run

    async with looking(shell) as workspace:
        await workspace.row(run)
        return attribute_run(await (await workspace.ledger()).run_entries(run))

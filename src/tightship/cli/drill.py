"""`tightship drill`: a workflow is broken on purpose, and what held is told."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tightship.cli._exit import DONE, ERROR
from tightship.cli._shell import Shell, command
from tightship.core.errors import WorkspaceError

if TYPE_CHECKING:
    from tightship.quality.drills import Verdict

_STYLE = {"held": "good", "did not hold": "bad", "does not apply": "dim"}


@click.command()
@click.argument("workflow", required=False)
@click.option("--only", multiple=True, metavar="DRILL", help="Carry out this drill alone; may be given again.")
@click.option("--input", "inputs", type=click.Path(path_type=Path), metavar="FILE", help="Inputs, one object a line.")
@click.option("--junit", "report", type=click.Path(path_type=Path), metavar="FILE", help="Write JUnit XML as well.")
@click.option("--list", "listed", is_flag=True, help="List the drills, and carry none out.")
@command
def drill(
    shell: Shell, workflow: str | None, only: tuple[str, ...], inputs: Path | None, report: Path | None, listed: bool
) -> int:
    """Break a workflow on purpose, and say what held. Exits with 1 when something did not hold.

    Everything happens in a scratch copy with a scratch store. The sample company, or answers made from the contracts,
    stand in for all systems; models answer by rehearsal; people approve. Nothing outside can be reached.
    """
    if listed:
        return _list(shell)
    from tightship.quality.drills import drill_workspace

    if inputs is not None and not inputs.is_file():
        raise WorkspaceError(f"there is no file {inputs}", fix="name a file with one JSON object a line")
    practice = import_module("tightship.company.practice").PracticeCompany
    drilled = drill_workspace(
        shell.folder, practice=practice, workflow=workflow, only=only, inputs=inputs, told=shell.note
    )
    verdicts = list(drilled)
    if report is not None:
        _write(report, verdicts)
    return _tell(shell, verdicts)


def _list(shell: Shell) -> int:
    from tightship.quality.drills import load_drills

    drills = load_drills()
    shell.emit([{"drill": one.name, "broken": one.broken, "fix": one.fix} for one in drills.values()])
    rows = [(one.name, one.broken, one.fix) for one in drills.values()]
    shell.table(("drill", "what is broken", "fix"), rows, words=("what is broken", "fix"))
    return DONE


def _write(report: Path, verdicts: list[Verdict]) -> None:
    from tightship.quality.drills.junit import junit

    try:
        report.write_bytes(junit(verdicts))
    except OSError as error:
        raise WorkspaceError(f"the report cannot be written: {error.strerror}", where=str(report)) from None


def _tell(shell: Shell, verdicts: list[Verdict]) -> int:
    counts = {state: sum(one.state == state for one in verdicts) for state in _STYLE}
    shell.emit({"drills": verdicts, "counts": counts, "seconds": round(sum(one.seconds for one in verdicts), 3)})
    rows = [(one.drill, one.state, _what(one), "\n".join(one.evidence[:2])) for one in verdicts]
    shell.table(
        ("drill", "", "what was broken, and what came of it", "ledger"),
        rows,
        words=("what was broken, and what came of it", "ledger"),
    )
    failed = [one for one in verdicts if one.state == "did not hold"]
    for one in failed:
        shell.say()
        shell.say(f"{one.drill} did not hold: {one.broken}", "bad")
        for problem in one.problems:
            shell.say(f"  - {problem}")
        shell.say(f"  fix: {one.fix}")
        shell.say(f"  in the scratch ledger: {'; '.join(one.evidence)}", "dim")
    shell.say()
    said = f"{counts['held']} held, {counts['did not hold']} did not, {counts['does not apply']} do not apply"
    shell.say(said, "bad" if failed else "good")
    return ERROR if failed else DONE


def _what(verdict: Verdict) -> str:
    if verdict.state == "does not apply":
        return verdict.why
    if verdict.state == "did not hold":
        return f"{verdict.broken}: {verdict.problems[0]}"
    apart = f"; not looked at: {verdict.why}" if verdict.why else ""
    return f"{verdict.broken}: {len(verdict.held)} things looked at{apart}"

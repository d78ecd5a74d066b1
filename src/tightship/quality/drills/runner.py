"""Carries drills out, one after the other, on a scratch copy of a workspace."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from importlib import import_module
from pathlib import Path
from typing import Final

from tightship.core.errors import TightshipError, UnknownName
from tightship.core.signals import Signal
from tightship.patterns import load_all
from tightship.quality.drills.bench import Bench, pick_workflow, scratch_copy
from tightship.quality.drills.outside import MakePractice
from tightship.quality.drills.registry import DRILLS, Drill, Report, Verdict
from tightship.runtime.simulation import Stuck
from tightship.workflow.loader import load_workspace
from tightship.workflow.source import did_you_mean

_FAMILIES: Final = ("processes", "systems", "roles", "drift", "loops", "data", "voters", "load", "interruptions")


def load_drills() -> dict[str, Drill]:
    """All drills by name."""
    for name in _FAMILIES:
        import_module(f"tightship.quality.drills.{name}")
    return DRILLS


def choose(names: Collection[str]) -> list[Drill]:
    """The drills of these names; all without names.

    Raises:
        UnknownName: there is none of a name.
    """
    known = load_drills()
    for name in names:
        if name not in known:
            raise UnknownName(f"there is no drill {name!r}", fix=did_you_mean(name, known))
    return [one for one in known.values() if not names or one.name in names]


def carry_out(drill: Drill, bench: Bench) -> Verdict:
    """One drill. What breaks the drill itself counts as something that did not hold: nobody knows that it does."""
    began, report = time.monotonic(), Report()
    why = drill.applies(bench)
    if not why:
        try:
            drill.play(bench, report)
        except Stuck as error:
            report.problems.append(f"everything waits for something that nobody will do: {error}")
        except (TightshipError, Signal) as error:
            report.problems.append(f"the run could not be carried out: {type(error).__name__}: {error}")
        except Exception as error:
            report.problems.append(f"the drill itself broke: {type(error).__name__}: {error}")
    looked = bool(report.held or report.problems)
    if not why and not looked:
        why = "; ".join(report.skipped) or "it found nothing to look at"
    state = "does not apply" if not looked else "did not hold" if report.problems else "held"
    return Verdict(
        bench.workflow,
        drill.name,
        drill.broken,
        state,
        report.held,
        report.problems,
        report.evidence,
        drill.fix,
        why or "; ".join(report.skipped),
        round(time.monotonic() - began, 3),
    )


def drill_workspace(
    folder: Path,
    *,
    practice: MakePractice,
    workflow: str | None = None,
    only: Collection[str] = (),
    inputs: Path | None = None,
    told: Callable[[str], None] = lambda text: None,
) -> Iterator[Verdict]:
    """Drill a workflow of a workspace, in a scratch copy that is removed afterwards.

    Args:
        folder: the workspace; nothing in it is changed.
        practice: makes the company to practise on.
        workflow: which; the only one, or the first, without it.
        only: names of drills; all without it.
        inputs: a file of inputs, one JSON object a line.
        told: hears what is being done.

    Raises:
        WorkspaceMissing, LoadError: the workspace is not right. UnknownName: no such workflow or drill.
        WorkspaceError: there is nothing to run on, or a contract would have to be fetched.
    """
    load_all()
    drills = choose(only)
    loaded = load_workspace(folder)
    name = pick_workflow(loaded.workspace.workflows, workflow, loaded.workspace.config.name)
    with tempfile.TemporaryDirectory(prefix="tightship-drill-") as place:
        told(f"a scratch copy of {name}, and its cases undisturbed")
        bench = Bench(scratch_copy(folder, Path(place).resolve() / "workspace"), name, practice, inputs)
        bench.learn()
        for drill in drills:
            told(drill.name)
            yield carry_out(drill, bench)

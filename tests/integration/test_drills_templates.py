"""Every drill holds on every template, or says why it does not apply: on the cases that `tightship drill` breaks."""

from __future__ import annotations

from pathlib import Path

import pytest

from tightship.cli.init import TEMPLATES, first_workflow, names
from tightship.company.practice import PracticeCompany
from tightship.quality.drills import carry_out, load_drills
from tightship.quality.drills.bench import Bench, scratch_copy

PROCESSES = {"kill", "frozen-worker"}
"""They take real time, and are tried on the shop of `test_drills_others.py`; `tightship drill` has them."""


@pytest.mark.parametrize("template", names())
def test_every_drill_holds_on_the_template(tmp_path: Path, template: str) -> None:
    folder = scratch_copy(TEMPLATES / template, tmp_path / "workspace")
    bench = Bench(folder, first_workflow(folder, template), PracticeCompany)
    bench.learn()
    assert bench.acting(), "no case comes to anything, so there is nothing to break"
    verdicts = [carry_out(one, bench) for name, one in load_drills().items() if name not in PROCESSES]
    assert [(one.drill, one.problems) for one in verdicts if one.state == "did not hold"] == []
    assert all(one.why for one in verdicts if one.state == "does not apply")
    assert "it found nothing to look at" not in [one.why for one in verdicts]
    assert sum(one.state == "held" for one in verdicts) >= 15


INNER = [
    (template, path.stem)
    for template in names()
    for path in sorted((TEMPLATES / template / "workflows").glob("*.yaml"))
    if path.stem not in ("intake", first_workflow(TEMPLATES / template, template))
]


@pytest.mark.parametrize(("template", "workflow"), INNER)
def test_a_workflow_that_others_start_is_drilled_with_what_they_start_it_with(
    tmp_path: Path, template: str, workflow: str
) -> None:
    folder = scratch_copy(TEMPLATES / template, tmp_path / "workspace")
    bench = Bench(folder, workflow, PracticeCompany, tries=12, kept=1)
    bench.learn()
    assert bench.acting() and all(case.origin is not None for case in bench.cases)
    verdicts = {
        name: carry_out(load_drills()[name], bench) for name in ("timeout", "outage", "halt", "saturated-queue")
    }
    assert {name: one.problems for name, one in verdicts.items() if one.state != "held"} == {}

"""Every drill holds on every template, or says why it does not apply."""

from __future__ import annotations

from pathlib import Path

import pytest

from tightship.cli.init import TEMPLATES, first_workflow, names
from tightship.company.practice import PracticeCompany
from tightship.insight.drift import told_apart
from tightship.quality.drills import carry_out, load_drills
from tightship.quality.drills.bench import Bench, scratch_copy

PROCESSES = {"kill", "frozen-worker"}
"""They take real time, and are tried on the shop of `test_drills_others.py`; `tightship drill` has them."""


@pytest.mark.parametrize("template", names())
def test_every_drill_holds_on_the_template(tmp_path: Path, template: str) -> None:
    folder = scratch_copy(TEMPLATES / template, tmp_path / "workspace")
    bench = Bench(folder, first_workflow(folder, template), PracticeCompany, tries=10, apart=told_apart, kept=1)
    bench.learn()
    assert bench.acting(), "no case comes to anything, so there is nothing to break"
    verdicts = [carry_out(one, bench) for name, one in load_drills().items() if name not in PROCESSES]
    assert [(one.drill, one.problems) for one in verdicts if one.state == "did not hold"] == []
    assert all(one.why for one in verdicts if one.state == "does not apply")
    assert sum(one.state == "held" for one in verdicts) >= 15

"""Drills: a workflow is broken on purpose, in a scratch copy and on stand-ins, and what held is told (W3, F1 to F14).

from tightship.quality.drills import drill_workspace

verdicts = drill_workspace(Path("."), practice=PracticeCompany)
"""

from tightship.quality.drills.registry import DRILLS, Drill, Report, Verdict, drill
from tightship.quality.drills.runner import carry_out, drill_workspace, load_drills

__all__ = ["DRILLS", "Drill", "Report", "Verdict", "carry_out", "drill", "drill_workspace", "load_drills"]

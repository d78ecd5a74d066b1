"""Kill -9 in the middle of two hundred agents in two levels: the next process finishes what is left, and only that."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

HOUSE = Path(__file__).parents[1] / "house.py"
AGENTS = 200


def live(folder: Path, *kill_at: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(HOUSE), str(folder), str(AGENTS), *kill_at]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)


def test_two_hundred_agents_in_two_levels_survive_two_kills(tmp_path: Path) -> None:
    for entries in ("120", "200"):
        assert live(tmp_path, entries).returncode == -signal.SIGKILL
    done = live(tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    assert (found["outcome"], found["made"]) == ("completed", 180)
    assert found["turns"] == 201 and found["most_turns"] == 1, "no turn that was recorded is taken again"
    assert found["ends"] == [1] and found["claims"] > 2

"""What lies beside this package, found as a module of its own: under pytest and as `python -m tests.simulation` alike."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from board_desk import held_by_one

__all__ = ["held_by_one"]

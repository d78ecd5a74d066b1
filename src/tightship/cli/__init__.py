"""The command line: `tightship COMMAND`. Commands are loaded when they are called, so that help is quick.

Exit codes, the same for every command, stand in `EXIT_CODES`.
"""

from __future__ import annotations

from tightship.cli._exit import EXIT_CODES
from tightship.cli._root import main

__all__ = ["EXIT_CODES", "main"]

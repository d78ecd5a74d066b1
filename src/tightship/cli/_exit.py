"""What the exit codes mean; `tightship --help` prints this table, and the documentation shows it."""

from __future__ import annotations

from typing import Final

DONE: Final = 0
ERROR: Final = 1
USAGE: Final = 2
UNFINISHED: Final = 3
BUSY: Final = 4
OVERLOADED: Final = 5
INTERRUPTED: Final = 130

EXIT_CODES: Final = {
    DONE: "done; every run has completed or waits for a person",
    ERROR: "an error, printed on stderr; also: `check`, `audit verify` or `demo` has found something wrong",
    USAGE: "the command was called wrongly",
    UNFINISHED: "it worked, and some runs were escalated, failed, cancelled, or their lines skipped",
    BUSY: "another process executes on this workspace; its process id is in the message",
    OVERLOADED: "too many runs wait already; nothing was started, and the message says when to come again",
    INTERRUPTED: "interrupted by Ctrl-C; what was under way can be resumed",
}
"""Exit code -> meaning."""

"""What a batch came to: the table at the end, and what to look at next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tightship.cli._exit import DONE, INTERRUPTED, UNFINISHED
from tightship.cli._shell import Shell
from tightship.cli._work import Record

_SHOWN = 5
_STATES = ("completed", "waiting", "escalated", "failed", "cancelled", "stopped", "error")
_MEANING = {
    "waiting": "for a person or a time",
    "stopped": "to be resumed",
    "error": "could not be started or continued",
}


def report(shell: Shell, figures: Mapping[str, Any], records: Sequence[Record]) -> None:
    """Print a batch's figures."""
    rows: list[tuple[str, str, str]] = []
    states: Mapping[str, int] = figures["states"]
    for state in _STATES:
        count = states.get(state, 0)
        if count or state in ("completed", "escalated", "failed"):
            rows.append((state, str(count), reasons(records, state) or _MEANING.get(state, "") * bool(count)))
    if figures["skipped"]:
        rows.append(("skipped", str(figures["skipped"]), "lines that do not fit, listed above"))
    count = max(1, figures["runs"])
    rows.append(("cost", f"${figures['cost']:.4f}", f"${figures['cost'] / count:.4f} a run, {figures['calls']} calls"))
    if figures["p50_seconds"] is not None:
        rows.append(("time", f"p50 {seconds(figures['p50_seconds'])}", f"p95 {seconds(figures['p95_seconds'])} a run"))
    rows.append(("budget", str(figures["budget_events"]), "alerts, questions and extensions"))
    rows.append(("in all", str(figures["runs"]), f"runs in {seconds(figures['wall_seconds'])}"))
    width = max(len(value) for _, value, _ in rows)
    for name, value, more in rows:
        shell.say(f"  {name:<11}{value:<{width}}   {more}".rstrip())


def reasons(records: Sequence[Record], state: str) -> str:
    """`data_missing 5, out_of_scope 4` of the runs in a state."""
    counts: dict[str, int] = {}
    for one in records:
        if one.state == state and one.reason:
            counts[one.reason] = counts.get(one.reason, 0) + 1
    return ", ".join(f"{reason} {count}" for reason, count in sorted(counts.items(), key=lambda item: (-item[1], item)))


def seconds(value: float) -> str:
    """A duration for people."""
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s" if value < 120 else f"{value / 60:.1f} min"


def next_steps(shell: Shell, records: Sequence[Record]) -> list[tuple[str, str]]:
    """Commands that go on from here: the runs that tell most come first."""
    place = shell.place
    found: list[tuple[str, str]] = []
    if any(one.state == "stopped" for one in records):
        found.append((f"tightship runs resume --all{place}", "continue what was stopped"))
    if any(one.waiting for one in records):
        found.append((f"tightship inbox list{place}", "what waits for people"))
    told = next((one for state in ("failed", "escalated", "waiting", "completed") for one in _of(records, state)), None)
    if told is not None:
        found.append((f"tightship runs show {told.run}{place}", f"a run that is {told.state}, step by step"))
        found.append((f"tightship runs why {told.run}{place}", "its decisions: data, rules, and who answers"))
    found.append((f"tightship costs --by agent{place}", "where the money went"))
    found.append((f"tightship audit verify{place}", "that nobody has changed the record"))
    return found


def _of(records: Sequence[Record], state: str) -> list[Record]:
    return [one for one in records if one.state == state]


def exit_code(records: Sequence[Record], skipped: int = 0, stopped: bool = False) -> int:
    """The exit code of a batch that was not ended by an error."""
    if stopped:
        return INTERRUPTED
    done = all(one.state in ("completed", "waiting") for one in records)
    return DONE if done and not skipped else UNFINISHED


def problems(shell: Shell, found: Sequence[Any], total: int) -> None:
    """Print lines that do not fit, on stderr; the first of many."""
    for problem in found[:_SHOWN] if len(found) > 2 * _SHOWN else found:
        shell.note(f"{problem.where}: {problem.message}")
        if problem.fix:
            shell.note(f"  fix: {problem.fix}")
    if len(found) > 2 * _SHOWN:
        shell.note(f"… and {len(found) - _SHOWN} more of {total} lines")

"""Drills on interruptions: the kill switch in mid-action, and a way back that fails (F9, F12)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from tightship.core import kinds
from tightship.core.errors import Unavailable, WriteFailed
from tightship.core.ports import Reply, Request
from tightship.quality.drills.judge import RESULT, judge_safe, last, told, unreported
from tightship.quality.drills.outside import Ask, Tap
from tightship.quality.drills.registry import Report, drill
from tightship.quality.drills.scene import Scene, play

if TYPE_CHECKING:
    from tightship.ledger import Entry
    from tightship.quality.drills.bench import Bench, Clean

BY: Final = "drill"
TRIES: Final = 30
"""Attempts at an undo after which it should have been given up."""


def _no_writes(bench: Bench) -> str:
    return "" if bench.acting(1) else "no case acts undisturbed"


def _nothing_to_halt(bench: Bench) -> str:
    why = _no_writes(bench)
    return why or ("" if any(clean.asked for clean in bench.acting()) else "no case asks a system")


@drill(
    "halt",
    broken="the workflow is halted while an action is under way, or a read where it only reads",
    fix="give every action an `undo`, or `undo: none` where there is none, and delete `undo_on_failure: false`",
    applies=_nothing_to_halt,
)
def halt(bench: Bench, report: Report) -> None:
    """Nothing begins after the halt; what was done is taken back or reported, and no result is given."""
    for clean in (one for one in bench.acting() if one.asked):
        _halted(bench, report, clean)


def _halted(bench: Bench, report: Report, clean: Clean) -> None:
    """Where nothing is written, it is halted while something is read."""
    scenes: list[Scene] = []
    halted_at: list[int] = []

    async def trouble(tap: Tap, request: Request, ask: Ask) -> Reply:
        reply = await ask()
        acting = scenes and (tap.spec.effect == "write" or not scenes[0].acts)
        if acting and not halted_at:
            halted_at.append(len(scenes[0].outside.asked))
            operator = await scenes[0].workspace.operator()
            await operator.halt(f"workflow:{bench.workflow}", BY, "a drill")
        return reply

    async def story(scene: Scene) -> None:
        await scene.prepare(clean.case)
        scenes.append(scene)
        run = await scene.run(clean.case)
        entries = await scene.entries()
        late = _after(entries)
        halts = [entry for entry in entries if entry.kind == kinds.HALT]
        report.hold(bool(halts), "it was halted", "the halt never came")
        report.hold(
            not late, "nothing began after the halt", f"{len(late)} effects began after the halt", late or halts
        )
        read = [one.name for one in scene.outside.asked[sum(halted_at[:1]) :] if one.effect == "read"]
        report.hold(not read, "nothing was read after the halt", f"{', '.join(read)} was read after the halt", halts)
        await judge_safe(report, scene, run, clean, f"case {clean.case.number}")

    play(bench, story, trouble=trouble)


def _after(entries: Sequence[Entry]) -> list[Entry]:
    """Effects that were begun after the halt and take nothing back."""
    at = next((entry.n for entry in entries if entry.kind == kinds.HALT), None)
    if at is None:
        return []
    begun = [entry for entry in entries if entry.kind == kinds.ADMITTED and entry.n > at]
    return [entry for entry in begun if entry.body.get("cls") != "undo"]


def undone_by(bench: Bench) -> dict[str, str]:
    """The actions that can be undone: the tool, and the one that undoes it."""
    found: dict[str, str] = {}
    for step in bench.steps("action"):
        undo = getattr(step.undo, "tool", None)
        if undo is not None:
            found[step.tool] = undo
    return found


def _no_undo(bench: Bench) -> str:
    if not bench.acting(1):
        return "no case acts undisturbed"
    if all(name == RESULT for clean in bench.acting() for name, _ in clean.writes):
        return "it writes nothing, so there is nothing to take back"
    undoes = undone_by(bench)
    if not any(name in undoes for clean in bench.acting() for name, _ in clean.writes):
        return "no action has an undo"
    return ""


@drill(
    "failing-undo",
    broken="a later step fails, and the undo of what was done before is refused for good",
    fix="delete `undo_on_failure: false`, and name who gets what remains (`escalate_to`)",
    applies=_no_undo,
)
def failing_undo(bench: Bench, report: Report) -> None:
    """What cannot be taken back is reported to a person, after a bounded number of tries."""
    undoes = undone_by(bench)
    clean = next(one for one in bench.acting() if any(name in undoes for name, _ in one.writes))
    first = next(name for name, _ in clean.writes if name in undoes)
    scenes: list[Scene] = []
    tried, done = [0], [0]

    async def trouble(tap: Tap, request: Request, ask: Ask) -> Reply:
        name = tap.spec.name
        if done[0] and name == undoes[first]:
            tried[0] += 1
            raise Unavailable(f"{name} is down")
        if done[0] and tap.spec.effect == "write":
            raise WriteFailed(f"{name} was refused")
        reply = await ask()
        if scenes and name == first:
            done[0] = 1
            if len(clean.writes) == 1:  # nothing comes after it that could fail
                operator = await scenes[0].workspace.operator()
                await operator.cancel(request.run, BY, "a drill")
        return reply

    async def story(scene: Scene) -> None:
        await scene.prepare(clean.case)
        scenes.append(scene)
        run = await scene.run(clean.case)
        report.hold(run.state == "ended", f"it ended ({told(run)})", "it never ends", last(run))
        left = await unreported(scene, run)
        items = [entry for entry in run.entries if entry.kind == kinds.OPENED]
        report.hold(
            not left and bool(items),
            f"a person was told that {first} remains, after {tried[0]} tries",
            f"{first} remains, and nobody was told",
            left or items,
        )
        often = f"{undoes[first]} was tried {tried[0]} times"
        report.hold(tried[0] <= TRIES, often, often, last(run))

    play(bench, story, trouble=trouble)

"""Drills on load and bounds: two runs for one key, an exhausted budget, a full queue, ten times the load (F5, F6,
F13)."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from tightship.core import kinds
from tightship.core.errors import Overloaded
from tightship.core.money import show_usd, to_nano
from tightship.core.ports import Reply, Request, Usage
from tightship.quality.drills.judge import RESULT, beyond, came_of, judge_safe, last, named, settled, told
from tightship.quality.drills.outside import Ask, Tap
from tightship.quality.drills.registry import Report, drill
from tightship.quality.drills.scene import Scene, play

if TYPE_CHECKING:
    from tightship.quality.drills.bench import Bench, Clean
    from tightship.runtime.result import Run

DEAR: Final = to_nano(1000)
"""What a call costs where no budget says what is too much."""
QUEUED: Final = 24
"""Runs that the drill's queue holds; the declared one may be longer, and is judged by how long it takes to drain."""
LONGEST: Final = 3600.0
"""Seconds that the last run of a full queue may have to wait, where the workflow has no `begin_within`."""
GROWTH: Final = 1.5
"""By how much the requests of a run may grow under load."""
SERVED: Final = 4
"""Calls that a system answers at a time under load; the others wait."""


def _writes_nothing(bench: Bench) -> str:
    done = {name for clean in bench.acting() for name, _ in clean.writes}
    if not done:
        return "no case acts undisturbed"
    return "it writes nothing, so nothing can be done twice" if done == {RESULT} else ""


@drill(
    "race",
    broken="two runs about the same case start at the same moment",
    fix="give the action `claim:` with its business key, for example `claim: '\"refund:\" + input.order_id'`",
    applies=_writes_nothing,
)
def race(bench: Bench, report: Report) -> None:
    """What is to be done once is done once."""
    for clean in bench.acting():

        async def story(scene: Scene, clean: Clean = clean) -> None:
            await scene.prepare(clean.case)
            runs = await asyncio.gather(scene.run(clean.case, "race-1"), scene.run(clean.case, "race-2"))
            what = f"case {clean.case.number}"
            for run in runs:
                report.hold(run.state == "ended", f"{what}: {told(run)}", f"{what}: a run never ends", last(run))
            ended = {run.id: run for run in runs}
            done = [one.write for run in ended.values() for one in await came_of(scene, run)]
            twice = beyond(done, clean.writes)
            evidence = [entry for run in runs for entry in settled(run)]
            report.hold(not twice, f"{what}: done once", f"{what}: also done was {named(twice)}", evidence)
            report.hold(
                any(run.outcome == "completed" for run in runs),
                f"{what}: one of them did it",
                f"{what}: none of them completed",
                [entry for run in runs for entry in last(run)],
            )

        play(bench, story)


def _free(bench: Bench) -> str:
    return "" if any(clean.asked for clean in bench.lively()) else "no case asks a system"


@drill(
    "exhausted-budget",
    broken="every call costs more than half of what the run may spend",
    fix="give the workflow `budget: {usd: 0.50, then: escalate}`",
    applies=_free,
)
def exhausted_budget(bench: Bench, report: Report) -> None:
    """A run spends what it may, and no more."""
    clean = next(one for one in bench.lively() if one.asked)
    allowed = bench.spec.budget.usd
    price = DEAR if not allowed else allowed * 6 // 10

    async def trouble(tap: Tap, request: Request, ask: Ask) -> Reply:
        reply = await ask()
        return Reply(reply.value, Usage(price), reply.meta)

    async def story(scene: Scene) -> None:
        await scene.prepare(clean.case)
        for tap in scene.taps.values():
            tap.spec_ = replace(tap.spec_, price=Usage(price))
        run = await scene.run(clean.case)
        most = allowed if allowed else DEAR
        spent, back = _spent(run)
        report.hold(
            spent <= most and (allowed is not None or run.outcome != "completed"),
            f"it spent {show_usd(spent)} of {show_usd(most)}{back} and ended ({told(run)})",
            f"it spent {show_usd(spent)} in {run.calls} calls, and nothing stopped it",
            [e for e in run.entries if e.kind == kinds.SETTLED and "refused" in e.body] or last(run),
        )
        await judge_safe(report, scene, run, clean, f"case {clean.case.number}")

    play(bench, story, trouble=trouble)


def _spent(run: Run) -> tuple[int, str]:
    """What a run and those below it have spent (nano-dollars), and in words what it cost to take things back: that is
    not refused to a run whose money has run out."""
    paid = [(e.body.get("cls") == "undo", int(e.body.get("usd", 0))) for e in run.entries if e.kind == kinds.SETTLED]
    back = sum(usd for undo, usd in paid if undo)
    return sum(usd for undo, usd in paid if not undo), f", {show_usd(back)} to take things back" if back else ""


@drill(
    "saturated-queue",
    broken="more runs are submitted than the queue holds",
    fix="lower `admission.queued`, raise `admission.running`, or give the workflow `begin_within`",
)
def saturated_queue(bench: Bench, report: Report) -> None:
    """What is too much is refused at once with a time to come again; what was taken in is done."""
    declared = bench.files.config.admission
    slowest = max(clean.seconds for clean in bench.lively())
    wait = declared.queued * slowest / declared.in_process
    within = bench.spec.begin_within or LONGEST
    report.hold(
        wait <= within,
        f"a full queue of {declared.queued} drains in {wait:.0f} s",
        f"a full queue of {declared.queued} takes {wait:.0f} s to drain, {declared.in_process} at a time: "
        f"the last waits longer than {within:.0f} s",
    )
    admission = declared.model_copy(update={"queued": min(declared.queued, QUEUED)})

    async def story(scene: Scene) -> None:
        taken, refused, hints = list[str](), 0, 0
        for number in range(2 * admission.queued):
            case = bench.cases[number % len(bench.cases)]
            try:
                taken.append(await scene.workspace.submit(bench.workflow, case.input, reference=f"queued-{number}"))
            except Overloaded as full:
                refused, hints = refused + 1, hints + bool(full.as_dict().get("retry_after"))
        report.hold(
            0 < len(taken) <= admission.queued and refused == hints,
            f"{len(taken)} were taken in, {refused} refused with a time to come again",
            f"{len(taken)} of {2 * admission.queued} were taken in, {refused} refused, {hints} with a time",
        )
        ended = await scene.serve(taken)
        report.hold(
            len(ended) == len(taken),
            f"all {len(taken)} came to an end",
            f"{len(taken) - len(ended)} of {len(taken)} that were taken in never ended",
            [entry for run in ended[:2] for entry in last(run)],
        )

    play(bench, story, config={"admission": admission})


@drill(
    "ten-times-load",
    broken="ten times the runs at once, and each system answers four calls at a time",
    fix="bound `admission.running`, and let agents wait for an answer in place of asking again",
    applies=_free,
)
def ten_times_load(bench: Bench, report: Report) -> None:
    """Ten times the users make ten times the requests, and nothing is lost."""
    cleans = [clean for clean in (bench.clean(case) for case in bench.cases) if clean.outcome == "completed"]
    cleans = cleans[:10] or bench.lively()
    places: dict[str, asyncio.Semaphore] = {}

    async def trouble(tap: Tap, request: Request, ask: Ask) -> Reply:
        system = tap.spec.name.partition(".")[0]
        async with places.setdefault(system, asyncio.Semaphore(SERVED)):
            return await ask()

    async def story(scene: Scene) -> None:
        for clean in cleans:
            await scene.prepare(clean.case)
        copies = _copies(cleans)
        todo = [(clean.case, f"load-{clean.case.number}-{at}") for clean in cleans for at in range(copies)]
        runs = await asyncio.gather(*(scene.run(case, reference) for case, reference in todo))
        alone = sum(clean.requests for clean in cleans) * copies
        made = len(scene.outside.asked)
        report.hold(
            made <= alone * GROWTH,
            f"{len(runs)} runs made {made} requests, alone they make {alone}",
            f"{len(runs)} runs made {made} requests, alone they make {alone}: requests grow with the load",
            [entry for run in runs[:2] for entry in last(run)],
        )
        stuck = [run for run in runs if run.state != "ended"]
        report.hold(not stuck, f"all {len(runs)} ended", f"{len(stuck)} of {len(runs)} never ended")
        given_up = [run for run in runs if run.reason in ("unavailable", "over_budget", "LimitReached", "AgentHung")]
        report.hold(
            not given_up,
            "none was given up for the load",
            f"{len(given_up)} of {len(runs)} were given up: {told(given_up[0]) if given_up else ''}",
            [entry for run in given_up[:3] for entry in last(run)],
        )

    play(bench, story, trouble=trouble)


def _copies(cleans: list[Clean]) -> int:
    """How often each case is run, so that there are ten runs at least."""
    return -(-10 // len(cleans))

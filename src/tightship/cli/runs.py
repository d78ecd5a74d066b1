"""`tightship runs …`: look at runs, follow them, move them on."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from tightship.cli._exit import DONE, ERROR, INTERRUPTED, UNFINISHED
from tightship.cli._shell import Shell, command, fail, run_async
from tightship.cli.hands import HANDS

if TYPE_CHECKING:
    from tightship.cli._open import Executing
    from tightship.ledger import Entry, Ledger
    from tightship.runtime.engine import Ended

_STATES = ("queued", "running", "parked", "completed", "escalated", "failed", "cancelled")


@click.group()
def runs() -> None:
    """List, show, explain, watch, resume, fork and cancel runs; take them over and give them back."""


# --- list ---------------------------------------------------------------------------------------------


@runs.command("list")
@click.option("--workflow", default="", help="Only this workflow's.")
@click.option("--tenant", default="", metavar="NAME", help="Only this tenant's.")
@click.option("--state", type=click.Choice(_STATES), help="Only runs in this state or with this outcome.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="The latest so many.")
@command
def list_(shell: Shell, workflow: str, tenant: str, state: str | None, limit: int) -> None:
    """List runs, the latest first."""
    rows, now = run_async(lambda: _rows(shell, workflow, tenant, state, limit))
    shell.emit([{**row, "cost": row["usd"] / 1e9} for row in rows])
    if not rows:
        shell.say("there are no such runs" if workflow or tenant or state else "nothing has been run yet")
        return
    from tightship.insight import row_line

    told = [row_line(row, now) for row in rows]
    columns = ("run", "workflow", "state", "reason", "started", "took", "cost", "calls", "reference")
    for line, row in zip(told, rows, strict=True):
        line["state"] += f", with {row['held']}" if row["held"] else ""
        line["state"] += ", its code is gone" if row["code_gone"] else ""
    cells = [[line[name] for name in columns] for line in told]
    shell.table(columns, cells, right=("took", "cost", "calls"), drop=("calls", "took", "started", "reference"))
    if len(rows) == limit:
        shell.note(f"the latest {limit}; --limit shows more")


async def _rows(
    shell: Shell, workflow: str, tenant: str, state: str | None, limit: int
) -> tuple[list[dict[str, Any]], float]:
    """The rows, and store time."""
    from tightship.cli._open import looking
    from tightship.runtime.build import build_id
    from tightship.runtime.leftover import left_behind

    where: list[tuple[str, str, Any]] = [("workflow", "=", workflow)] if workflow else []
    where += [("tenant", "=", tenant)] if tenant else []
    if state is not None:
        where.append(("state" if state in ("queued", "running", "parked") else "outcome", "=", state))
    async with looking(shell) as workspace:
        ledger = await workspace.ledger()
        rows = await ledger.select("runs", where, [("started_at", "desc")], limit)
        held = await (await workspace.operator()).held()
        gone = {row["id"] for row in await left_behind(ledger, build_id(workspace.files.code_hash))}
        told = [{**row, "held": held.get(row["id"], ""), "code_gone": row["id"] in gone} for row in rows]
        return told, ledger.world.clock.now()


# --- show, why ----------------------------------------------------------------------------------------


@runs.command()
@click.argument("run")
@click.option("--values", is_flag=True, help="Input, output and the escalation package as well.")
@click.option("--keys", is_flag=True, help="All steps with their keys, for `fork` and `why`; none is put together.")
@command
def show(shell: Shell, run: str, values: bool, keys: bool) -> None:
    """Show a run step by step: what was done, what it cost, exceptions, people, what remains."""
    from tightship.cli._case import rendered

    view, full, package = run_async(lambda: _show(shell, run, values))
    shell.emit({**view.as_dict(), **full})
    shell.say(view.render(keys))
    if values:
        from tightship.cli._shell import dumps

        for name in ("input", "output"):
            shell.say()
            shell.say(f"{name}:", "head")
            shell.say(dumps(full[name], indent=True))
    if package is not None:
        shell.say()
        shell.say(rendered(package))
    if full["held"]:
        shell.say(f"in the hands of {full['held']}: tightship runs steps {run}{shell.place}")
    for item in full.get("waiting", ()):
        shell.say(f"waits for a person: tightship inbox show {item}{shell.place}")


async def _show(shell: Shell, run: str, values: bool) -> tuple[Any, dict[str, Any], Any]:
    from tightship.cli._case import opened
    from tightship.cli._open import looking
    from tightship.insight import show as timeline

    async with looking(shell) as workspace:
        ledger = await workspace.ledger()
        row = await workspace.row(run)
        view = await timeline(ledger, run)
        whole = await workspace.result(run)
        given = await ledger.values([row["input"]], erased="(erased)")
        package = await opened(ledger, whole.package)
        held = await (await workspace.operator()).holder(run)
        full: dict[str, Any] = {"waiting": list(whole.waiting), "held": held}
        if values or shell.json:
            full |= {"input": given[row["input"]], "output": whole.output, "package": package}
        return view, full, package if isinstance(package, Mapping) else None


@runs.command()
@click.argument("run")
@click.option("--key", default="", help="Only decisions at or below this key.")
@command
def why(shell: Shell, run: str, key: str) -> None:
    """Explain each decision of a run: trigger, data with versions, rules, action, reason, and who answers for it."""
    from dataclasses import replace

    found = run_async(lambda: _why(shell, run))
    if key:
        below = tuple(one for one in found.decisions if one.key == key or one.key.startswith(f"{key}/"))
        found = replace(found, decisions=below)
    shell.emit(found.as_dict())
    shell.say(found.render())


async def _why(shell: Shell, run: str) -> Any:
    from tightship.cli._open import looking
    from tightship.insight import why as explained

    async with looking(shell) as workspace:
        return await explained(await workspace.ledger(), run)


# --- watch --------------------------------------------------------------------------------------------


@runs.command()
@click.argument("run", required=False)
@click.option("--all-entries", is_flag=True, help="Without RUN: from the beginning of the log, not from now on.")
@command
def watch(shell: Shell, run: str | None, all_entries: bool) -> int:
    """Print what happens as it happens: of RUN until it has ended, or of everything until Ctrl-C.

    Works beside a process that executes. With --json one entry a line.
    """
    return run_async(lambda: _watch(shell, run, all_entries))


async def _watch(shell: Shell, run: str | None, all_entries: bool) -> int:
    from tightship.cli._open import looking
    from tightship.cli._work import stoppable

    stop = asyncio.Event()
    async with looking(shell) as workspace:
        if run is not None:
            await workspace.row(run)
        queue: asyncio.Queue[Entry] = asyncio.Queue()
        async with workspace.following() as ledger, stoppable(shell, stop, quiet=True):
            await ledger.poll()  # from this position on, others' entries are told
            ledger.listen(lambda entries, foreign: _put(queue, entries))
            seen = await _past(shell, ledger, run, all_entries)
            if seen is None:
                return DONE
            return await _follow(shell, queue, stop, run, seen)


def _put(queue: asyncio.Queue[Entry], entries: Sequence[Entry]) -> None:
    for entry in entries:
        queue.put_nowait(entry)


async def _past(shell: Shell, ledger: Ledger, run: str | None, all_entries: bool) -> int | None:
    """Print what there is already; returns the last position, or None when the run has ended."""
    seen = 0
    if run is not None:
        for entry in await ledger.run_entries(run):
            seen = entry.n
            if _print_entry(shell, entry, run):
                return None
        return seen
    if not all_entries:
        return await ledger.head()
    while entries := await ledger.entries(after=seen):
        for entry in entries:
            _print_entry(shell, entry, run)
        seen = entries[-1].n
    return seen


async def _follow(shell: Shell, queue: asyncio.Queue[Entry], stop: asyncio.Event, run: str | None, seen: int) -> int:
    stopped = asyncio.ensure_future(stop.wait())
    try:
        while not stop.is_set():
            following = asyncio.ensure_future(queue.get())
            await asyncio.wait({following, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not following.done():
                following.cancel()
                break
            entry = following.result()
            if entry.n > seen and _print_entry(shell, entry, run):
                return DONE
    finally:
        stopped.cancel()
    return DONE if run is None else INTERRUPTED


def _print_entry(shell: Shell, entry: Entry, run: str | None) -> bool:
    """Print an entry of this run, or of any; true when the run has ended."""
    from tightship.core import kinds
    from tightship.insight import entry_line

    if run is not None and entry.run != run:
        return False
    shell.line(entry.as_dict())
    shell.say(entry_line(entry))
    return run is not None and entry.kind == kinds.ENDED


# --- resume -------------------------------------------------------------------------------------------


@runs.command()
@click.argument("run", nargs=-1)
@click.option(
    "--all", "everything", is_flag=True, help="Whatever is due: left by a process, answered, or its time has come."
)
@click.option("--accept-code", is_flag=True, help="Also runs that other code has started.")
@click.option("--rehearse", is_flag=True, help="Continue rehearsals instead of real runs.")
@command
def resume(shell: Shell, run: tuple[str, ...], everything: bool, accept_code: bool, rehearse: bool) -> int:
    """Continue runs until each waits or has ended. No settled effect is done or paid twice."""
    if bool(run) == everything:
        raise click.UsageError("name runs, or --all")
    if rehearse:
        shell.prefix = "[rehearsal] "
    return run_async(lambda: _resume(shell, run, accept_code, rehearse))


async def _resume(shell: Shell, wanted: Sequence[str], accept_code: bool, rehearse: bool) -> int:
    from tightship.cli._open import executing
    from tightship.cli._progress import progress
    from tightship.cli._work import stoppable

    async with executing(shell, rehearse) as workspace:
        await workspace.engine()
        due = list(wanted) or [row["id"] for row in await workspace.due()]
        stop = asyncio.Event()
        with progress(shell, "resume", len(due)) as bar:
            ledger = await workspace.ledger()
            left = set(due)
            ledger.listen(lambda entries, foreign: _count(entries, left, bar))
            async with stoppable(shell, stop):
                putting = asyncio.ensure_future(_put_down(workspace, stop))
                ended = await workspace.resume(wanted, accept_code) if due else []
                putting.cancel()
        return await _resumed(shell, workspace, ended, stop.is_set())


async def _put_down(workspace: Any, stop: asyncio.Event) -> None:
    await stop.wait()
    await workspace.put_down()


def _count(entries: Sequence[Entry], left: set[str], bar: Any) -> None:
    from tightship.core import kinds

    for entry in entries:
        if entry.kind in (kinds.ENDED, kinds.PARKED) and entry.run in left:
            left.discard(entry.run)
            bar.advance(entry.run)


async def _resumed(shell: Shell, workspace: Any, ended: Sequence[Ended], stopped: bool) -> int:
    reasons = await _reasons(await workspace.ledger(), [one.run for one in ended])
    told = [{"run": one.run, "state": one.state, "reason": reasons[one.run], **_error(one)} for one in ended]
    counts: dict[str, int] = {}
    for one in ended:
        counts[one.state] = counts.get(one.state, 0) + 1
    shell.emit({"runs": told, "states": counts})
    if not ended:
        shell.say("nothing is due")
        return DONE
    shell.table(("run", "state", "reason"), [(one["run"], one["state"], one["reason"]) for one in told])
    shell.say(", ".join(f"{count} {state}" for state, count in counts.items()))
    code = _print_errors(shell, ended)
    if code == DONE and any(state not in ("completed", "parked") for state in counts):
        code = UNFINISHED
    return INTERRUPTED if stopped else code


async def _reasons(ledger: Ledger, runs: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for start in range(0, len(runs), 500):
        rows = await ledger.select("runs", [("id", "in", list(runs[start : start + 500]))])
        found |= {row["id"]: row["reason"] for row in rows}
    return found


def _print_errors(shell: Shell, ended: Sequence[Ended]) -> int:
    """One error of each kind, and how many runs it keeps from going on; returns the exit code."""
    by_code: dict[str, list[Ended]] = {}
    for one in ended:
        if one.error is not None:
            by_code.setdefault(one.error.code, []).append(one)
    for found in by_code.values():
        if not shell.json and found[0].error is not None:
            fail(shell, found[0].error)
            if len(found) > 1:
                shell.note(f"  and {len(found) - 1} more runs like it")
    return ERROR if by_code else DONE


def _error(one: Ended) -> dict[str, Any]:
    return {} if one.error is None else {"error": one.error.as_dict()}


# --- cancel, fork -------------------------------------------------------------------------------------


@runs.command()
@click.argument("run")
@click.option("--by", help="Who cancels (default: whoever is logged in).")
@click.option("--reason", default="", help="Why; sealed like the values of the run, and erased with them.")
@command
def cancel(shell: Shell, run: str, by: str | None, reason: str) -> None:
    """Cancel a run: it undoes what it has done, in reverse order, and ends as cancelled."""
    who = run_async(lambda: _cancel(shell, run, by, reason))
    shell.emit({"run": run, "cancelling": True, **who.as_dict()})
    if not who:
        shell.say(f"{run} is asked to stop; no process executes here, so it ends with:")
        shell.say(f"  tightship runs resume {run}{shell.place}")
    else:
        shell.say(f"{run} is asked to stop; {who.one} carries it out")


async def _cancel(shell: Shell, run: str, by: str | None, reason: str) -> Executing:
    from tightship.cli._open import executing_now, looking, person

    async with looking(shell) as workspace:
        await (await workspace.operator()).cancel(run, person(by), reason)
        return await executing_now(workspace)


@runs.command()
@click.argument("run")
@click.option("--from", "key", default="", metavar="KEY", help="Replay what was recorded before this key.")
@click.option("--live", is_flag=True, help="Do writes for real from there on; without it they are rehearsed.")
@click.option("--by", help="Who forks it (default: whoever is logged in).")
@command
def fork(shell: Shell, run: str, key: str, live: bool, by: str | None) -> int:
    """Start a new run from RUN: the same input and definition, and what it recorded before KEY.

    From KEY on everything is done anew: reads and models for real, writes rehearsed unless --live. Without --from
    nothing is replayed. Keys stand in `runs show --keys` and `runs why`.
    """
    if not live:
        shell.prefix = "[writes rehearsed] "
    made, outcome = run_async(lambda: _fork(shell, run, key, live, by))
    shell.emit({"run": made, "forked": run, "from": key, "live": live, "state": outcome.state, "result": outcome})
    shell.say(f"{made} {outcome.outcome or outcome.state}{': ' + outcome.reason if outcome.reason else ''}", "head")
    for item in outcome.waiting:
        shell.say(f"waits for a person: tightship inbox show {item}{shell.place}")
    shell.next_steps([(f"tightship runs show {made}{shell.place}", "the new run, step by step")])
    return DONE if outcome.outcome in ("completed", "") else UNFINISHED


async def _fork(shell: Shell, run: str, key: str, live: bool, by: str | None) -> tuple[str, Any]:
    from tightship.cli._open import executing, person
    from tightship.runtime.fork import fork as forked

    async with executing(shell) as workspace:
        made = await forked(workspace, run, key, live=live, by=person(by))
        return made.id, made


for _command in HANDS:
    runs.add_command(_command)

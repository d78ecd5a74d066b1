"""`tightship run WORKFLOW`: a workflow on a file of inputs, or on one."""

from __future__ import annotations

import asyncio
import hashlib
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from tightship.cli._exit import ERROR
from tightship.cli._shell import Shell, as_error, command, fail, run_async
from tightship.core.errors import InputRejected, Overloaded

if TYPE_CHECKING:
    from tightship.cli._batch import Batch, Line
    from tightship.cli._work import Record, Work
    from tightship.runtime.workspace import Workspace
    from tightship.workflow.models import WorkflowSpec


@dataclass(frozen=True, slots=True)
class Options:
    """How `run` was called."""

    workflow: str
    input: str | None
    data: str | None
    concurrency: int
    keep_going: bool
    rehearse: bool
    batch: str
    new: bool
    linked: str
    detach: bool
    by: str
    tenant: str = "default"
    priority: int | None = None


def _tenant(_: click.Context, __: click.Parameter, name: str) -> str:
    """A tenant's name, as plain as what is typed elsewhere to name it: blanks around it would make another tenant."""
    if not name.strip() or name != name.strip() or len(name) > 200 or not name.isprintable():
        raise click.BadParameter("a name has 1 to 200 printable characters, and no blanks around them")
    return name


@click.command()
@click.argument("workflow")
@click.option("--input", "-i", metavar="FILE|-", help="A file with one JSON object a line; - reads stdin.")
@click.option("--data", "-d", metavar="JSON", help="One input, as a JSON object.")
@click.option("--concurrency", "-c", type=click.IntRange(1, 1000), default=16, show_default=True, help="Runs at once.")
@click.option("--keep-going", is_flag=True, help="Skip lines that do not fit; without it nothing is started then.")
@click.option("--rehearse", is_flag=True, help="Generated outputs in place of agents and tools; costs nothing.")
@click.option("--batch", default="", metavar="NAME", help="The batch's name (default: the hash of the input).")
@click.option("--new", is_flag=True, help="Run everything anew, whatever was run before.")
@click.option("--linked", default="", metavar="RUN", help="An earlier run that this one follows.")
@click.option("--detach", is_flag=True, help="Queue the runs for `serve` or workers, and do not wait for them.")
@click.option("--by", default="", help="Who starts them (default: whoever is logged in); see `four_eyes`.")
@click.option("--tenant", default="default", callback=_tenant, metavar="NAME", help="Whose runs they are.")
@click.option(
    "--priority", type=click.IntRange(0, 9), default=None, help="0 goes first, 9 last (default: the workflow's own)."
)
@command
def run(shell: Shell, **options: Any) -> int:
    """Run WORKFLOW on every line of a file (--input), or on one input (--data).

    A line is one JSON object with the workflow's declared input. Its `id` names the piece of work within the batch
    (without one, a hash of its content does), so that the same file again continues what is unfinished and returns what
    is done, and does nothing twice. A field `expected` is set aside and never given to the workflow.

    Ctrl-C stops starting runs, lets writes that are under way settle, and leaves the rest to `runs resume --all`.
    """
    chosen = Options(**options)
    if (chosen.input is None) == (chosen.data is None):
        raise click.UsageError("give either --input FILE or --data JSON")
    if chosen.batch and chosen.new:
        raise click.UsageError("--new makes a batch of its own; leave out --batch")
    if chosen.detach and chosen.rehearse:
        raise click.UsageError("a rehearsal is carried out here; leave out --detach")
    if chosen.rehearse:
        shell.prefix = "[rehearsal] "
    return run_async(lambda: _run(shell, chosen))


async def _run(shell: Shell, options: Options) -> int:
    from tightship.cli._open import executing

    async with executing(shell, options.rehearse) as workspace:
        spec = workspace.files.workflow(options.workflow)
        with _read(workspace, spec, options) as batch:
            return await _carry_out(shell, options, workspace, batch)


def _read(workspace: Workspace, spec: WorkflowSpec, options: Options) -> Batch:
    """The lines, judged."""
    from tightship.cli._batch import REHEARSED, Batch, open_source, parse
    from tightship.core.ids import new_id

    name = new_id("b", workspace.world) if options.new or options.rehearse else options.batch
    limit = workspace.files.config.settings.input_bytes
    if options.data is not None:
        try:
            parse(options.data)
        except InputRejected as error:
            raise InputRejected(error.message, where="--data", fix=error.fix) from None
        one = options.data.replace("\n", " ").encode()
        name = name or hashlib.sha256(one).hexdigest()[:12]
        batch = Batch(io.BytesIO(one), "--data", spec, name, limit)
    else:
        source, label = open_source(options.input or "-")
        with source:
            batch = Batch(source, label, spec, name, limit)
    if options.rehearse:
        batch.name = REHEARSED + batch.name
    return batch


async def _carry_out(shell: Shell, options: Options, workspace: Workspace, batch: Batch) -> int:
    from tightship.cli._report import exit_code, problems, report
    from tightship.cli._report import next_steps as following
    from tightship.cli._work import summary

    total = batch.fitting + len(batch.problems)
    if not batch.problems or options.keep_going:
        before = await batch.compare(await workspace.ledger(), options.tenant)
    else:
        before = 0
    if batch.problems:
        problems(shell, batch.problems, total)
        if not options.keep_going:
            return _refuse(shell, batch, total)
    if not total:
        raise InputRejected("there are no lines in it", where=batch.label, fix="give one JSON object a line")
    if options.detach:
        return await _leave(shell, options, workspace, batch)
    if before:
        shell.note(
            f"{before} of {total} were run before in batch {batch.name}: continued or returned (--new runs anew)"
        )
    work = await work_through(shell, options, workspace, batch)
    figures = summary(work.records, work.seconds, len(batch.problems))
    document: dict[str, Any] = {"workflow": options.workflow, "batch": batch.name, "rehearsal": options.rehearse}
    document |= {"summary": figures, "runs": work.records, "problems": batch.problems}
    if work.fatal is not None:
        document["error"] = as_error(work.fatal)
    shell.emit(document)
    if options.data is not None and work.records:
        await _print_one(shell, workspace, work.records[0])
    elif work.records or work.fatal is None:
        shell.say(f"{options.workflow}, batch {batch.name}", "head")
        report(shell, figures, work.records)
    if work.fatal is not None:
        return _ended_early(shell, options, work, batch)
    stopped = work.stop.is_set()
    if stopped:
        shell.say(f"stopped; {batch.fitting - len(work.records)} of {total} lines were not begun", "warn")
        again = f"tightship runs resume --all{shell.place}"
        shell.say(f"`{again}` continues what was begun; the same command again does the rest as well")
    shell.next_steps(following(shell, work.records))
    return exit_code(work.records, len(batch.problems), stopped)


async def _leave(shell: Shell, options: Options, workspace: Workspace, batch: Batch) -> int:
    """Queue every line; whoever executes takes them up."""
    from tightship.cli._open import person
    from tightship.cli._progress import progress

    runs: list[dict[str, Any]] = []
    with progress(shell, options.workflow, batch.fitting) as bar:
        for line in batch.lines():
            run = await queue(shell, options, workspace, line, person(options.by))
            runs.append({"line": line.number, "reference": line.reference, "run": run})
            bar.advance(run)
    shell.emit({"workflow": options.workflow, "batch": batch.name, "queued": runs, "problems": batch.problems})
    shell.say(f"{len(runs)} runs of {options.workflow} are queued, batch {batch.name}", "head")
    shell.next_steps(
        [
            (f"tightship runs list{shell.place}", "how they stand"),
            (f"tightship serve{shell.place}", "execute them here, unless workers do"),
        ]
    )
    return 0


async def queue(shell: Shell, options: Options, workspace: Workspace, line: Line, by: str) -> str:
    """Queue a line; gives its run. One of a file waits for room, as it does where it is carried out here.

    Raises:
        Overloaded: too many wait already, and it is the only one.
    """
    told = False
    while True:
        try:
            return await workspace.submit(
                options.workflow,
                line.input,
                reference=line.reference,
                tenant=options.tenant,
                priority=options.priority,
                linked=options.linked,
                by=by,
            )
        except Overloaded as error:
            if options.data is not None:
                raise
            if not told:
                shell.note(f"line {line.number} waits for room: {error.message}")
            told = True
            await asyncio.sleep(error.retry_after)


async def work_through(shell: Shell, options: Options, workspace: Workspace, batch: Batch) -> Work:
    """Carry out a batch with progress, until it is done or somebody asks to stop."""
    from tightship.cli._open import person
    from tightship.cli._progress import progress
    from tightship.cli._work import Work, stoppable

    await workspace.engine()
    workspace.load_code([options.workflow])
    stop = asyncio.Event()
    concurrency = min(options.concurrency, max(1, batch.fitting))
    with progress(shell, options.workflow, batch.fitting) as bar:

        def watch(line: Any, done: Record, run: Any) -> None:
            bar.advance(f"{done.run or done.reference} {done.state}")

        work = Work(
            workspace,
            options.workflow,
            batch.lines(),
            concurrency,
            keep_going=options.keep_going,
            linked=options.linked,
            by=person(options.by),
            tenant=options.tenant,
            priority=options.priority,
            outputs=shell.json,
            patient=options.data is None,
            watch=watch,
            stop=stop,
        )
        async with stoppable(shell, stop):
            await work.run()
    return work


def _refuse(shell: Shell, batch: Batch, total: int) -> int:
    """Lines that do not fit, and nothing was started."""
    error = InputRejected(
        f"{len(batch.problems)} of {total} lines do not fit, and nothing was started",
        where=batch.problems[0].where,
        fix="correct them, or skip them with --keep-going",
    )
    if shell.json:
        shell.emit({"problems": batch.problems, "runs": []})
    return fail(shell, error)


def _ended_early(shell: Shell, options: Options, work: Work, batch: Batch) -> int:
    """What ended the batch, and how the rest is done once that is mended."""
    assert work.fatal is not None
    code = fail(shell, work.fatal)
    left = batch.fitting - len(work.records)
    begun = sum(record.state == "stopped" for record in work.records)
    if begun or not left:
        shell.note(f"ended early; nothing is lost: {begun or 'what was'} under way is continued by")
        shell.note(f"  tightship runs resume --all{shell.place}")
    if left:
        anew = f", with --batch {batch.name} in place of --new," if options.new else ""
        shell.note(f"{left} of {batch.fitting} lines were not begun; the same command{anew} does them as well")
    return code or ERROR


async def _print_one(shell: Shell, workspace: Workspace, record: Record) -> None:
    """One run in full: its output, or why there is none."""
    from tightship.cli._case import opened, rendered
    from tightship.cli._report import seconds
    from tightship.cli._shell import dumps

    if not record.run:
        return
    shell.say(f"{record.run} {record.state}{': ' + record.reason if record.reason else ''}", "head")
    run = await workspace.result(record.run)
    if run.output is not None:
        shell.say(dumps(run.output, indent=True))
    if run.package is not None:
        package = await opened(await workspace.ledger(), run.package)
        shell.say(rendered(package, taken=len(shell.prefix)))
    for item in record.waiting:
        shell.say(f"waits for a person: tightship inbox show {item}{shell.place}")
    shell.say(f"${record.usd / 1e9:.4f}, {record.calls} calls, {seconds(record.seconds)}")

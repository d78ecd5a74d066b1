"""`tightship demo`: a template's team at work on the sample company, each outcome beside the expected one."""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import orjson

from tightship.cli._exit import DONE, ERROR, INTERRUPTED
from tightship.cli._shell import Shell, as_error, command, fail, run_async
from tightship.core.errors import Unavailable, WorkspaceError

if TYPE_CHECKING:
    from tightship.cli._expect import Verdict
    from tightship.cli._work import Work
    from tightship.runtime.workspace import Workspace

MARK: Final = ".tightship-demo"
"""A file that says that a folder was made by this command, which may therefore make it anew."""
DECLARED_PORT: Final = 8765
_ADDRESS: Final = re.compile(r"(127\.0\.0\.1|localhost):(\d+)")
_CONNECTORS: Final = re.compile(r"^connectors:", re.MULTILINE)
_LOG: Final = "company.log"
_FAULTS: Final = "faults.json"
_TOKEN: Final = "COMPANY_TOKEN"
_STARTS: Final = 3
"""How often the company is started: somebody else may take the port between two moments."""
_READY_SECONDS: Final = 30
_BATCH: Final = "demo"


@click.command()
@click.option("--dir", "folder", type=click.Path(path_type=Path), default="demo", show_default=True, help="Where.")
@click.option("--template", default="support", show_default=True, help="Whose team.")
@click.option("--keep", is_flag=True, help="Go on in the folder of an earlier demo instead of making it anew.")
@click.option("--concurrency", "-c", type=click.IntRange(1, 1000), default=16, show_default=True, help="Runs at once.")
@command
def demo(shell: Shell, folder: Path, template: str, keep: bool, concurrency: int) -> int:
    """Make a workspace from a template, start the sample company on loopback, and let the team do its work.

    Each line of the template's input says what should come of it; the demo compares, and exits with 1 when not all
    agree. What a template's faults.json names fails for a while meanwhile. The workspace stays, so that everything it
    prints at the end can be tried.
    """
    shell.folder = folder
    _prepare(shell, folder, template, keep)
    with _company(shell, folder):
        return run_async(lambda: _demo(shell, template, concurrency))


# --- the folder and the company -----------------------------------------------------------------------


def _prepare(shell: Shell, folder: Path, template: str, keep: bool) -> None:
    """Make the demo's workspace, unless an earlier one is to be kept.

    Raises:
        WorkspaceError: the folder holds something else.
    """
    from tightship.cli.init import make_workspace

    if folder.exists() and any(folder.iterdir() if folder.is_dir() else [folder]):
        if not (folder / MARK).is_file():
            raise WorkspaceError(
                f"{folder} holds something that no demo has made", fix="name another folder with --dir, or remove it"
            )
        if keep:
            return
        try:
            shutil.rmtree(folder)
        except OSError as error:
            raise WorkspaceError(f"the earlier demo cannot be removed: {error.strerror}", where=str(folder)) from None
    shell.note(f"making {folder} from the template {template}")
    make_workspace(folder, template)
    (folder / MARK).write_text("Made by `tightship demo`, which may make this folder anew.\n")


def _use_port(config: Path) -> None:
    """Point the workspace's connector at a port of this machine that is free now: its own, else the template's."""
    text = config.read_text()
    found = _ADDRESS.search(text)
    if found is None:
        raise WorkspaceError(
            "its connector does not point to this machine", where=str(config), fix="run it without --keep"
        )
    port = _free_port(int(found[2]))
    config.write_text(_ADDRESS.sub(rf"\g<1>:{port}", text))


def _free_port(*wanted: int) -> int:
    """The first of these ports that is free, or any that is."""
    for port in (*wanted, DECLARED_PORT, 0):
        with contextlib.suppress(OSError), socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", port))
            return int(listener.getsockname()[1])
    raise Unavailable("no port of this machine is free")


@contextmanager
def _company(shell: Shell, folder: Path) -> Generator[None]:
    """The sample company as a process of its own, for as long as the block runs; nothing without connectors."""
    if not _needs_company(folder):
        yield
        return
    process, told = _started(folder)
    try:
        shell.note(f"the sample company listens on {told.get('url')} (process {told.get('pid')})")
        yield
    finally:
        _end(process)


def _needs_company(folder: Path) -> bool:
    return _CONNECTORS.search((folder / "tightship.yaml").read_text()) is not None


def _started(folder: Path) -> tuple[subprocess.Popen[bytes], Mapping[str, Any]]:
    """The company, ready, and what it says of itself.

    Raises:
        Unavailable: it did not start.
    """
    for _ in range(_STARTS):
        _use_port(folder / "tightship.yaml")
        process = _start(folder)
        told = _first_line(process)
        if told is not None:
            return process, told
        _end(process)
    log = folder / _LOG
    said = log.read_text(errors="replace").strip().splitlines()
    raise Unavailable(f"the sample company did not start: {said[-1] if said else 'it said nothing'}", where=str(log))


def _start(folder: Path) -> subprocess.Popen[bytes]:
    with (folder / _LOG).open("ab") as errors:
        return subprocess.Popen(
            [sys.executable, "-m", "tightship", "company", "serve", "-w", str(folder), "--until-closed"],
            stdin=subprocess.PIPE,  # closed when this process ends, however it ends: then the company ends as well
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,  # Ctrl-C is for the demo, which ends the company itself
        )


def _first_line(process: subprocess.Popen[bytes]) -> Mapping[str, Any] | None:
    """What the company says when it is ready; None when it ended or said nothing in time."""
    import select

    assert process.stdout is not None
    until = time.monotonic() + _READY_SECONDS
    while time.monotonic() < until and process.poll() is None:
        if select.select([process.stdout], [], [], 0.2)[0]:
            line = process.stdout.readline()
            with contextlib.suppress(orjson.JSONDecodeError):
                return orjson.loads(line)
            return None
    return None


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()


# --- the work -----------------------------------------------------------------------------------------


async def _demo(shell: Shell, template: str, concurrency: int) -> int:
    from tightship.cli._open import executing
    from tightship.cli.init import first_workflow

    began = time.monotonic()
    async with executing(shell) as workspace:
        inputs = sorted(workspace.files.root.glob("*.jsonl"))
        if not inputs:
            raise WorkspaceError(f"the template {template} has no file of inputs", fix="choose another template")
        if "intake" in workspace.files.workflows:
            filed, _ = await _work(shell, workspace, "intake", inputs[0], concurrency)
            if filed.fatal is not None or filed.stop.is_set():
                return _ended_early(shell, filed)
        await _break_down(shell, workspace)
        workflow = first_workflow(workspace.files.root, template)
        work, verdicts = await _work(shell, workspace, workflow, inputs[0], concurrency)
        if work.fatal is not None or work.stop.is_set():
            return _ended_early(shell, work)
    return _tell(shell, template, inputs[0], work, verdicts, time.monotonic() - began)


async def _break_down(shell: Shell, workspace: Workspace) -> None:
    """Let systems of the sample company fail for a while, where the template's faults.json says so.

    Raises:
        Unavailable: the company did not take it.
    """
    faults = workspace.files.root / _FAULTS
    if not faults.is_file():
        return
    import httpx2

    from tightship.connectors.secrets import default_secrets

    connector = next(iter(workspace.files.config.connectors.values()))
    token = default_secrets(workspace.files.root).get(_TOKEN)
    async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}) as client:
        answer = await client.put(f"{connector.base_url}/_faults", json=orjson.loads(faults.read_bytes()))
    if not answer.is_success:
        raise Unavailable(f"the sample company did not take {_FAULTS}: {answer.text[:200]}", where=str(faults))
    shell.note(f"some of its systems fail for a while, as {faults} says")


async def _work(
    shell: Shell, workspace: Workspace, workflow: str, inputs: Path, concurrency: int
) -> tuple[Work, list[Verdict]]:
    """Run a workflow on the file, and compare what comes with what was expected."""
    import asyncio

    from tightship.cli._batch import Batch, open_source
    from tightship.cli._expect import Comparison
    from tightship.cli._progress import progress
    from tightship.cli._work import Work, stoppable

    spec = workspace.files.workflow(workflow)
    source, label = open_source(str(inputs))
    limit = workspace.files.config.settings.input_bytes
    await workspace.engine()
    comparison, stop = Comparison(), asyncio.Event()
    with source, Batch(source, label, spec, _BATCH, limit) as batch, progress(shell, workflow, batch.fitting) as bar:

        def watch(line: Any, record: Any, run: Any) -> None:
            bar.advance(f"{record.reference.rpartition('/')[2]} {record.state}")
            comparison.add(record, line.expected, () if run is None else run.entries)

        lines = batch.lines()
        work = Work(workspace, workflow, lines, concurrency, keep_going=True, outputs=True, watch=watch, stop=stop)
        async with stoppable(shell, stop):
            await work.run()
    return work, await comparison.verdicts(await workspace.ledger())


def _ended_early(shell: Shell, work: Work) -> int:
    if work.fatal is not None:
        shell.emit({"error": as_error(work.fatal)})
        return fail(shell, work.fatal)
    shell.say("stopped; `tightship demo --keep` goes on", "warn")
    return INTERRUPTED


# --- what came of it ----------------------------------------------------------------------------------


def _tell(shell: Shell, template: str, inputs: Path, work: Work, verdicts: Sequence[Verdict], seconds: float) -> int:
    from tightship.cli._report import next_steps, report
    from tightship.cli._work import summary

    agreed = [verdict for verdict in verdicts if not verdict.differences]
    figures = summary(work.records, work.seconds)
    shell.emit(
        {
            "workspace": str(shell.folder),
            "template": template,
            "summary": figures,
            "agreed": len(agreed),
            "compared": len(verdicts),
            "verdicts": verdicts,
            "seconds": round(seconds, 3),
        }
    )
    rows = [(v.reference, v.case, v.expected, v.got, "; ".join(v.differences) or "yes") for v in verdicts]
    one = inputs.stem.removesuffix("s")  # tickets.jsonl holds tickets
    shell.table((one, "case", "expected", "got", "agrees"), rows, words=("case", "expected", "got", "agrees"))
    shell.say()
    report(shell, figures, work.records)
    shell.say()
    all_agree = len(agreed) == len(verdicts)
    shell.say(f"{len(agreed)} of {len(verdicts)} outcomes are as expected", "good" if all_agree else "bad")
    failed = next((one for one in work.records if one.error is not None), None)
    if failed is not None and failed.error is not None:
        shell.note(f"{failed.reference}: {failed.error.get('message')}")
    told = "; the sample company was stopped, its records are in company.db there" * _needs_company(shell.folder)
    shell.say(f"The workspace is {shell.folder}{told}.")
    steps = next_steps(shell, work.records)
    if _needs_company(shell.folder):
        steps.append((f"tightship company serve{shell.place}", "the company again, for whatever is to go on"))
    steps.append((f"tightship runs resume --all{shell.place}", "carry out what people have decided (with the company)"))
    shell.next_steps(steps)
    return DONE if all_agree and verdicts else ERROR

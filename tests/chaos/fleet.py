"""Workers as real processes on one Postgres store, a sample company over HTTP, and what both say at the end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from cli_desk import environment
from cli_warm import Forked, warm
from tightship import Workspace
from tightship.company import Company, CompanySettings, running
from tightship.core import kinds
from tightship.ledger import Ledger
from tightship.ledger.audit import verify

DESK = Path(__file__).parent / "desk"
ADDRESS = "http://127.0.0.1:1"
TOKEN = "practice"
PATIENCE = 300.0
"""Seconds after which what has to happen counts as not happening."""
WORKFLOW = "settle"
SLOW, QUICK = 1.5, 0.05
"""Seconds that the company takes for each call: while runs are to be under way, and once they are to end."""


def program(before: str) -> tuple[str, ...]:
    """The command line in a process that does something else first."""
    return "-c", f"{before}\nfrom tightship.cli import main\nmain()"


def wrong_clock(ahead: float) -> tuple[str, ...]:
    """The command line on a machine whose clock is so many seconds ahead."""
    return program(f"import time; right = time.time; time.time = lambda: right() + {ahead}")


class Worker:
    """One `tightship worker` as a process of its own.

    Args:
        program: what the interpreter runs where it is to be started anew (`program`); else the worker is forked.
    """

    def __init__(self, folder: Path, number: int, store: str = "", program: Sequence[str] = ()) -> None:
        self.log = folder / f"worker-{number}.log"
        env = {**environment(), "COMPANY_TOKEN": TOKEN, **({"STORE": store} if store else {})}
        args = ("worker", "-w", str(folder), "-c", "8", "--json")
        with self.log.open("w") as log:
            self.process: Forked | subprocess.Popen[bytes] = (
                subprocess.Popen([sys.executable, *program, *args], stdout=log, stderr=log, env=env)
                if program
                else warm().start(args, Path.cwd(), env, log)
            )

    def events(self) -> list[dict[str, Any]]:
        """The JSON lines that it has printed."""
        lines = self.log.read_text(errors="replace").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    @property
    def owner(self) -> str:
        """The name under which it began to own runs."""
        return next(event["owner"] for event in self.events() if event.get("event") == "ready")

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def end(self) -> None:
        """End it for good, whatever state it is in."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE)


class Fleet:
    """A workspace on Postgres with its company, and the workers that were started on it."""

    def __init__(self, folder: Path, workspace: Workspace, ledger: Ledger, url: str) -> None:
        self.folder = folder
        self.workspace = workspace
        self.ledger = ledger
        self.company = url
        self.workers: list[Worker] = []

    async def start(
        self, count: int = 1, store: str = "", program: Sequence[str] = (), folder: Path | None = None
    ) -> list[Worker]:
        """So many more workers. They are ready when this returns.

        Args:
            store: another way to the same store. program: what runs. folder: another copy of the workspace.
        """
        at = folder or self.folder
        fresh = [Worker(at, len(self.workers) + n, store, program) for n in range(count)]
        self.workers += fresh
        for worker in fresh:
            await self.until(lambda worker=worker: bool(worker.events()), lambda worker=worker: worker.log.read_text())
        return fresh

    async def submit(self, count: int, tenant: str = "default", start: int = 0) -> list[str]:
        """So many runs, each of an order of its own; `start`: orders that are left to others."""
        state = Company(":memory:").state()
        paid = {payment["order_id"] for payment in state["payments"]} - {one["order_id"] for one in state["refunds"]}
        orders = [order for order in state["orders"] if order["status"] == "delivered" and order["id"] in paid]
        tickets = [ticket["id"] for ticket in state["tickets"] if ticket["status"] != "closed"]
        assert len(orders) >= start + count
        return [
            await self.workspace.submit(
                WORKFLOW,
                {"ticket": tickets[n % len(tickets)], "order": order["id"], "customer": order["customer_id"]},
                reference=order["id"],
                tenant=tenant,
            )
            for n, order in enumerate(orders[start : start + count])
        ]

    async def rows(self) -> list[dict[str, Any]]:
        """The runs as they stand."""
        return await self.ledger.select("runs", [], [("started_at", "asc")])

    async def under_way(self, worker: Worker) -> int:
        """How many runs a worker owns."""
        return sum(row["state"] == "running" and row["owner"] == worker.owner for row in await self.rows())

    async def busy(self, number: int, more: Callable[[], Awaitable[object]] | None = None) -> Worker:
        """Wait until a worker, by its number, is in the middle of runs.

        Args:
            number: of the worker. more: submits further runs, where the others were through before it had any.
        """
        worker = self.workers[number]

        async def is_busy() -> bool:
            if await self.under_way(worker):
                return True
            rows = await self.rows()
            over = rows and all(row["state"] == "ended" for row in rows)
            if over and more is not None:
                await more()
                return False
            assert not over, f"all ended before it had any: {worker.log.read_text()}"
            return False

        await self.until(is_busy, worker.log.read_text)
        return worker

    async def until(self, holds: Callable[[], Any], told: Callable[[], object] = lambda: "") -> float:
        """Wait until something holds; returns how long it took (s)."""
        began = time.monotonic()
        while True:
            found = holds()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return time.monotonic() - began
            assert time.monotonic() - began < PATIENCE, f"it does not happen: {told()}"
            await asyncio.sleep(0.05)

    async def all_ended(self) -> bool:
        """Whether every run has ended."""
        return all(row["state"] == "ended" for row in await self.rows())

    async def finish(self) -> float:
        """Let the company be quick from now on, and wait until every run has ended."""
        await self.slow(QUICK)
        return await self.until(self.all_ended, lambda: "\n".join(w.log.read_text()[-1500:] for w in self.workers))

    async def fault(self, **fault: Any) -> None:
        """Break the company on purpose."""
        await asyncio.to_thread(self._ask, "/_faults", {"faults": [fault]})

    async def slow(self, seconds: float) -> None:
        """The company takes so long for each call from now on."""
        await self.fault(kind="latency", operation="*", seconds=seconds)

    def _ask(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        request = urllib.request.Request(self.company + path, data, headers, method="GET" if data is None else "PUT")
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read() or b"null")

    async def problems(self, runs: list[str]) -> list[str]:
        """Where the end differs from what was promised: every run completed once, every write was done once."""
        rows = {row["id"]: row for row in await self.rows()}
        found = [
            f"{run} {rows[run]['outcome']} {rows[run]['reason']}: {await self._failures(run)}"
            for run in runs
            if rows[run]["outcome"] != "completed"
        ]
        writes = _writes(await asyncio.to_thread(self._ask, "/_ledger"))
        done = Counter(
            (write["operation"], write["body"].get("order_id") or write["body"].get("body")) for write in writes
        )
        found += [f"done {count} times: {write}" for write, count in done.items() if count != 1]
        if len(done) != 2 * len(runs):
            found.append(f"{len(done)} writes were done for {len(runs)} runs")
        entries = await self.entries()
        ends = Counter(entry.run for entry in entries if entry.kind == kinds.ENDED)
        found += [f"{run} ended {ends[run]} times" for run in runs if ends[run] != 1]
        settled = Counter(
            (entry.run, entry.key) for entry in entries if entry.kind == kinds.SETTLED and not entry.body.get("again")
        )
        found += [f"settled {count} times: {effect}" for effect, count in settled.items() if count > 1]
        audit = await verify(self.ledger)
        return found + [str(finding) for finding in audit.findings]

    async def _failures(self, run: str) -> list[str]:
        """What failed in a run, and when (s from its start)."""
        entries = await self.ledger.run_entries(run)
        failed = [entry for entry in entries if "error" in entry.body]
        return [f"{one.at - entries[0].at:.1f} {one.kind} {one.key} {one.body['error']}" for one in failed]

    async def entries(self) -> list[Any]:
        """All entries of all logs that have runs, in order of store time."""
        found: list[Any] = []
        for log in {row["log"] for row in await self.rows()}:
            after = 0
            while page := await self.ledger.entries(after, 1000, log):
                found += page
                after = page[-1].n
        return sorted(found, key=lambda entry: entry.at)


def _writes(ledger: Any) -> list[dict[str, Any]]:
    rows = ledger if isinstance(ledger, list) else next(found for found in ledger.values() if isinstance(found, list))
    return [row for row in rows if row["operation"] in ("refunds.create", "helpdesk.reply")]


@contextlib.asynccontextmanager
async def fleet(folder: Path, store: str, files: Mapping[str, str] | None = None) -> AsyncGenerator[Fleet]:
    """A desk on this store (a URL), with a company that is slow until `finish`; `files` are put beside its own."""
    desk = folder / "desk"
    shutil.copytree(DESK, desk, ignore=shutil.ignore_patterns("__pycache__"))
    (desk / "company.json").write_bytes(resources.files("tightship.company").joinpath("openapi.json").read_bytes())
    for name, text in (files or {}).items():
        (desk / name).write_text(text)
    async with running(CompanySettings(0, folder / "company.db", token=TOKEN)) as company:
        config = desk / "tightship.yaml"
        text = config.read_text().replace(ADDRESS, company.url).replace("store: sqlite:.tightship", f"store: '{store}'")
        text = text.replace("timeout: 1s", "timeout: 10s")  # a busy machine is no fault of the company's
        config.write_text(text)
        async with Workspace.open(desk) as workspace:
            made = Fleet(desk, workspace, await workspace.ledger(), company.url)
            await made.slow(SLOW)
            try:
                yield made
            finally:
                for worker in made.workers:
                    with contextlib.suppress(ProcessLookupError):
                        worker.signal(signal.SIGCONT)
                    worker.end()

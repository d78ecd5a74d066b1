"""Cases of killing: each has a workspace, a sample company and processes of its own.

    python tests/chaos/cases.py 12:before 12:after     kill there, restart, compare; exit code 1 on a difference
    python tests/chaos/cases.py 12:after,3:before      kill the process that goes on as well, at its third point
    python tests/chaos/cases.py 12:after!key           with the connector broken on purpose (driver.py says how)
    python tests/chaos/cases.py                        the undisturbed run and its points

CHAOS_STORE is the URL of a Postgres server's database, and each case then has a schema of its own there; with the
word `postgres` a server is started for that.

CHAOS_PLAY=orders drives sagas in place of refunds (driver.py).
CHAOS_SET=errands drives a manager in place of the tickets.
CHAOS_KEEP names a folder to which what is left of a case with a difference is copied.

The processes are forked from one that has loaded everything, since loading is most of what a short process does. Each
is a real process with its own loop, threads and files: SIGKILL takes all of it, and what goes on starts from the disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import os
import re
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
import traceback
import urllib.request
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

import driver
import orjson

import postgres_desk
from tightship import Workspace
from tightship.company import Company, CompanySettings, running
from tightship.core.money import to_nano
from tightship.ledger._pg import Address, connect

DESK = Path(__file__).parent / "desk"
ADDRESS = "http://127.0.0.1:1"
"""What stands in the desk's tightship.yaml for the company's address."""
FOLDER = "sqlite:.tightship"
"""What stands there for the store."""
TOKEN = "practice"
LATE = ("anyio._backends._asyncio", "certifi", "encodings.idna", "httpcore2", "truststore",
        "tightship.connectors.python", "tightship.connectors.secrets")  # fmt: skip
"""Modules that are loaded when they are needed: here, before any process is forked."""
PATIENCE = 180.0
"""Seconds after which a process counts as hanging."""


@dataclass(slots=True)
class Case:
    """What came of one case.

    Attributes:
        killed: how many processes were. report: the driver's own. state: of the company, in canonical form.
        writes: what the company did, each as operation, path and body. tokens: by which each was known.
        billed: what the company charged (nano-dollars). error: why there is nothing to compare.
    """

    name: str
    killed: int = 0
    report: dict[str, Any] = field(default_factory=dict[str, Any])
    state: dict[str, Any] = field(default_factory=dict[str, Any])
    writes: list[str] = field(default_factory=list[str])
    tokens: list[str] = field(default_factory=list[str])
    billed: int = 0
    error: str = ""


class Life(NamedTuple):
    """One process: how it begins (driver.py), and what its environment says."""

    restart: str
    env: Mapping[str, str]

    def live(self, folder: Path, log: Path) -> int:
        """Its exit code."""
        return _wait(_fork(lambda: driver.main(folder, self.restart), self.env, log))


class Bench:
    """Prepares folders, starts processes, and reads what is left of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._desk = folder / "desk"
        shutil.copytree(DESK, self._desk, ignore=shutil.ignore_patterns("__pycache__"))
        contract = resources.files("tightship.company").joinpath("openapi.json").read_bytes()
        (self._desk / "company.json").write_bytes(contract)
        self._company = folder / "company.db"
        Company(self._company).close()
        for name in LATE:
            importlib.import_module(name)
        Workspace.open(self._desk)  # loaded here once, not by every process
        gc.freeze()  # nor is it looked through by every process for what may go

    def undisturbed(self) -> Case:
        """All tickets by one process."""
        return self._case("undisturbed", [Life("again", {})])

    def killed(self, name: str) -> Case:
        """A process is killed where the case's name says, and the next goes on, until one is left alone.

        What goes on first resumes all that was left after an odd point, and runs the same references again after an
        even one.

        Args:
            name: `POINT:SIDE[,POINT:SIDE][!BREAK]`.
        """
        kills, _, broken = name.partition("!")
        lives, restart = list[Life](), "again"
        for kill in kills.split(","):
            point, side = kill.split(":")
            lives.append(Life(restart, {"CHAOS_POINT": point, "CHAOS_SIDE": side, "CHAOS_BREAK": broken}))
            restart = "resume" if point[-1] in "13579" else "again"
        return self._case(name, [*lives, Life(restart, {"CHAOS_BREAK": broken})])

    def _case(self, name: str, lives: Sequence[Life]) -> Case:
        case, folder = Case(name), self.folder / name
        shutil.copytree(self._desk, folder)
        database = folder / "company.db"
        store = _store_of(folder)
        for suffix in ("", "-wal", "-shm"):
            found = self._company.with_name(self._company.name + suffix)
            if found.exists():
                shutil.copy(found, database.with_name(database.name + suffix))
        company, url = _start_company(database)
        try:
            config = folder / "tightship.yaml"
            config.write_text(
                config.read_text().replace(ADDRESS, url).replace(FOLDER, f"'{store}'" if store else FOLDER)
            )
            self._live(case, folder, lives)
            case.state = _ask(url, "/_state")["state"]
            for write in _rows(_ask(url, "/_ledger")):
                case.writes.append(_written(write))
                case.tokens.append(f"{write['operation']} {write['idempotency_key'] or write['client_ref']}")
        finally:
            os.kill(company, signal.SIGKILL)
            os.waitpid(company, 0)
            _drop(store)
        with sqlite3.connect(database) as db:
            case.billed = sum(to_nano(usd) for (usd,) in db.execute("SELECT usd FROM charges"))
        db.close()
        return case

    def _live(self, case: Case, folder: Path, lives: Sequence[Life]) -> None:
        for number, life in enumerate(lives, start=1):
            log = folder / f"process-{number}.log"
            status = life.live(folder, log)
            if status == -signal.SIGKILL and number < len(lives):
                case.killed += 1
            elif status != 0:
                case.error = f"process {number} ended with {status}: {_last_words(log)}"
                return
        case.report = orjson.loads((folder / "report.json").read_bytes())


def problems(case: Case, calm: Case) -> list[str]:
    """Where a case differs from the undisturbed one, or breaks a promise."""
    if case.error:
        return [case.error]
    found: list[str] = []
    report, expected = case.report, calm.report
    if report["audit"]:
        return [f"audit: {finding}" for finding in report["audit"]]
    for name in ("outcomes", "effects"):
        told, wanted = _settled_race(report[name]), _settled_race(expected[name])
        found += [f"{name} of {key}: {told[key]}, not {wanted[key]}" for key in wanted if told[key] != wanted[key]]
    found += [f"the company's {table} differ" for table in calm.state if case.state[table] != calm.state[table]]
    more, less = Counter(case.writes) - Counter(calm.writes), Counter(calm.writes) - Counter(case.writes)
    found += [f"done too often: {write}" for write in more] + [f"never done: {write}" for write in less]
    found += [f"done twice under one token: {token}" for token, count in Counter(case.tokens).items() if count > 1]
    found += [f"did not end exactly once: {run}" for run in report["not_ended_once"]]
    found += [f"settled twice: {effect}" for effect in report["settled_twice"]]
    if report["runs"] != expected["runs"]:
        found.append(f"there are {report['runs']} runs, not {expected['runs']}")
    if report["usd"] < case.billed:
        found.append(f"the company charged {case.billed} nano-dollars, the runs know of {report['usd']}")
    return found


def _settled_race(values: Mapping[str, Any]) -> dict[str, Any]:
    """By name; the racing runs together, in an order that does not say which of them won."""
    told = {name: value for name, value in values.items() if name not in driver.RACE}
    return told | {"the race": sorted((values[name] for name in driver.RACE if name in values), key=orjson.dumps)}


def _written(write: Mapping[str, Any]) -> str:
    body = {name: value for name, value in write["body"].items() if name != "client_ref"}
    return f"{write['operation']} {write['path']} {orjson.dumps(body, option=orjson.OPT_SORT_KEYS).decode()}"


# --- stores on a server ---------------------------------------------------------------------------------


def _store_of(folder: Path) -> str:
    """The URL of a case's own store, empty where it is a folder."""
    given = os.environ.get("CHAOS_STORE", "")
    if given == "postgres":
        given = postgres_desk.server().url("").partition("schema=")[0].rstrip("?&")
    if not given:
        return ""
    schema = f"case_{os.getpid()}_{re.sub('[^a-z0-9]', '_', folder.name)}"[:50]
    return f"{given}{'&' if '?' in given else '?'}schema={schema}"


def _drop(store: str) -> None:
    """Throw a case's schemas away: hundreds of them would slow the server's catalogue down."""
    if not store or os.environ.get("CHAOS_KEEP"):
        return
    address = Address.of(store)
    with contextlib.closing(connect(address)) as db:
        db.execute(f"DROP SCHEMA IF EXISTS {address.schema}, {address.schema}_keys CASCADE".encode())


# --- processes ------------------------------------------------------------------------------------------


def _fork(work: Callable[[], None], env: Mapping[str, str], log: Path) -> int:
    """A child process that does this work. Nothing of it comes back but its exit code and its log."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.environ.update(env, COMPANY_TOKEN=TOKEN)
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _wait(child: int) -> int:
    """The child's exit code, negative for a signal; a child that hangs is killed, and counts as 124."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return 124


def _start_company(database: Path) -> tuple[int, str]:
    """The sample company as a process of its own on TCP: its id and its address."""
    reader, writer = os.pipe()

    async def serve() -> None:
        async with running(CompanySettings(0, database, token=TOKEN)) as service:
            os.write(writer, service.url.encode())
            os.close(writer)
            await asyncio.Event().wait()

    child = _fork(lambda: asyncio.run(serve()), {}, database.with_name("company.log"))
    os.close(writer)
    with os.fdopen(reader) as told:
        url = told.read()
    if not url:
        os.waitpid(child, 0)
        raise RuntimeError(f"the company did not start: {_last_words(database.with_name('company.log'))}")
    return child, url


def _ask(url: str, path: str) -> Any:
    request = urllib.request.Request(url + path, headers={"Authorization": f"Bearer {TOKEN}"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return orjson.loads(answer.read())


def _rows(answer: Any) -> list[dict[str, Any]]:
    return answer if isinstance(answer, list) else next(rows for rows in answer.values() if isinstance(rows, list))


def _last_words(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


# --- the command ----------------------------------------------------------------------------------------


def main(wanted: Sequence[str]) -> int:
    """Run these cases and print one JSON line for each; the first is the undisturbed run."""
    with tempfile.TemporaryDirectory(prefix="tightship-chaos-") as folder:
        bench = Bench(Path(folder))
        calm = bench.undisturbed()
        _tell({"case": calm.name, "error": calm.error, "report": calm.report, "writes": calm.writes})
        if calm.error:
            return 1
        bad = False
        for name in wanted:
            began = time.monotonic()
            case = bench.killed(name)
            found = problems(case, calm)
            bad = bad or bool(found)
            seconds = round(time.monotonic() - began, 3)
            _tell({"case": name, "killed": case.killed, "problems": found, "seconds": seconds})
            if found and os.environ.get("CHAOS_KEEP"):
                shutil.copytree(bench.folder / case.name, Path(os.environ["CHAOS_KEEP"]) / case.name)
            shutil.rmtree(bench.folder / case.name)
    return 1 if bad else 0


def _tell(line: Mapping[str, Any]) -> None:
    sys.stdout.write(orjson.dumps(line).decode() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

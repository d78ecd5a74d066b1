"""Measure Tightship, its peers and the physical limits in one call, side by side, and write the result file.

`python -m benchmarks.run [--quick] [--figures NAME,…] [--peers-only] [--out FILE]`

Every side is measured in processes of its own, one at a time. In each round the sides take turns and the order turns
round from one round to the next (ours, langgraph, dbos, physical, then backwards), so that a machine that slows down
or speeds up does not favour one side. The median over the rounds counts. Nothing is pinned to a processor.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path

from benchmarks import postgres, startup, table
from benchmarks.figures import FIGURES, MEASUREMENTS, Figure, Measurement
from benchmarks.harness import PATIENCE_S, ROOT, Report, last_line, report
from benchmarks.peers import environment
from benchmarks.startup import Starts

STORES = Path(__file__).resolve().parent / ".stores"
RESULTS = Path(__file__).resolve().parent / "results"

QUIET_BUSY = 0.15
"""Share of all processors that other work may use before a measurement; above it the result says so."""


@dataclass(frozen=True, slots=True)
class Side:
    """Who is measured: the module that does it, the interpreter that runs it, and what its start-up consists of."""

    name: str
    module: str
    python: Path
    starts: Starts
    on_postgres: str = ""
    """The module that measures it on Postgres."""


@dataclass(slots=True)
class Log:
    """What a reader of the figures wants to know about the call: machine, versions, loads, failures, details."""

    machine: dict[str, object]
    versions: dict[str, dict[str, str]] = field(default_factory=dict)
    busy_before: list[float | None] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    details: list[dict[str, object]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def quiet(self) -> bool:
        """Whether nothing else used the machine before any measurement."""
        return all(busy is None or busy <= QUIET_BUSY for busy in self.busy_before)


def sides(peers_python: Path) -> dict[str, Side]:
    """All sides by name."""
    ours, peers = Path(sys.executable), peers_python
    graph = "from langgraph.graph import StateGraph"
    saver = "from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver"
    dbos = "from dbos import DBOS"
    listed = (
        Side(
            "ours",
            "benchmarks.ours",
            ours,
            Starts("import tightship", "from tightship import Workspace", (str(ours.with_name("tightship")), "--help")),
            "benchmarks.ours_postgres",
        ),
        Side(
            "langgraph",
            "benchmarks.peers.langgraph_sqlite",
            peers,
            Starts(graph, f"{graph}; {saver}", None),
            "benchmarks.peers.langgraph_postgres",
        ),
        Side(
            "dbos",
            "benchmarks.peers.dbos_sqlite",
            peers,
            Starts(dbos, dbos, (str(peers.with_name("dbos")), "--help")),
            "benchmarks.peers.dbos_postgres",
        ),
        Side("physical", "benchmarks.physical", ours, Starts(None, None, (str(ours), "-c", "pass"))),
    )
    return {side.name: side for side in listed}


def measure(
    chosen: Sequence[Measurement], all_sides: Mapping[str, Side], *, size: str, rounds: int | None, log: Log
) -> table.Samples:
    """Run the measurements; a side that fails is noted in the log and left out of the table."""
    samples = table.Samples()
    for measurement in chosen:
        asked = [all_sides[name] for name in measurement.sides if name in all_sides]
        failed: set[str] = set()
        for number in range(rounds or measurement.rounds):
            for side in asked if number % 2 == 0 else asked[::-1]:
                if side.name in failed:
                    continue
                _announce(measurement, side, number, log)
                try:
                    found = _start_up(side) if measurement.name == "startup" else _ask(side, measurement, size)
                except (OSError, ValueError, subprocess.SubprocessError) as error:
                    failed.add(side.name)
                    log.failures.append(f"{side.name}, {measurement.name}: {_explain(error)}")
                    print(f"  FAILED: {log.failures[-1]}", file=sys.stderr, flush=True)
                    continue
                samples.add(side.name, found["figures"], found["others"], found["notes"])
                log.versions.setdefault(side.name, {}).update(found["versions"])
                log.details.append({"side": side.name, "measurement": measurement.name, **found["detail"]})
    return samples


def _ask(side: Side, measurement: Measurement, size: str) -> Report:
    """One measurement by one side in a process of its own, on an empty store that is removed afterwards."""
    with _store() as store:
        module = measurement.module or (side.on_postgres if measurement.postgres else side.module)
        command = [str(side.python), "-m", module, measurement.name, "--store", str(store / "side"), "--size", size]
        with (
            postgres.serving(store / "server", measurement.loopback) if measurement.postgres else nullcontext("") as url
        ):
            done = subprocess.run(
                command,
                cwd=ROOT,
                check=True,
                capture_output=True,
                text=True,
                timeout=1.5 * PATIENCE_S,
                env=os.environ | ({postgres.VARIABLE: url} if url else {}),
            )
        return json.loads(last_line(done.stdout))


def _start_up(side: Side) -> Report:
    return report(side.name, "startup", startup.measure(side.python, side.starts), {})


@contextmanager
def _store() -> Generator[Path]:
    """An empty folder on the disk of the checkout; a temporary folder of the system may lie in memory."""
    STORES.mkdir(exist_ok=True)
    path = Path(tempfile.mkdtemp(dir=STORES))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _explain(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        said = str(error.stderr or error.stdout or "").strip().splitlines()
        return f"exit code {error.returncode}: " + " | ".join(said[-4:])
    return str(error)


def _announce(measurement: Measurement, side: Side, number: int, log: Log) -> None:
    busy = _busy()
    log.busy_before.append(busy)
    others = "" if busy is None else f", other work uses {busy:.0%} of the processors"
    warning = "  <-- NOT QUIET: a smoke check, not a measurement" if busy and busy > QUIET_BUSY else ""
    line = f"{measurement.name:<13} round {number + 1}  {side.name:<10} load {os.getloadavg()[0]:.2f}{others}{warning}"
    print(line, file=sys.stderr, flush=True)


def _busy() -> float | None:
    """Share of all processors in use while none of our processes works (half a second); None where /proc is missing."""
    before = _jiffies()
    if before is None:
        return None
    time.sleep(0.5)
    after = _jiffies()
    assert after is not None
    total, idle = after[0] - before[0], after[1] - before[1]
    return round(1 - idle / total, 3) if total else 0.0


def _jiffies() -> tuple[int, int] | None:
    """All and idle time of all processors since boot, from the first line of /proc/stat (idle + iowait)."""
    try:
        first = Path("/proc/stat").read_text().splitlines()[0]
    except OSError:
        return None
    numbers = [int(word) for word in first.split()[1:9]]
    return sum(numbers), numbers[3] + numbers[4]


def _machine() -> dict[str, object]:
    return {
        "system": platform.platform(),
        "processors": os.cpu_count(),
        "python": platform.python_version(),
        "load_1_5_15": [round(load, 2) for load in os.getloadavg()],
        "store_folder_free_gb": round(shutil.disk_usage(ROOT).free / 1e9, 1),
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.run", description=__doc__)
    parser.add_argument("--figures", help="only these, separated by commas (default: all)")
    parser.add_argument("--quick", action="store_true", help="small sizes, one round: a smoke check, not a measurement")
    parser.add_argument("--rounds", type=int, help="rounds per measurement (default: see figures.py; 1 with --quick)")
    parser.add_argument("--peers-only", action="store_true", help="leave ours out")
    parser.add_argument("--out", type=Path, help="result file (default: results/latest.json, if all is measured)")
    return parser.parse_args()


def _chosen_figures(names: str | None) -> list[Figure]:
    """The figures asked for. Raises SystemExit naming the unknown one."""
    if names is None:
        return list(FIGURES)
    known = {figure.name: figure for figure in FIGURES}
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    for name in wanted:
        if name not in known:
            raise SystemExit(f"unknown figure {name!r}; known: {', '.join(known)}")
    return [known[name] for name in wanted]


def _default_out(options: argparse.Namespace) -> Path:
    """latest.json holds whole, full-size calls only."""
    if options.quick:
        return RESULTS / "quick.json"
    return RESULTS / ("partial.json" if options.figures or options.peers_only else "latest.json")


def _write(path: Path, records: list[table.Record], log: Log) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(records, indent=1) + "\n")
    context = {**asdict(log), "quiet": log.quiet}
    text = json.dumps(context, indent=1).replace(f"{ROOT}/", "")  # where the checkout lies says nothing
    path.with_suffix(".context.json").write_text(text + "\n")
    print(f"\nwritten: {path} (and {path.with_suffix('.context.json').name}: machine, versions, variants)")


def main() -> int:
    """Exit code 0 when everything was measured, 1 when a side failed, 2 when it could not start."""
    options = _options()
    figures = _chosen_figures(options.figures)
    if not options.peers_only and find_spec("benchmarks.ours") is None:
        print(
            "benchmarks/ours.py is missing: Tightship's own side of the benchmark (see benchmarks/README.md, "
            '"Adding a side"). Measure the peers alone with --peers-only.',
            file=sys.stderr,
        )
        return 2
    try:
        all_sides = sides(environment.python())
    except environment.PeersUnavailable as error:
        print(f"the peers cannot be measured: {error}", file=sys.stderr)
        return 2
    if options.peers_only:
        del all_sides["ours"]
    wanted = {figure.measurement for figure in figures}
    chosen = [measurement for measurement in MEASUREMENTS if measurement.name in wanted]
    # What an interrupted call left behind can be gigabytes.
    shutil.rmtree(STORES, ignore_errors=True)
    log = Log(_machine())
    started = time.perf_counter()
    samples = measure(
        chosen,
        all_sides,
        size="quick" if options.quick else "full",
        rounds=options.rounds or (1 if options.quick else None),
        log=log,
    )
    log.seconds = round(time.perf_counter() - started, 1)
    records = table.merge(samples, figures)
    print(table.render(records))
    if options.quick:
        print("--quick: sizes are cut (100 turns, 100 runs, short windows): a smoke check, not a measurement.")
    if not log.quiet:
        print("Other work ran on this machine meanwhile: a smoke check, not a measurement.")
    _write(options.out or _default_out(options), records, log)
    for failure in log.failures:
        print(f"FAILED: {failure}", file=sys.stderr)
    return 1 if log.failures else 0


if __name__ == "__main__":
    sys.exit(main())

"""What so many effects a day need: a formula over constants, each with its source, and what stands in the way first.

    python -m benchmarks.capacity              print the table of docs/scale.md
    python -m benchmarks.capacity --measure    measure the bytes of an effect and write results/capacity.json

Rates that were measured come from results/latest.json. What was not measured is an assumption and says so.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

RESULTS = Path(__file__).resolve().parent / "results"
LATEST = RESULTS / "latest.json"
SIZES = RESULTS / "capacity.json"
DAY = 86_400
DAILY = (1_000_000, 10_000_000, 100_000_000, 1_000_000_000)
"""Effects a day that the table is for."""
FEW, MANY = 40, 240
"""Runs of the two stores whose difference gives the bytes of a run's effects."""


@dataclass(frozen=True, slots=True)
class Input:
    """A constant of the model: its value and unit, and where it comes from.

    Attributes:
        kind: `measured` by `make bench` or `--measure`; `measured by hand` on the same machine, by no program that is
            kept; `counted` in the code; `assumed`.
    """

    value: float
    unit: str
    kind: Literal["measured", "measured by hand", "counted", "assumed"]
    source: str


def inputs() -> dict[str, Input]:
    """Every constant, with the measured ones from the result files."""
    latest = {row["figure"]: row["ours"] for row in json.loads(LATEST.read_text())}
    sizes: dict[str, float] = json.loads(SIZES.read_text())
    by_hand = "a bare client, PostgreSQL 18 on the same 2 processors"
    return {
        "peak": Input(3, "times the mean", "assumed", "a working day of one region"),
        "latency": Input(2.0, "s an effect", "assumed", "half of the effects are model calls of 3 to 4 s"),
        "concurrency": Input(64, "runs a worker", "counted", "the default of `--concurrency`"),
        "fill": Input(0.5, "of these", "counted", "the scaling policy's target: half, so that a peak has room"),
        "rate": Input(
            latest["effects_per_s_postgres_1_workers"],
            "effects/s a process",
            "measured",
            "`effects_per_s_postgres_1_workers`, beside its server",
        ),
        "cpu": Input(
            latest["effect_alone_cpu_ms"], "ms an effect", "measured", "`effect_alone_cpu_ms`, the dearest case"
        ),
        "appends": Input(
            2, "transactions an effect", "counted", "admit and settle; at low rates nothing shares a commit"
        ),
        "commits": Input(4400, "commits/s, one connection", "measured by hand", by_hand),
        "trip": Input(0.25, "ms a round trip", "assumed", "one zone of a cloud"),
        "trips": Input(2, "round trips under the head's lock", "counted", "lock and facts; rows and commit"),
        "notify": Input(1, "notice a transaction", "counted", "a NOTIFY takes a lock of the whole cluster at commit"),
        "slots": Input(500, "connections an instance takes", "assumed", "at some 10 MB each"),
        "heard": Input(100_000, "notices an instance hands out a second", "assumed", "to be measured"),
        "connections": Input(
            8, "connections a worker", "counted", "writer, reader, keystore, lock, notices, three for jobs"
        ),
        "bytes": Input(
            sizes["bytes_per_effect"], "bytes an effect", "measured", "`--measure`: 20 paid effects a run, SQLite"
        ),
        "postgres": Input(1.6, "times SQLite's bytes", "assumed", "row headers, item pointers, fill of pages"),
        "days": Input(90, "days kept", "assumed", "a policy of yours"),
        "wal": Input(2.5, "bytes of WAL a byte kept", "assumed", "indexes, projections, full pages after checkpoints"),
    }


@dataclass(frozen=True, slots=True)
class Need:
    """What a number of effects a day needs, at the peak.

    Attributes:
        daily: effects a day. rate: effects/s. appends: transactions/s. flight: runs in flight.
        workers: processes; the more of what runs in flight and what processor time asks for. cores: of all of them.
        logs: tenants' logs over which the appends have to be spread, at least.
        servers: Postgres instances; the most of what commits, connections and wake-ups ask for.
        connections: to each of them.
        wakeups: notices that each instance hands out a second: every commit to every worker of its own.
        kept: TB after `days`. growth: GB a day. network: Mbit/s of writes to one standby.
    """

    daily: int
    rate: float
    appends: float
    flight: float
    workers: int
    cores: float
    logs: int
    servers: int
    connections: int
    wakeups: float
    growth: float
    kept: float
    network: float


def need(daily: int, given: Mapping[str, Input]) -> Need:
    """The formula."""
    of = {name: one.value for name, one in given.items()}
    rate = daily / DAY * of["peak"]
    appends = rate * of["appends"]
    flight = rate * of["latency"]
    cores = rate * of["cpu"] / 1e3
    workers = math.ceil(max(flight / (of["concurrency"] * of["fill"]), rate / of["rate"]))
    servers = math.ceil(
        max(
            appends * of["notify"] / of["commits"],
            workers * of["connections"] / of["slots"],
            math.sqrt(appends * workers / of["heard"]),  # each hands its commits out to its own workers
        )
    )
    stored = daily * of["bytes"] * of["postgres"]
    own = math.ceil(workers / servers)
    return Need(
        daily=daily,
        rate=rate,
        appends=appends,
        flight=flight,
        workers=workers,
        cores=cores,
        logs=math.ceil(appends / log_ceiling(given)),
        servers=servers,
        connections=own * int(of["connections"]),
        wakeups=appends / servers * own,
        growth=stored / 1e9,
        kept=stored * of["days"] / 1e12,
        network=rate * of["bytes"] * of["postgres"] * of["wal"] * 8 / 1e6,
    )


def log_ceiling(given: Mapping[str, Input]) -> float:
    """Transactions/s that one log takes: each holds the head's row for its round trips and its commit."""
    return 1 / (given["trips"].value * given["trip"].value / 1e3 + 1 / given["commits"].value)


def limits(given: Mapping[str, Input]) -> list[tuple[str, float]]:
    """What stands in the way of one instance, in effects a day, the first first."""
    of = {name: one.value for name, one in given.items()}

    def daily(appends: float) -> float:
        return appends / of["appends"] / of["peak"] * DAY

    a_worker = of["concurrency"] * of["fill"] / of["latency"] * of["appends"]  # transactions/s
    found = [
        ("all runs are of one tenant: its log's head is locked by one transaction after the other", log_ceiling(given)),
        ("every commit wakes every worker", math.sqrt(of["heard"] * a_worker)),
        ("connections", of["slots"] / of["connections"] * a_worker),
        ("commits, one after the other because each sends a notice", of["commits"] / of["notify"]),
    ]
    return sorted(((words, daily(appends)) for words, appends in found), key=lambda one: one[1])


def breaks() -> str:
    """The table of what stands in the way."""
    lines = ["| what stands in the way of one Postgres instance | effects a day |", "|---|---:|"]
    return "\n".join([*lines, *(f"| {words} | {_millions(daily)} |" for words, daily in limits(inputs()))])


def _millions(daily: float) -> str:
    return f"{daily / 1e6:,.0f} million"


def table() -> str:
    """The table of docs/scale.md: a column for each number of effects a day."""
    given = inputs()
    needs = [need(daily, given) for daily in DAILY]
    lines = [
        "| effects a day | " + " | ".join(f"{one.daily:,}" for one in needs) + " |",
        "|---|" + "---:|" * len(needs),
    ]
    for words, name in _ROWS:
        lines.append(f"| {words} | " + " | ".join(_figure(float(getattr(one, name))) for one in needs) + " |")
    return "\n".join(lines)


_ROWS = (
    ("effects/s at the peak", "rate"),
    ("transactions/s", "appends"),
    ("runs in flight", "flight"),
    ("workers", "workers"),
    ("processors of all workers", "cores"),
    ("logs (tenants), at least", "logs"),
    ("Postgres instances", "servers"),
    ("connections to each", "connections"),
    ("wake-ups/s from each", "wakeups"),
    ("GB a day", "growth"),
    ("TB after 90 days", "kept"),
    ("Mbit/s to one standby", "network"),
)


def sources() -> str:
    """The table of the constants."""
    lines = ["| constant | value | how it is known | source |", "|---|---:|---|---|"]
    lines += [f"| {one.unit} | {_figure(one.value)} | {one.kind} | {one.source} |" for one in inputs().values()]
    return "\n".join(
        [*lines, f"| transactions/s of one log | {_figure(log_ceiling(inputs()))} | computed | from these |"]
    )


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) or value >= 100 else f"{value:.2g}"


# --- measuring ----------------------------------------------------------------------------------------


def measure() -> dict[str, Any]:
    """Bytes of one paid effect in a store that was closed: the slope between two stores, so that what every store has
    does not count. A run's own entries and key are spread over its effects."""
    from benchmarks import workload

    sizes = {runs: _bytes_of(runs) for runs in (FEW, MANY)}
    effects = (MANY - FEW) * workload.EFFECTS_PER_RUN
    return {
        "bytes_per_effect": round((sizes[MANY] - sizes[FEW]) / effects, 1),
        "effects_per_run": workload.EFFECTS_PER_RUN,
        "runs": [FEW, MANY],
        "folder_bytes": [sizes[FEW], sizes[MANY]],
    }


def _bytes_of(runs: int) -> int:
    from benchmarks import harness, ours

    async def drive(path: Path) -> None:
        async with ours.effects_workspace(path, ours.Step("bench.paid", lambda: None, usd=1000)) as ws:
            for start in range(0, runs, 20):
                await asyncio.gather(*(ours.completed(ws, "steps", str(start + at)) for at in range(20)))

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(drive(Path(folder)))
        return harness.folder_bytes(Path(folder) / ".tightship")


def main(arguments: Sequence[str]) -> int:
    """Print, or measure; returns the exit code."""
    parser = argparse.ArgumentParser(description="What so many effects a day need.")
    parser.add_argument("--measure", action="store_true", help="measure the bytes of an effect first")
    if parser.parse_args(arguments).measure:
        SIZES.write_text(json.dumps(measure(), indent=2) + "\n")
    print("\n\n".join((table(), breaks(), sources())))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Every figure of the benchmark: what it means, which measurement yields it, and what Tightship must reach."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """What must be reached: a fixed bound, or so many times what a peer does in the same call."""

    bound: float
    times_peer: str | None = None

    def value(self, peers: Mapping[str, float | None]) -> float | None:
        """The bound as a number of the figure's unit; None when the peer it rests on was not measured."""
        if self.times_peer is None:
            return self.bound
        peer = peers.get(self.times_peer)
        return None if peer is None else self.bound * peer

    @property
    def rule(self) -> str:
        """The target in words."""
        return f"{self.bound:g} x {self.times_peer}" if self.times_peer else f"{self.bound:g}"


@dataclass(frozen=True, slots=True)
class Figure:
    """One row of the table. `measurement` is the name a side is called with; it may yield several figures."""

    name: str
    unit: str
    measurement: str
    meaning: str
    target: Target | None = None
    higher_is_better: bool = False


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a side is asked to do in one process.

    rounds: how often each side is measured; sides alternate, and their order turns round every time.
    sides: who is asked. postgres: it needs a server, which is started for each side anew.
    """

    name: str
    rounds: int
    sides: tuple[str, ...] = ("ours", "langgraph", "dbos", "physical")
    postgres: bool = False
    module: str = ""
    """Another module than the side's own."""
    loopback: bool = False
    """The server is reached over TCP on the loopback address, and not over its unix socket."""


MEASUREMENTS = (
    Measurement("concurrent", rounds=3),
    Measurement("alone", rounds=3),
    Measurement("line_budget", rounds=3, sides=("ours",)),
    Measurement("team", rounds=3),
    Measurement("coordination", rounds=2, sides=("ours", "langgraph")),
    Measurement("resume", rounds=2, sides=("ours", "langgraph", "dbos")),
    # Bytes do not wander from one round to the next.
    Measurement("conversation", rounds=1),
    Measurement("startup", rounds=3),
    Measurement("concurrent_postgres", rounds=2, sides=("ours", "langgraph", "dbos"), postgres=True),
    Measurement("team_postgres", rounds=2, sides=("ours", "langgraph", "dbos"), postgres=True),
    Measurement("failover", rounds=2, sides=("ours",), postgres=True, module="benchmarks.fleet"),
    Measurement("halt", rounds=2, sides=("ours",), postgres=True, module="benchmarks.fleet"),
    Measurement("context_notice", rounds=2, sides=("ours",), postgres=True, module="benchmarks.context", loopback=True),
    # Minutes each, and what they ask for does not wander: a store's size, a process's memory.
    Measurement("growth", rounds=1, sides=("ours",), module="benchmarks.growth"),
    Measurement("growth_postgres", rounds=1, sides=("ours",), postgres=True, module="benchmarks.growth"),
    Measurement("memory", rounds=1, sides=("ours",), module="benchmarks.memory"),
)

FIGURES = (
    Figure(
        "effects_per_s_32_runs_sqlite",
        "1/s",
        "concurrent",
        "paid effects (admit and settle), checkpointed nodes or steps per second, one process, 32 runs at once",
        Target(10, "langgraph"),
        higher_is_better=True,
    ),
    Figure(
        "reads_per_s_32_runs_sqlite",
        "1/s",
        "concurrent",
        "free reads (settle only) per second, one process, 32 runs at once",
        Target(15, "langgraph"),
        higher_is_better=True,
    ),
    Figure(
        "effect_alone_p50_ms", "ms", "alone", "one paid effect with nothing else in flight, with fsync", Target(1.0)
    ),
    Figure("effect_alone_cpu_ms", "ms", "alone", "CPU time of that, all threads of the process", Target(0.6)),
    Figure("read_alone_p50_ms", "ms", "alone", "one free read with nothing else in flight, with fsync", Target(1.0)),
    Figure("read_alone_cpu_ms", "ms", "alone", "CPU time of that, all threads of the process", Target(0.3)),
    Figure("line_append_us", "us", "line_budget", "of one effect at 32 runs: the appends to the ledger", Target(75)),
    Figure("line_policy_us", "us", "line_budget", "of one effect: the policy decision, remembered", Target(15)),
    Figure("line_policy_miss_us", "us", "line_budget", "of one effect: the policy decision, made anew", Target(97)),
    Figure("line_checks_us", "us", "line_budget", "of one effect: argument schema, privacy and labels", Target(25)),
    Figure("line_interpreter_us", "us", "line_budget", "of one effect: the interpreter of patterns", Target(20)),
    Figure(
        "runs_per_s_5_agents_sqlite",
        "1/s",
        "team",
        "runs per second of a workflow of five agents, durable, one process, 32 at once",
        Target(7, "langgraph"),
        higher_is_better=True,
    ),
    *(
        Figure(
            f"runs_per_s_{name}",
            "1/s",
            "coordination",
            f"runs per second, durable, one process, 32 at once: {said}",
            higher_is_better=True,
        )
        for name, said in (
            ("manager", "one agent plans, three work side by side, one puts together"),
            ("handoff", "the work passes through five agents, each with a brief"),
            ("fan_out", "five agents side by side"),
            ("vote", "five agents vote, and a majority counts"),
        )
    ),
    Figure(
        "resume_1000_runs_s",
        "s",
        "resume",
        "kill -9 with 1,000 runs inside an agent; from the executor's start until all are past it",
        Target(2.0),
    ),
    Figure(
        "ledger_bytes_per_unique_byte_1000_turns",
        "B/B",
        "conversation",
        "bytes of the store per byte of unique text after 1,000 turns of one conversation",
        Target(1.3),
    ),
    *(
        Figure(
            f"effects_per_s_postgres_{workers}_workers",
            "1/s",
            "concurrent_postgres",
            f"paid effects per second on Postgres, {workers} processes with 32 runs at once each (peers: one process)",
            higher_is_better=True,
        )
        for workers in (1, 2, 4)
    ),
    Figure(
        "runs_per_s_5_agents_postgres",
        "1/s",
        "team_postgres",
        "runs per second of a workflow of five agents on Postgres, durable, one process, 32 at once",
        Target(5, "langgraph"),
        higher_is_better=True,
    ),
    Figure(
        "failover_s", "s", "failover", "kill -9 of one of two workers; until the other has all of its runs", Target(3.0)
    ),
    Figure(
        "halt_p99_ms_4_workers_500_runs",
        "ms",
        "halt",
        "from the call of a halt until the last new effect of any run, 4 workers, 500 runs",
        Target(200.0),
    ),
    Figure(
        "context_notice_p99_ms",
        "ms",
        "context_notice",
        "from a write of the shared context to its notice in another process over loopback, 1,000 writes/s",
        Target(25.0),
    ),
    *(
        Figure(
            f"growth_{what}_{store}",
            "x",
            measurement,
            f"{meaning}: with 1,000,000 stored runs over with 10,000",
            Target(2.0),
        )
        for store, measurement in (("sqlite", "growth"), ("postgres", "growth_postgres"))
        for what, meaning in (
            ("list", "the slowest of the questions that `runs list` asks"),
            ("append", "one append with nothing else in flight"),
            ("resume", "from opening the workspace until a run that was put down has ended"),
        )
    ),
    Figure(
        "memory_growth_mb_100k_runs",
        "MB",
        "memory",
        "by which a worker's memory grew from its 50,000th run, when its caches are full, to its 100,000th",
        Target(10.0),
    ),
    Figure("help_s", "s", "startup", "the command line's --help, the whole process", Target(0.3)),
    Figure("import_s", "s", "startup", "the import that a program starts with", Target(0.2)),
    Figure("import_ready_s", "s", "startup", "the imports after which a run can be started"),
    Figure(
        "group_commit_rows_per_s_1_caller",
        "1/s",
        "concurrent",
        "physical limit: rows per second through one writer thread, WAL, synchronous FULL, 1 asyncio caller",
        higher_is_better=True,
    ),
    Figure(
        "group_commit_rows_per_s_32_callers",
        "1/s",
        "concurrent",
        "the same with 32 callers",
        higher_is_better=True,
    ),
    Figure(
        "group_commit_rows_per_s_256_callers",
        "1/s",
        "concurrent",
        "the same with 256 callers",
        higher_is_better=True,
    ),
    Figure("commit_alone_p50_ms", "ms", "alone", "physical limit: one row, one commit, no event loop"),
    Figure("fsync_alone_p50_ms", "ms", "alone", "physical limit: 4 KB written to a file and fdatasync'd"),
    Figure(
        "asyncio_runs_per_s_5_awaits",
        "1/s",
        "team",
        "physical limit: tasks that await five times, nothing stored, 32 at once",
        higher_is_better=True,
    ),
)

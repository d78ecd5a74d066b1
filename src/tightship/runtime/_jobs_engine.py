"""Procrastinate, as this program uses it: a worker in a thread and event loop of its own.

It is given no lock, timer, abort or retry of ours, and no signal handlers. What it is known to do wrong is expected: a
worker that was pruned while it was frozen ends at its next fetch, and one whose listener lost its connection ends as
well; each is started anew by whoever runs it (`jobs`). It beats and looks every half second.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tightship.ledger._pg import Address, session_settings
from tightship.runtime.timetable import Periodic

if TYPE_CHECKING:
    from procrastinate import App
    from procrastinate.worker import Worker

THREAD: Final = "jobs"
EVERY: Final = 0.5
"""Seconds between two looks for jobs, and between two beats."""
LOST: Final = 10.0
"""Seconds after its last beat until a jobs' worker is taken for lost."""
ENDING: Final = 2.0
"""Seconds that jobs under way have when the worker is told to end."""
_NEVER: Final = 86_400.0
_LOGGERS: Final = ("procrastinate", "psycopg")


@dataclass(frozen=True, slots=True)
class Queues:
    """Where a worker listens: the queue of its build, and the one of all."""

    build: str
    general: str


def make_app(
    address: Address,
    where: Queues,
    wake: Callable[[], Awaitable[None]],
    periodic: Sequence[Periodic],
    call: Callable[[Periodic], Awaitable[None]],
) -> App:
    """The application: one task that wakes this worker, and one for each thing that is done again and again.

    Args:
        wake: called for a wake-up. periodic: what is done again and again. call: does one of these.
    """
    from procrastinate import App, PsycopgConnector

    async def configure(db: Any) -> None:
        await db.set_autocommit(True)  # a frozen process keeps no row locked that an append may wait for
        await db.execute(session_settings(address.schema))

    connector = PsycopgConnector(
        conninfo=address.conninfo,
        configure=configure,
        min_size=1,
        max_size=2,
        timeout=5.0,
        reconnect_timeout=5.0,
    )
    app = App(connector=connector)
    app.task(name="wake", queue=where.build)(wake)
    for one in periodic:
        _register(app, where, one, call)
    return app


def _register(app: App, where: Queues, one: Periodic, call: Callable[[Periodic], Awaitable[None]]) -> None:
    async def task(timestamp: int) -> None:
        await call(one)

    queue = where.build if one.of_build else where.general
    made: Any = app.task(name=one.name, queue=queue, queueing_lock=f"{queue}:{one.name}")(task)
    app.periodic(cron=one.cron, periodic_id=queue)(made)


def make_worker(app: App, where: Queues) -> Worker:
    """A worker of the application, to be run once."""
    from procrastinate.worker import Worker

    return Worker(
        app,
        queues=[where.build, where.general],
        name="tightship",
        concurrency=4,
        fetch_job_polling_interval=EVERY,
        abort_job_polling_interval=_NEVER,  # nothing of ours is aborted
        shutdown_graceful_timeout=ENDING,
        delete_jobs="successful",
        install_signal_handlers=False,
        update_heartbeat_interval=EVERY,
        stalled_worker_timeout=LOST,
    )


def keep_quiet() -> None:
    """Keep what Procrastinate and its pool log in the jobs' thread out of the program's log: it names queues, servers
    and arguments. Whoever uses them elsewhere in this process still sees theirs."""
    names = [name for name in logging.root.manager.loggerDict if name.startswith(_LOGGERS)]
    for name in {*_LOGGERS, "procrastinate.worker.tightship", *names}:
        logger = logging.getLogger(name)
        if _is_ours not in logger.filters:
            logger.addFilter(_is_ours)


def _is_ours(record: logging.LogRecord) -> bool:
    return threading.current_thread().name != THREAD

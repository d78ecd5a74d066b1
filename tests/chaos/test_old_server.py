"""A server that is too old is refused before anything is written to it, by every command, in words that help."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from importlib import resources
from pathlib import Path

import pytest
from fleet import DESK, TOKEN

import postgres_desk
from proxy import Aged

INPUT = '{"ticket": "T-3003", "order": "O-2001", "customer": "C-1001"}'


@pytest.mark.parametrize("args", [("worker",), ("run", "settle", "--data", INPUT, "--detach")])
async def test_a_server_that_is_too_old_is_refused(tmp_path: Path, args: tuple[str, ...]) -> None:
    server = postgres_desk.server()
    proxy = Aged(server.folder / ".s.PGSQL.5432", "14.19")
    schema = f"old_{args[0]}"
    url = f"postgresql://postgres@127.0.0.1:{await proxy.start()}/postgres?schema={schema}"
    desk = tmp_path / "desk"
    shutil.copytree(DESK, desk, ignore=shutil.ignore_patterns("__pycache__"))
    (desk / "company.json").write_bytes(resources.files("tightship.company").joinpath("openapi.json").read_bytes())
    config = desk / "tightship.yaml"
    config.write_text(config.read_text().replace("store: sqlite:.tightship", f"store: '{url}'"))
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tightship", *args, "-w", str(desk), "--json"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "COMPANY_TOKEN": TOKEN},
        )
        said = await asyncio.wait_for(process.communicate(), 300)
    finally:
        await proxy.close()
    assert process.returncode == 1, said
    told = json.loads(said[1].decode().splitlines()[-1])
    assert told["error"] == "StoreVersionError"
    assert "PostgreSQL 14.19" in told["message"]
    assert "15 is the oldest" in told["message"]
    assert "PostgreSQL 15 or newer" in told["fix"]
    with server.connect() as db:
        assert db.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE %s", (f"{schema}%",)).fetchall() == []

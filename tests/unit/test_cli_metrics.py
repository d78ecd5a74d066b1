"""`tightship metrics`: once, or served; nobody from elsewhere reads it without the token."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

sys.path.insert(0, str(Path(__file__).parents[1]))

from cli_desk import make
from tightship.cli._root import main
from tightship.cli.metrics import build_app
from tightship.core.errors import StoreError
from tightship.insight import Demand, WorkflowDemand

ORDER = json.dumps({"order": "O-1", "amount": 500.0})


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    folder = make(tmp_path / "shop")
    monkeypatch.chdir(folder)
    monkeypatch.delenv("TIGHTSHIP_METRICS_TOKEN", raising=False)
    assert main(["run", "pay", "--data", ORDER, "--json"]) == 0
    capsys.readouterr()
    return folder


def test_once_as_text_and_as_json(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["metrics"]) == 0
    read = {
        (sample.name, sample.labels.get("workflow")): sample.value
        for family in text_string_to_metric_families(capsys.readouterr().out)
        for sample in family.samples
    }
    assert read["tightship_runs_parked", "pay"] == 1
    assert read["tightship_inbox_open_items", "pay"] == 1
    assert read["tightship_calls_total", "pay"] == 1
    assert main(["metrics", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["parked"], told["waiting_for_people"], told["due"]) == (1, 1, 0)


@pytest.mark.parametrize("listen", ["127.0.0.1", "here:there", "127.0.0.1:80/x", "a@b:80", "127.0.0.1:99999"])
def test_a_place_that_is_none_is_refused(listen: str, shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["metrics", "--listen", listen]) == 1
    assert "is no place to listen" in capsys.readouterr().err


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"])
def test_nothing_is_served_to_other_machines_without_a_token(
    listen: str, shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["metrics", "--listen", listen]) == 1
    assert "TIGHTSHIP_METRICS_TOKEN" in capsys.readouterr().err


async def reading() -> Demand:
    return Demand(1.0, (WorkflowDemand("default", "pay", due=3),))


async def broken() -> Demand:
    raise StoreError("password of the store")


def client(token: str = "", read=reading, base: str = "http://127.0.0.1:9464") -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(build_app(read, token)), base_url=base)


async def test_the_token_is_asked_for() -> None:
    async with client("secret") as asking:
        assert (await asking.get("/metrics")).status_code == 401
        for wrong in ("Bearer wrong", "Basic secret", "secret", "Bearer"):
            assert (await asking.get("/metrics", headers={"Authorization": wrong})).status_code == 401
        given = await asking.get("/metrics", headers={"Authorization": "Bearer secret"})
        assert given.status_code == 200
        assert given.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert 'tightship_runs_due{tenant="default",workflow="pay"} 3' in given.text
        assert (await asking.get("/healthz")).text == "ok\n"


@pytest.mark.parametrize(
    ("base", "code"), [("http://localhost:1", 200), ("http://[::1]:1", 200), ("http://evil.example", 401)]
)
async def test_without_a_token_only_this_machine_is_answered(base: str, code: int) -> None:
    async with client(base=base) as asking:
        assert (await asking.get("/metrics")).status_code == code


async def test_a_store_that_cannot_be_read_is_unhealthy_and_its_error_stays_inside() -> None:
    async with client(read=broken) as asking:
        for path in ("/metrics", "/healthz"):
            answer = await asking.get(path)
            assert answer.status_code == 503
            assert "password" not in answer.text


@contextlib.contextmanager
def serving(folder: Path, **environment: str) -> Generator[tuple[str, subprocess.Popen[str]]]:
    """`tightship metrics --listen` on a free port, and its URL."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tightship", "metrics", "--listen", "127.0.0.1:0", "--json"],
        cwd=folder,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())["url"], process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_it_is_served_until_it_is_told_to_stop(shop: Path) -> None:
    with serving(shop, TIGHTSHIP_METRICS_TOKEN="secret") as (url, process):
        assert httpx2.get(f"{url}/metrics").status_code == 401
        answer = httpx2.get(f"{url}/metrics", headers={"Authorization": "Bearer secret"})
        assert "tightship_runs_parked" in answer.text
        assert httpx2.get(f"{url}/healthz").status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(300) == 0
        assert process.stdout is not None
        assert json.loads(process.stdout.readline()) == {"event": "stopped"}

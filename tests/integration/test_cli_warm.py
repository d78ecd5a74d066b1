"""What the tests run through a loaded process is what the command line does when it is started anew."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))

from cli_desk import answer, cli, command, environment, make
from cli_warm import warm

RUN = ("run", "pay", "--data", '{"order": "O-1", "amount": 10.0}')
ABORT = "import os\nasync def judge(ctx, input):\n    os.abort()\n"


@pytest.mark.parametrize(
    "args",
    [
        ("--version",),
        ("check", "--json"),
        ("runs", "list"),
        ("nonsense",),
        ("runs", "--help"),
        ("runs", "list", "--debug"),
    ],
)
def test_a_command_says_and_returns_the_same_as_one_that_is_started(tmp_path: Path, args: tuple[str, ...]) -> None:
    desk = make(tmp_path / "shop")
    started = subprocess.run(
        command(*args), cwd=desk, env=environment(), capture_output=True, text=True, timeout=300, check=False
    )
    forked = cli(desk, *args)
    assert (forked.returncode, forked.stdout) == (started.returncode, started.stdout)
    assert forked.stderr.splitlines()[-1:] == started.stderr.splitlines()[-1:]  # a traceback begins elsewhere


def test_each_is_a_process_of_its_own(tmp_path: Path) -> None:
    """Two at once keep apart: each runs its own workspace's code, and what one changes the next one does not see."""
    desks = [make(tmp_path / name) for name in ("a", "b")]
    for desk in desks:
        code = desk / "tools" / "desk.py"
        code.write_text(code.read_text().replace("paid {order}", f"{desk.name} paid {{order}}"))
    with ThreadPoolExecutor() as pool:
        told = list(pool.map(lambda desk: answer(desk, *RUN), desks))
    assert [one["runs"][0]["output"] for one in told] == ["a paid O-1", "b paid O-1"]
    (desks[0] / "agents" / "shop.py").write_text(ABORT)
    assert cli(desks[0], *RUN[:-1], '{"order": "O-2", "amount": 1.0}').returncode == -6
    assert answer(desks[1], "runs", "list")


def test_one_that_does_not_end_is_killed(tmp_path: Path) -> None:
    desk = make(tmp_path / "shop")
    with pytest.raises(subprocess.TimeoutExpired):
        warm().run(("serve",), desk, environment(), None, timeout=0.5)
    assert cli(desk, "--version").returncode == 0

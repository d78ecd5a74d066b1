"""A module that cannot be imported stops a command before it begins anything, and is named with file and line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))

from cli_desk import answer, cli, lines, make, wrong

ORDERS = [{"id": n, "order": f"O-{n}", "amount": 1.0} for n in range(5)]


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    made = make(tmp_path / "shop")
    shop = made / "agents" / "shop.py"
    shop.write_text("import shop_rules\n" + shop.read_text())
    return made


@pytest.mark.parametrize(
    ("rules", "line"),
    [("X = 1\nraise RuntimeError('no rules today')\n", 2), ("def f(:\n", 1), ("import sys\nsys.exit(0)\n", 2)],
)
def test_a_broken_module_begins_nothing_and_the_same_command_works_when_it_is_mended(
    desk: Path, rules: str, line: int
) -> None:
    module = desk / "agents" / "shop_rules.py"
    module.write_text(rules)
    batch = ("run", "pay", "--input", lines(desk, ORDERS), "--batch", "x")
    told = wrong(desk, *batch)
    assert told["error"] == "LoadError"
    assert f"agents/shop_rules.py:{line}" in told["where"]
    assert wrong(desk, "serve")["error"] == "LoadError"
    module.write_text("")
    assert answer(desk, *batch)["summary"]["states"] == {"completed": 5}
    assert len(answer(desk, "runs", "list")) == 5


def test_resume_begins_nothing_either(desk: Path) -> None:
    module = desk / "agents" / "shop_rules.py"
    module.write_text("")
    answer(desk, "run", "pay", "--data", '{"order": "O-1", "amount": 500.0}')
    [item] = answer(desk, "inbox", "list")
    answer(desk, "inbox", "approve", item["item"], "--by", "ann")
    module.write_text("raise RuntimeError('no rules today')\n")
    assert wrong(desk, "runs", "resume", "--all")["error"] == "LoadError"
    module.write_text("")
    assert answer(desk, "runs", "resume", "--all")["states"] == {"completed": 1}


def test_check_names_an_import_that_is_not_there(desk: Path) -> None:
    done = cli(desk, "check", "--offline", "--json")
    assert done.returncode == 1
    assert "agents/shop_rules.py" in done.stdout

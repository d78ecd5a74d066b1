"""Tables on a terminal: ids and numbers stay whole at every width, and what is left out is said."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent.parent))

from cli_desk import answer, cli, environment, make
from cli_warm import warm
from tightship.cli._tables import render

_COLUMNS = ("run", "title", "cost", "reference")


def _terminal(folder: Path, columns: int, *args: str) -> str:
    """What a command prints on a terminal of so many columns."""
    leader, follower = os.openpty()
    env = {**environment(), "COLUMNS": str(columns), "NO_COLOR": "1", "TERM": "dumb"}
    with open(follower, "w") as terminal:
        process = warm().start(args, folder, env, terminal)
    told = b""
    try:
        while block := os.read(leader, 65536):
            told += block
    except OSError:  # the other end was closed
        pass
    finally:
        os.close(leader)
        assert process.wait(timeout=300) == 0
    return told.decode()


@given(width=st.integers(20, 140), titles=st.lists(st.text(st.sampled_from("ab é漢"), max_size=60), min_size=1))
def test_ids_and_numbers_are_never_folded_and_lines_fit_where_they_can(width: int, titles: list[str]) -> None:
    ids = [f"r-{number:016d}" for number in range(len(titles))]
    rows = [(one, title, "$0.0300", "demo/T-4083") for one, title in zip(ids, titles, strict=True)]
    lines = render(_COLUMNS, rows, right=("cost",), words=("title",), drop=("reference", "cost", "title"), width=width)
    text = "\n".join(lines)
    assert all(one in text for one in ids)
    left = next((line for line in lines if "shows" in line and "as well" in line), "")
    for name, cell in (("cost", "$0.0300"), ("reference", "demo/T-4083")):
        assert (name in lines[0] and text.count(cell) == len(ids)) != (name in left)


def test_what_fits_is_shown_although_something_wider_was_left_out() -> None:
    row = ("r-1", "x" * 40, "2026-11-20", "7")
    lines = render(("run", "reference", "started", "calls"), [row], drop=("calls", "reference"), width=30)
    assert lines[0].split() == ["run", "started", "calls"]
    assert "reference" in lines[-1]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make(tmp_path_factory.mktemp("tables") / "shop")
    assert cli(folder, "run", "pay", "--data", '{"order": "O-2", "amount": 500.0}').returncode == 0
    return folder


@pytest.mark.parametrize("columns", [80, 100, 120])
def test_runs_and_items_keep_their_ids_whole_on_a_terminal(shop: Path, columns: int) -> None:
    run, item = answer(shop, "runs", "list")[0]["id"], answer(shop, "inbox", "list")[0]["item"]
    listed = _terminal(shop, columns, "runs", "list")
    assert run in listed
    assert "$0.0000" in listed
    assert "workflow" in listed
    assert item in _terminal(shop, columns, "inbox", "list")

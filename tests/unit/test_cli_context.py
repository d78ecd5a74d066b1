"""`tightship context` on a small workspace: what it prints, what it takes, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tightship.cli import main

CONFIG = """\
name: desk
roles: {buyer: [ann]}
context:
  limits/*: {writers: [buyer], type: int}
  step: {writers: [buyer], scope: workflow}
"""


@pytest.fixture
def place(tmp_path: Path) -> list[str]:
    (tmp_path / "tightship.yaml").write_text(CONFIG)
    return ["-w", str(tmp_path)]


def said(capsys: pytest.CaptureFixture[str], *args: str, code: int = 0) -> str:
    capsys.readouterr()
    got = main(["context", *args])
    told = capsys.readouterr()
    assert got == code, told
    return told.out + told.err


def test_a_value_is_set_shown_listed_and_counted(place: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert "stands at version 1" in said(capsys, "set", "limits/order", "50", "--by", "ann", *place)
    shown = said(capsys, "show", "limits/order", *place)
    assert "limits/order = 50" in shown and "version  1, written by ann" in shown
    assert "limits/order" in said(capsys, "list", "limits/*", *place)
    assert "nothing is written" in said(capsys, "list", "step", *place)
    said(capsys, "set", "limits/stock", "7", "--by", "ann", *place)
    part = said(capsys, "list", "--limit", "1", *place)
    assert "limits/order" in part and "more is behind it: --after limits/order tenant:default" in part
    rest = json.loads(said(capsys, "list", "--after", "limits/order", "tenant:default", "--json", *place))
    assert [one["key"] for one in rest["values"]] == ["limits/stock"] and rest["next"] is None
    assert "nothing is written" in said(capsys, "show", "limits/other", *place)
    stats, _ = json.loads(said(capsys, "stats", "--json", *place))["stats"]
    assert (stats["key"], stats["writes"], stats["p99_age"]) == ("limits/order", 1, None)
    assert "write conflicts" in said(capsys, "stats", *place)
    part = said(capsys, "stats", "limits/*", "--limit", "1", *place)
    assert "limits/stock" not in part and "more is behind it: --after limits/order tenant:default" in part
    rest = json.loads(said(capsys, "stats", "--after", "limits/order", "tenant:default", "--json", *place))
    assert [one["key"] for one in rest["stats"]] == ["limits/stock"] and rest["next"] is None
    assert "behind it" in said(capsys, "stats", "--after", "limits/stock", "tenant:default", *place)
    value: dict[str, Any] = json.loads(said(capsys, "show", "limits/order", "--json", *place))
    assert (value["value"], value["version"], value["as_of"]) == (50, 1, None)


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (("set", "limits/order", "50", "--by", "bob"), 1, "bob holds no role that may write limits/order"),
        (("set", "limits/order", "many", "--by", "ann"), 2, "is no JSON"),
        (("set", "limits/order", "18446744073709551616", "--by", "ann"), 2, "would not be kept exactly"),
        (("set", "limits/order", '"many"', "--by", "ann"), 1, "expected integer"),
        (("set", "limit/order", "1", "--by", "ann"), 1, "no key 'limit/order'"),
        (("set", "limits/order", "1", "--by", "ann", "--expect", "9"), 1, "stands at version"),
        (("set", "step", "1", "--by", "ann"), 1, "belongs to one workflow"),
        (("list", "a//b"), 1, "is no key"),
    ],
)
def test_what_is_wrong_is_refused_with_a_fix(
    place: list[str], capsys: pytest.CaptureFixture[str], args: tuple[str, ...], code: int, says: str
) -> None:
    said(capsys, "set", "limits/first", "1", "--by", "ann", *place)
    assert says in said(capsys, *args, *place, code=code)


def test_watch_ends_when_it_is_told_to(place: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    said(capsys, "set", "limits/order", "50", "--by", "ann", *place)
    assert said(capsys, "watch", "limits/*", "--seconds", "0.1", *place) == ""
    assert said(capsys, "watch", "--seconds", "0.1", *place) == ""

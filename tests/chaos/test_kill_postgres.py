"""Kill -9 before and after appends, calls outside and commits of the Merkle tree, on Postgres (test_kill.py has SQLite).

The ordinary suite plays one kill at each kind of point, and both sides of the writes outside; `make chaos` plays all.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from playing import ALL, SIDES, check, play

import postgres_desk

WRITES = ("call refunds.create", "call helpdesk.reply", "call helpdesk.retract", "call refunds.cancel")


@pytest.fixture(scope="module")
def store() -> str:
    return postgres_desk.server().url("").partition("schema=")[0].rstrip("?&")


@pytest.fixture(scope="module")
def calm(store: str) -> dict[str, Any]:
    """The undisturbed run."""
    found = play([], store)[0]
    assert not found["error"], found["error"]
    return found["report"]


def chosen(points: list[str], race_from: int) -> list[str]:
    """The cases to play: all, or one for each kind of point, sides in turn, and both sides of each kind of write."""
    numbers = range(1, len(points) + 1)
    if ALL:
        return [f"{number}:{side}" for number in numbers for side in SIDES]
    first = {label: number for number, label in reversed(list(enumerate(points[: race_from - 1], start=1)))}
    sides = itertools.cycle(SIDES)
    found = [f"{number}:{next(sides)}" for label, number in first.items() if label not in WRITES]
    return found + [f"{first[label]}:{side}" for label in WRITES for side in SIDES]


def test_a_kill_at_a_point_changes_nothing(calm: dict[str, Any], store: str):
    points, race_from = calm["points"], calm["race_from"]
    cases = chosen(points, race_from)
    played = check(cases, points, store)
    alive = [case for case in cases if not played[case]["killed"]]
    assert all(int(case.split(":")[0]) >= race_from for case in alive), f"nobody was killed at {alive}"


def test_a_kill_at_a_commit_of_the_tree_and_of_what_goes_on_changes_nothing(calm: dict[str, Any], store: str):
    points, race_from = calm["points"], calm["race_from"]
    calls = [n for n, label in enumerate(points, start=1) if label.startswith("call") and n < race_from]
    seconds = itertools.cycle(("1:after", "2:before", "2:after", "3:before", "3:after"))
    cases = [f"{number}:{side},{next(seconds)}" for number in (calls if ALL else calls[1:3]) for side in SIDES]
    check([*cases, *(f"tree-1:{side}" for side in SIDES)], points, store)


def test_what_breaks_the_promise_is_found_there_too(calm: dict[str, Any], store: str):
    reply = "call helpdesk.reply"
    assert reply in calm["points"]
    blind, tampered = play([f"{reply}:after!blind", f"{reply}:before!tamper"], store)[1:]
    assert blind["killed"] and tampered["killed"]
    assert any(problem.startswith("done too often: helpdesk.reply") for problem in blind["problems"])
    assert any(problem.startswith("audit: ") for problem in tampered["problems"])

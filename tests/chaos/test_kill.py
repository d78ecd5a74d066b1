"""Kill -9 before and after every append and every call outside of a workflow: what comes of it is always the same.

Each point is a case of its own (cases.py): a process is killed there, another one goes on, and the company's state,
its record of writes, each run's outcome and the ledger are compared with those of a process that nobody disturbed.

Nothing is made durable between two points, so what a kill leaves after one of them is what it leaves before the next.
The ordinary suite plays each such state once, and calls outside, which take time, from both sides; `make chaos` plays
both sides of all.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from playing import ALL, SIDES, check, play


@pytest.fixture(scope="module")
def calm() -> dict[str, Any]:
    """The undisturbed run."""
    found = play([])[0]
    assert not found["error"], found["error"]
    return found


def chosen(points: list[str]) -> list[str]:
    """The cases to play: before each point, and after each call, the first append of each kind and the last point."""
    first = {label: number for number, label in reversed(list(enumerate(points, start=1)))}
    after = {number for number, label in enumerate(points, start=1) if ALL or label.startswith("call")}
    after |= {*first.values(), len(points)}
    return [f"{n}:{side}" for n in range(1, len(points) + 1) for side in SIDES if side == "before" or n in after]


def test_the_undisturbed_run_is_worth_disturbing(calm: dict[str, Any]):
    report, points = calm["report"], calm["report"]["points"]
    outcomes = report["outcomes"]
    assert outcomes["plain"] == ["completed", ""]
    assert outcomes["undone"] == ["failed", "RunFailed"]
    assert outcomes["reviewed"] == ["completed", ""]
    assert sorted(outcomes[name] for name in ("race-1", "race-2")) == [["completed", ""], ["escalated", "duplicate"]]
    assert report["audit"] == report["settled_twice"] == report["not_ended_once"] == []
    for call in ("refunds.create", "helpdesk.reply", "helpdesk.retract", "refunds.cancel", "lookups.credit"):
        assert f"call {call}" in points
    kinds = (
        "effect.admitted",
        "effect.settled",
        "turn.done",
        "decided",
        "note",
        "run.parked",
        "run.claimed",
        "run.ended",
    )
    for kind in kinds:  # a vote decides its times, and notes how it ended
        assert f"append {kind}" in points


def test_a_kill_at_any_point_changes_nothing(calm: dict[str, Any]):
    points, race_from = calm["report"]["points"], calm["report"]["race_from"]
    cases = chosen(points)
    played = check(cases, points)
    # How two runs at once share commits is a matter of time, so only there may points be missing, and not most.
    alive = [case for case in cases if not played[case]["killed"]]
    assert all(int(case.split(":")[0]) >= race_from for case in alive), f"nobody was killed at {alive}"
    assert len(alive) <= (len(points) - race_from) / (1 if ALL else 2), f"nobody was killed at {alive}"


def test_a_kill_of_a_manager_at_sampled_points_changes_nothing(monkeypatch: pytest.MonkeyPatch):
    """Its plan, its tasks side by side, the plan made anew, and the run below it that moves the money."""
    monkeypatch.setenv("CHAOS_SET", "errands")
    report = play([])[0]["report"]
    points = report["points"]
    assert len(points) > 30 and report["outcomes"]["managed"] == ["completed", ""]
    assert report["runs"] == 2 and "call refunds.create" in points
    places = range(2, len(points) + 1, 5)
    cases = [f"{number}:{side}" for number, side in zip(places, itertools.cycle(SIDES), strict=False)]
    played = check(cases, points)
    assert all(one["killed"] for one in played.values())


def test_a_kill_at_a_commit_of_the_tree_and_of_what_goes_on_changes_nothing(calm: dict[str, Any]):
    """After a kill at each call outside, the next process is killed at the first points where it puts that right."""
    points, race_from = calm["report"]["points"], calm["report"]["race_from"]
    calls = [n for n, label in enumerate(points, start=1) if label.startswith("call") and n < race_from]
    seconds = itertools.cycle(("1:after", "2:before", "2:after", "3:before", "3:after"))
    first = [f"{n}:{side}" for n in calls for side in SIDES][:: 1 if ALL else 3]
    cases = [f"{one},{next(seconds)}" for one in first]
    trees = [f"tree-1:{side}" for side in SIDES]
    played = check([*cases, *trees], points)
    assert all(played[one]["killed"] == 2 for one in cases)
    assert all(played[one]["killed"] == 1 for one in trees)


def test_a_kill_in_a_saga_forward_or_in_undo_leaves_the_same_in_the_company(monkeypatch: pytest.MonkeyPatch):
    """Sampled points: calls on the way forward and back, the turn-around, a child's end; and a second kill in undo."""
    monkeypatch.setenv("CHAOS_PLAY", "orders")
    calm = play([])[0]
    assert not calm["error"], calm["error"]
    report, points = calm["report"], calm["report"]["points"]
    undone = [name for cls, name, how in report["effects"]["undone"] if cls == "undo" and how == "done"]
    assert undone == ["invoices.void", "shipments.cancel", "payments.void", "reservations.release"]
    assert ["undo", "payments.void", "WriteFailed"] in report["effects"]["left"]
    turn, ends = points.index("append decided") + 1, points.index("append run.ended+signal") + 1
    calls = [n for n, label in enumerate(points, start=1) if label.startswith("call") and "credit" not in label]
    cases = [f"{n}:{side}" for n, side in zip(calls[1:-2:4], itertools.cycle(("after", "before")), strict=False)]
    back = [n for n in calls if n > turn]
    cases += [
        f"{turn}:before",
        f"{turn}:after",
        f"{ends}:after",
        f"{back[0]}:after,3:after",
        f"{back[2]}:before,2:after",
    ]
    played = check(cases, points)
    assert [case for case in cases if played[case]["killed"] != case.count(":")] == []


BROKEN = [
    ("key", "refunds.create", "after", "done too often: refunds.create"),
    ("blind", "helpdesk.reply", "after", "done too often: helpdesk.reply"),
    ("credulous", "helpdesk.reply", "before", "never done: helpdesk.reply"),
    ("tamper", "helpdesk.reply", "before", "audit: "),
]


def test_what_breaks_the_promise_is_found(calm: dict[str, Any]):
    points = calm["report"]["points"]
    cases = [f"{points.index(f'call {call}') + 1}:{side}!{broken}" for broken, call, side, _ in BROKEN]
    for found, (broken, _, _, what) in zip(play(cases)[1:], BROKEN, strict=True):
        assert found["killed"], broken
        assert any(problem.startswith(what) for problem in found["problems"]), (broken, found["problems"])

"""What an agent gives inside lists and objects is compared too, in a bounded number of figures and without more alarms."""

from __future__ import annotations

import random
from typing import Any

from tightship.runtime.drift import Observation, compare, told_apart
from tightship.runtime.output_features import MOST_INSIDE, of_output
from tightship.workflow.types import object_schema

SHAPE = object_schema(
    {
        "lines": [{"article": "str", "amount": "float", "rush": "bool", "place": {"floor": "int"}}],
        "total": {"net": "float", "tax": "float"},
        "rates": "list[float]",
        "extra": "object",
    }
)


def order(chance: random.Random, factor: float = 1.0) -> dict[str, Any]:
    """An order of one to four lines."""
    lines = [
        {
            "article": "bolt",
            "amount": factor * chance.lognormvariate(3, 0.4),
            "rush": chance.random() < 0.2,
            "place": {"floor": chance.randint(0, 3)},
        }
        for _ in range(chance.randint(1, 4))
    ]
    net = chance.lognormvariate(4, 0.4)
    return {"lines": lines, "total": {"net": net, "tax": 0.2 * net}, "rates": [chance.random()], "extra": {"hidden": 1}}


def orders(seed: str, count: int, factor: float = 1.0) -> list[dict[str, Any]]:
    chance = random.Random(seed)
    return [order(chance, factor) for _ in range(count)]


def test_figures_inside_a_list_of_objects_are_compared() -> None:
    told = told_apart("buyer", orders("before", 60), orders("after", 60, 2.0), SHAPE)
    assert sorted(told) == ["largest of output.lines[].amount", "mean of output.lines[].amount"]
    assert told_apart("buyer", orders("before", 60), orders("after", 60), SHAPE) == []


def test_a_list_of_objects_becomes_a_few_figures_of_the_whole_list() -> None:
    line = {"article": "bolt", "amount": 2.0, "rush": False, "place": {"floor": 1}}
    lines = [line, {**line, "amount": 6.0, "rush": True}]
    given = {"lines": lines, "total": {"net": 8.0, "tax": 1.6}, "rates": [], "extra": {"hidden": 5}}
    assert of_output(given, SHAPE) == {
        "length of output.lines": 2.0,
        "mean of output.lines[].amount": 4.0,
        "largest of output.lines[].amount": 6.0,
        "output.lines[].rush": "False + True",
        "mean of output.lines[].place.floor": 1.0,
        "largest of output.lines[].place.floor": 1.0,
        "length of output.total": 2.0,
        "output.total.net": 8.0,
        "output.total.tax": 1.6,
        "length of output.rates": 0.0,
        "length of output.extra": 1.0,
    }


def test_their_number_follows_from_the_declared_shape_and_is_bounded() -> None:
    names = [f"column_{number}" for number in range(100)]
    schema = object_schema({"rows": [dict.fromkeys(names, "float")]})
    rows = [{name: float(at) for at, name in enumerate(names)} for _ in range(500)]
    assert len(of_output({"rows": rows}, schema)) == 1 + 2 * MOST_INSIDE
    undeclared = object_schema({"rows": "list"})
    assert list(of_output({"rows": rows}, undeclared)) == ["length of output.rows"]


def test_what_has_not_changed_raises_an_alarm_no_more_often_than_the_level_says() -> None:
    found = list[float]()
    checks = 100
    for number in range(checks):
        sides = [
            [Observation(f"r-{at}", float(at), of_output(one, SHAPE)) for at, one in enumerate(orders(seed, 30))]
            for seed in (f"before {number}", f"after {number}")
        ]
        report = compare(f"agent:{number}", *sides, level=0.2, effect=0.0, exact=True)
        found.append(min((one.p for one in report.changes), default=1.0))
    for level in (0.05, 0.2):
        chance = 3 * (checks * level * (1 - level)) ** 0.5
        assert sum(p <= level for p in found) <= checks * level + chance

"""The benchmark's table: medians over the rounds, targets that follow the peer of the same call, honest gaps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks import table
from benchmarks.figures import FIGURES, MEASUREMENTS, Figure, Target

RATE = Figure("rate", "1/s", "concurrent", "a rate", Target(10, "langgraph"), higher_is_better=True)
TIME = Figure("time", "ms", "alone", "a time", Target(1.0))


def record(figure: Figure, **sides: list[float]) -> table.Record:
    samples = table.Samples()
    for side, values in sides.items():
        for value in values:
            samples.add(side, {figure.name: value}, {}, {})
    (found,) = table.merge(samples, [figure])
    return found


def test_the_median_over_the_rounds_counts_and_every_round_is_kept() -> None:
    found = record(TIME, ours=[0.7, 9.0, 0.8])
    assert found["ours"] == 0.8
    assert found["samples"] == {"ours": [0.7, 9.0, 0.8]}


@pytest.mark.parametrize(("ours", "met"), [(4999.0, False), (5000.0, True)])
def test_a_target_that_rests_on_a_peer_is_computed_from_the_same_call(ours: float, met: bool) -> None:
    found = record(RATE, ours=[ours], langgraph=[500.0])
    assert (found["target"], found["met"]) == (5000.0, met)


@pytest.mark.parametrize(("ours", "met"), [(1.0, True), (1.01, False)])
def test_where_less_is_better_the_target_is_an_upper_bound(ours: float, met: bool) -> None:
    assert record(TIME, ours=[ours])["met"] is met


def test_a_peer_that_failed_leaves_a_gap_and_no_verdict() -> None:
    found = record(RATE, ours=[5000.0])
    assert found["peers"] == {"langgraph": None, "dbos": None}
    assert (found["target"], found["met"], found["target_rule"]) == (None, None, "10 x langgraph")
    assert "10 x langgraph" in table.render([found])


def test_the_ratio_beside_a_peer_says_how_many_times_better_ours_is() -> None:
    text = table.render([record(TIME, ours=[0.5], dbos=[1.5]), record(RATE, ours=[50.0], dbos=[100.0])])
    assert "1.5 (3x)" in text and "100 (0.5x)" in text


def test_every_figure_has_a_measurement_that_yields_it() -> None:
    assert {figure.measurement for figure in FIGURES} == {measurement.name for measurement in MEASUREMENTS}
    assert len({figure.name for figure in FIGURES}) == len(FIGURES)


def test_the_result_file_of_this_checkout_is_one_that_the_table_can_print() -> None:
    path = Path(table.LATEST)
    records: list[table.Record] = json.loads(path.read_text()) if path.exists() else [record(TIME, ours=[0.5])]
    printed = table.render(records)
    assert all(one["figure"] in printed for one in records)

"""A file of inputs: what fits, what does not and why, and how each line is named."""

from __future__ import annotations

import io
import json
from typing import Any, NamedTuple

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightship.cli._batch import Batch, Line, Problem, parse
from tightship.cli._work import Record, percentile, summary
from tightship.core.errors import InputRejected
from tightship.patterns import load_all
from tightship.workflow.build import Workflow

load_all()
PLAIN = Workflow("w", owner="o", purpose="p", input={"n": "int"}, steps=["a"])
NAMED = Workflow("w", owner="o", purpose="p", input={"id": "str", "n": "int"}, steps=["a"])


class Found(NamedTuple):
    """What a batch came to."""

    name: str
    lines: list[Line]
    problems: list[Problem]
    fitting: int


def batch(*lines: Any, spec: Any = PLAIN, name: str = "b", limit: int = 1000) -> Found:
    """A batch of lines; what is no text is written as JSON."""
    return read(
        "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines), spec, name, limit
    )


def read(text: str | bytes, spec: Any = PLAIN, name: str = "b", limit: int = 1000) -> Found:
    data = text.encode() if isinstance(text, str) else text
    with Batch(io.BytesIO(data), "in.jsonl", spec, name, limit) as found:
        return Found(found.name, list(found.lines()), found.problems, found.fitting)


def references(found: Found) -> list[str]:
    return [line.reference for line in found.lines]


def test_a_lines_own_id_is_its_reference_and_not_a_part_of_an_input_that_declares_none() -> None:
    found = batch({"id": "T-1", "n": 1}, {"id": 2, "n": 2})
    assert references(found) == ["b/T-1", "b/2"]
    assert [line.input for line in found.lines] == [{"n": 1}, {"n": 2}]


def test_a_declared_id_is_given_to_the_workflow_as_well() -> None:
    [line] = batch({"id": "T-1", "n": 1}, spec=NAMED).lines
    assert (line.reference, line.input) == ("b/T-1", {"id": "T-1", "n": 1})


def test_without_an_id_the_content_is_the_reference_and_equal_lines_are_different_work() -> None:
    found = references(batch({"n": 1}, {"n": 2}, {"n": 1}))
    assert len(set(found)) == 3
    assert found[2] == f"{found[0]}~2"
    assert references(batch({"n": 1}, {"n": 2}, {"n": 1})) == found


def test_the_same_content_is_the_same_batch_by_default_and_other_content_another() -> None:
    assert batch({"n": 1}, name="").name == batch({"n": 1}, name="").name
    assert batch({"n": 1}, name="").name != batch({"n": 2}, name="").name


def test_what_is_expected_is_set_aside() -> None:
    [line] = batch({"n": 1, "expected": {"outcome": "completed"}}).lines
    assert line.input == {"n": 1}
    assert line.expected == {"outcome": "completed"}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"n": "x"}, "expected integer"),
        ({}, "missing"),
        ({"n": 1, "m": 2}, "not declared"),
        ([1], "a JSON list"),
        ("null", "a JSON null"),
        ("{", "no JSON"),
        ('{"n": 1} {"n": 2}', "no JSON"),
        ('{"n": NaN}', "no JSON"),
        ('{"n": 1, "x": "' + "y" * 2000 + '"}', "more than 1,000 bytes"),
    ],
)
def test_a_line_that_does_not_fit_is_named_and_the_others_stand(line: Any, said: str) -> None:
    found = batch({"n": 1}, "", line, {"n": 4})
    [problem] = found.problems
    assert problem.where == "in.jsonl:3"
    assert said in problem.message
    assert problem.fix
    assert [one.number for one in found.lines] == [1, 4]
    assert found.fitting == 2


def test_an_id_that_stands_twice_is_a_problem() -> None:
    found = batch({"id": "a", "n": 1}, {"id": "a", "n": 2})
    assert [(problem.where, "line 1" in problem.message) for problem in found.problems] == [("in.jsonl:2", True)]


def test_a_source_that_changes_meanwhile_is_read_once() -> None:
    source = io.BytesIO(b'{"n": 1}\n')
    with Batch(source, "in.jsonl", PLAIN, "b") as found:
        source.seek(0)
        source.write(b'{"n": 9}\n')
        assert [line.input for line in found.lines()] == [{"n": 1}]
        assert [line.input for line in found.lines()] == [{"n": 1}]


@given(st.lists(st.one_of(st.integers(-5, 5), st.text(max_size=5)), max_size=20), st.booleans())
def test_every_line_is_either_given_out_or_a_problem_and_references_are_unique(
    values: list[Any], newline: bool
) -> None:
    text = b"\n".join(orjson.dumps({"n": value}) for value in values) + (b"\n" if newline else b"")
    found = read(text)
    lines = found.lines
    assert len(lines) == found.fitting == sum(isinstance(value, int) for value in values)
    assert len(lines) + len(found.problems) == len(values)
    assert len({line.reference for line in lines}) == len(lines)


@given(st.binary(max_size=300))
def test_no_bytes_break_the_reader(data: bytes) -> None:
    found = read(data, limit=50)
    assert len(found.lines) == found.fitting


def test_parse_takes_objects_only() -> None:
    assert parse('{"a": 1}') == {"a": 1}
    for text in ("", "1", "[]", '"a"', "true", "{]"):
        with pytest.raises(InputRejected):
            parse(text)


# --- figures ------------------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 1000), min_size=1), st.sampled_from([0.5, 0.95, 0.99]))
def test_a_percentile_is_the_smallest_value_that_covers_its_share(values: list[float], share: float) -> None:
    ordered = sorted(values)
    found = percentile(ordered, share)
    assert found is not None
    at_or_below = sum(value <= found for value in ordered)
    assert at_or_below >= share * len(ordered) - 1e-9
    assert found == ordered[0] or sum(value < found for value in ordered) < share * len(ordered) + 1e-9


def test_figures_count_states_reasons_money_and_time_of_ended_runs_alone() -> None:
    records = [
        Record(1, "b/1", "r-1", "completed", usd=2_000_000_000, calls=3, seconds=1.0),
        Record(2, "b/2", "r-2", "escalated", "data_missing", usd=500_000_000, seconds=3.0, budget=2),
        Record(3, "b/3", "r-3", "waiting", seconds=900.0),
    ]
    found = summary(records, 4.0, skipped=1)
    assert found["states"] == {"completed": 1, "escalated": 1, "waiting": 1}
    assert found["reasons"] == {"data_missing": 1}
    assert (found["cost"], found["calls"], found["budget_events"], found["skipped"]) == (2.5, 3, 2, 1)
    assert (found["p50_seconds"], found["p95_seconds"]) == (1.0, 3.0)
    assert percentile([], 0.5) is None


def test_a_mark_of_byte_order_is_no_part_of_the_first_line() -> None:
    lines = '{"n": 1}\n{"n": 2}\n'
    marked, plain = read("\ufeff" + lines, name=""), read(lines, name="")
    assert marked.problems == []
    assert references(marked) == references(plain)
    assert marked.name == plain.name

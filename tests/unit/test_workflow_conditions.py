"""Conditions: evaluated over the scope, bounded, with places and plain words when something is wrong."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightship.core.errors import DataMissing, FormatMismatch, LoadError
from tightship.workflow.conditions import MAX_DEPTH, MAX_LENGTH, Condition, Expression, Values
from tightship.workflow.source import parse_source

SCOPE: dict[str, Any] = {
    "input": {
        "ticket": "Hello",
        "n": 3,
        "items": [{"id": 1}, {"id": 2}],
        "nothing": None,
        "at": "2024-01-31T00:00:00Z",
    },
    "triage": {"urgency": "low", "topic": "refund", "confidence": 0.7},
}


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ('triage.urgency in ["low", "high"] && triage.topic != ""', True),
        ("input.n > 2.5", True),
        ("input.n == 3.0", True),
        ('has(triage.topic) && triage.topic == "refund"', True),
        ("has(triage.absent)", False),
        ("has(refund.amount)", False),
        ("input.items.exists(one, one.id == 2)", True),
        ("input.items.map(one, one.id)", [1, 2]),
        ("size(input.items)", 2),
        ('input.ticket.lowerAscii() == "hello"', True),
        ("max(1, input.n)", 3),
        ("input.nothing == null", True),
        ('timestamp(input.at) + duration("24h")', "2024-02-01T00:00:00Z"),
        ('duration("90m")', 5400.0),
        ('{"a": triage.topic, "b": [1]}', {"a": "refund", "b": [1]}),
        ("true || nobody.knows == 1", True),
        ("triage.confidence < threshold", True),
        ("threshold", 0.8),
        ('now() > timestamp("2020-01-01T00:00:00Z")', True),
        ("context.stock > 3 && context.price > 1.0", True),
        ('"now()" == "now()"', True),
    ],
)
def test_an_expression_has_this_value(source: str, value: Any):
    ambient = {"threshold": 0.8, "now()": 1_700_000_000.0, "context.stock": 4, "context.price": 2.5}
    assert Expression(source).evaluate(SCOPE, ambient) == value


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("input.all.map(key, key)", ["a", "b", "c", "d", "e", "f"]),
        ("input.all.map(key, input.all[key])", [6, 5, 4, 3, 2, 1]),
        ('input["all"].filter(key, key != "c").map(key, key + "!")', ["a!", "b!", "d!", "e!", "f!"]),
        ("[input].map(one, one.all.map(key, key != 'a', key))", [["b", "c", "d", "e", "f"]]),
        ('"b" in (input.all).filter(key, true) ? [input.all][0] . map(key, key) : []', ["a", "b", "c", "d", "e", "f"]),
        ('input.all.map(key, key).join("")', "abcdef"),
        ('join(input.all, "")', "abcdef"),
        ("lowerAscii(input.all)", "abcdef"),
        ("{'f': 1, 'e': 2, 'd': 3, 'c': 4}.map(key, key)", ["c", "d", "e", "f"]),
        ("[3u, 1u, 2u].map(one, one + 1u)", [4, 2, 3]),
    ],
)
def test_what_goes_through_an_object_takes_its_keys_in_one_order(source: str, value: Any):
    scope = {"input": {"all": {key: number for number, key in enumerate("fedcba", 1)}}}
    for _ in range(5):
        assert Expression(source).evaluate(scope) == value


def test_what_is_not_run_data_is_reported_so_that_it_is_decided_once():
    found = Condition("now() > timestamp(input.at) && triage.confidence < threshold && context.stock > context.level")
    assert found.ambient == ("context.level", "context.stock", "now()", "threshold")
    assert found.names == {"input", "triage"}
    with pytest.raises(DataMissing, match="threshold has no value"):
        Condition("threshold > 0.5").evaluate(SCOPE)


def test_names_bound_by_a_loop_in_the_expression_are_not_names_of_the_scope():
    found = Expression("input.items.all(x, x.id > 0 && x.id < triage.limit) && x.y")
    assert [ref.path for ref in found.refs] == [("input", "items"), ("triage", "limit"), ("x", "y")]


@pytest.mark.parametrize(
    ("source", "missing"),
    [
        ("triage.missing == 1", "triage.missing"),
        ("refund.amount > 100.0", "refund"),
        ("refund == null", "refund"),
        ("input.items[7].id == 1", "a list item"),
        ('input["absent"] == 1', "input.absent"),
    ],
)
def test_what_is_missing_is_named(source: str, missing: str):
    with pytest.raises(DataMissing) as refused:
        Condition(source).evaluate(SCOPE)
    assert refused.value.needed == missing
    assert missing in refused.value.message


@pytest.mark.parametrize(
    "source",
    [
        "triage.urgency > 3",
        "triage.topic",
        "input.n",
        '"a" + 1 == "b"',
        "1 / 0 == 1",
        "input.nothing.x == 1",
        "size(3) == 1",
    ],
)
def test_what_does_not_fit_is_a_format_mismatch(source: str):
    with pytest.raises(FormatMismatch):
        Condition(source).evaluate(SCOPE)


@pytest.mark.parametrize("source", ["1.0 / 0.0", 'b"abc"', "[1.0 / 0.0]"])
def test_what_is_not_json_does_not_come_out(source: str):
    with pytest.raises(FormatMismatch):
        Expression(source).evaluate(SCOPE)


BAD = [
    ("triage.urgency ==", "ends too early"),
    ("triage.urgency === 3", "no meaning"),
    ("1 == 1 1", "extraneous"),
    ("", "ends too early"),
    ('"open', "no meaning"),
    ("sizee(input.items) > 1", "did you mean 'size'"),
    ("context == 1", "context.<key>"),
    ("now > 3", "now()"),
    ("(" * (MAX_DEPTH + 1) + "true" + ")" * (MAX_DEPTH + 1), "nests deeper"),
    ("a" * (MAX_LENGTH + 1), "longer than"),
    ("a.all(x, b.all(y, c.all(z, true)))", "loops nest"),
]


@pytest.mark.parametrize(("source", "said"), BAD)
def test_a_malformed_expression_is_refused_when_it_is_loaded(source: str, said: str):
    with pytest.raises(LoadError) as refused:
        Condition(source).compile()
    assert said in str(refused.value)
    assert refused.value.fix


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("- a.b === 3\n", (1, 9)),
        ("- 'a.b === 3'\n", (1, 10)),
        ("- |\n  a.b == 1 &&\n  a.c === 3\n", (3, 9)),
        ("- a.b == foo(3)\n", (1, 10)),
        ("- a.b ==\n", (1, 9)),
    ],
)
def test_the_error_points_into_the_file(text: str, place: tuple[int, int]):
    with pytest.raises(LoadError) as refused:
        Condition(parse_source(text, "w.yaml")[0]).compile()
    assert (refused.value.file, refused.value.line, refused.value.column) == ("w.yaml", *place)


def test_comparisons_with_literals_are_known():
    found = Condition('a.b == "x" || 3 < a.c && a.d in [1, -2] || a.e + 1 == 2 || !(a.f != true)').comparisons
    assert [(one.path[1], one.op, one.values) for one in found] == [
        ("b", "==", ("x",)),
        ("c", ">", (3,)),
        ("d", "in", (1, -2)),
        ("f", "!=", (True,)),
    ]


def test_why_it_came_out_as_it_did_can_be_shown():
    values = Condition("triage.confidence < threshold || refund.amount > 1.0").values(SCOPE)
    assert values == {"triage.confidence": 0.7}


def test_a_mapping_is_evaluated_together():
    values = Values.parse(
        {"topic": "triage.topic", "status": '"solved"', "n": 3, "flag": True, "deep": {"list": ["input.n", None, 1.5]}}
    )
    assert values.evaluate(SCOPE) == {
        "topic": "refund",
        "status": "solved",
        "n": 3,
        "flag": True,
        "deep": {"list": [3, None, 1.5]},
    }
    assert values.names == {"triage", "input"}


def test_a_mapping_may_be_one_expression_that_gives_an_object():
    assert Values.parse("triage").evaluate(SCOPE) == SCOPE["triage"]
    with pytest.raises(FormatMismatch, match="no object"):
        Values.parse("triage.topic").evaluate(SCOPE)


@pytest.mark.parametrize("value", [3, [1], {1: "a"}])
def test_a_mapping_is_nothing_else(value: Any):
    with pytest.raises(ValueError, match=r".+"):
        Values.parse(value)


def test_evaluation_changes_nothing():
    before = repr(SCOPE)
    Expression("input.items.map(one, one.id + input.n)").evaluate(SCOPE)
    Condition("has(refund.amount)").evaluate(SCOPE)
    assert repr(SCOPE) == before


texts = st.text(st.characters(codec="utf-8"), max_size=60)


@given(texts)
def test_any_text_is_an_expression_or_a_load_error(text: str):
    expression = Expression(text)
    try:
        expression.compile()
    except LoadError:
        return
    with contextlib.suppress(DataMissing, FormatMismatch):
        expression.evaluate(SCOPE, dict.fromkeys(expression.ambient, 1.0))


@given(st.integers(-(2**60), 2**60), st.text(max_size=20))
def test_values_of_the_scope_come_through_unchanged(number: int, text: str):
    scope = {"input": {"number": number, "text": text, "list": [text, number]}}
    assert Expression("input").evaluate(scope) == scope["input"]

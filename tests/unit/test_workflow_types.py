"""Declared types: what the shorthand means, and what is said when a value does not fit."""

from __future__ import annotations

import http.server
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightship.core.errors import InputRejected, LoadError, WrongShape
from tightship.workflow.types import Shape, check_input, fields_shape, object_schema, shape_of, type_schema


@pytest.mark.parametrize(
    ("written", "fitting", "unfitting"),
    [
        ("str", ["", "a"], [1, None, True]),
        ("int", [1, -2], ["1", 1.5, None]),
        ("float", [1, 1.5], ["1", None, True]),
        ("bool", [True], [1, "true"]),
        ("object", [{}, {"a": 1}], [[], "x"]),
        ("list", [[], [1, "a"]], [{}, "x"]),
        ("any", [None, 1, {}], []),
        ("list[str]", [[], ["a"]], [[1], "a"]),
        ("list[list[int]]", [[[1]]], [[1]]),
        ("str?", ["a", None], [1]),
        (["low", "high"], ["low"], ["medium", None]),
        ([1, 2], [1], [3, "1"]),
        ({"city": "str"}, [{"city": "x"}], [{}, {"city": 1}, {"city": "x", "zip": "1"}]),
        ([{"sku": "str"}], [[], [{"sku": "a"}]], [[{}], {"sku": "a"}]),
    ],
)
def test_a_type_means_what_the_table_says(written: Any, fitting: list[Any], unfitting: list[Any]):
    shape = fields_shape({"x": written})
    for value in fitting:
        assert shape.fits({"x": value}), value
    for value in unfitting:
        assert not shape.fits({"x": value}), value


@pytest.mark.parametrize("fields", [{"x": "str?"}, {"x?": "str"}, {"x?": ["a", "b"]}, {"x?": {"y": "int"}}])
def test_an_optional_field_may_be_missing_or_null(fields: dict[str, Any]):
    shape = fields_shape(fields)
    assert shape.fits({}) and shape.fits({"x": None}) and not shape.fits({"x": 7})


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("strng", "did you mean 'str'"),
        ("String", "write 'str'"),
        ("number", "write 'float'"),
        ("list[foo]", "'foo' is no type"),
        ([], "between 1 and"),
        (["a", "a"], "twice"),
        ([["a"]], "allowed values"),
        (3, "is no type"),
        (None, "is no type"),
        ("list[" * 30 + "str" + "]" * 30, "levels deep"),
    ],
)
def test_what_is_no_type_is_refused_with_what_is(written: Any, said: str):
    with pytest.raises(ValueError, match=said.replace("[", r"\[")):
        type_schema(written)


@pytest.mark.parametrize("name", ["a b", "1a", "", "in", "true", "a-b"])
def test_a_field_has_a_name_that_conditions_can_select(name: str):
    with pytest.raises(LoadError, match="no name for a field"):
        fields_shape({name: "str"})


def test_every_misfit_is_named_with_path_expectation_and_value():
    shape = fields_shape({"a": "str", "b": ["x", "y"], "c": [{"n": "int"}]})
    with pytest.raises(WrongShape) as refused:
        shape.require({"b": "z", "c": [{"n": 1}, {"n": "two"}], "extra": 1}, "the output of triage")
    message = refused.value.message
    assert "the output of triage does not fit" in message
    for part in ("a: this required field is missing", 'b: expected one of ["x","y"], got "z"'):
        assert part in message
    assert 'c[1].n: expected integer, got "two"' in message
    assert "extra: this field is not declared" in message


@pytest.mark.parametrize("value", [{"a": b"x"}, {"a": object()}, {"a": {1: 2}}, {"a": float("nan")}, {1, 2}])
def test_what_is_not_json_does_not_fit(value: Any):
    shape = fields_shape({"a": "float"})
    assert not shape.fits(value)
    assert shape.misfits(value)


def test_a_long_list_of_misfits_is_cut():
    assert len(fields_shape({"a": "list[int]"}).misfits({"a": ["x"] * 1000})) == 20


def test_an_input_that_does_not_fit_is_rejected():
    assert check_input({"ticket": "str"}, {"ticket": "hi"}, "support") == {"ticket": "hi"}
    with pytest.raises(InputRejected, match="the input of support"):
        check_input({"ticket": "str"}, {"tickt": "hi"}, "support")


def test_schemas_of_other_documents_are_never_fetched():
    asked = list[str]()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        with pytest.raises(ValueError, match="not fetched"):
            Shape({"$ref": f"http://127.0.0.1:{server.server_address[1]}/schema.json"})
        server.shutdown()
        thread.join()
    assert asked == []


@pytest.mark.parametrize("schema", [{"type": "strin"}, {"type": "string", "pattern": "("}, {"properties": 3}])
def test_what_is_no_schema_is_refused(schema: dict[str, Any]):
    with pytest.raises(ValueError, match="no usable JSON Schema"):
        shape_of(schema)


def test_equal_schemas_are_compiled_once():
    assert shape_of({"type": "object", "title": "x"}) is shape_of({"title": "x", "type": "object"})


written_types = st.recursive(
    st.sampled_from(["str", "int", "float", "bool", "object", "list", "any", "str?", "list[int]"])
    | st.lists(st.text("abc", min_size=1), min_size=1, max_size=3, unique=True),
    lambda inner: st.dictionaries(st.text("xyz", min_size=1, max_size=3), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text("xyz", min_size=1, max_size=3), written_types, max_size=4))
def test_every_written_type_compiles(fields: dict[str, Any]):
    Shape(object_schema(fields))
